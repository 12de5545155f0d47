"""The page of `python -m sbirlib app`: one can draw at once, and sees how far the photos are."""

import threading
from collections.abc import Callable
from typing import Any

from ipywidgets import HTML, FloatProgress, Layout, VBox

from sbirlib.errors import InputError
from sbirlib.panels.base import Status
from sbirlib.panels.draw import DrawPanel
from sbirlib.retrieval.gallery import Gallery

# Voila confines what lies over everything to the part that scrolls.
STYLE = """<style>.sbir-wait { display: none }
#rendered_cells, #jp-main-content-panel { contain: none !important }</style>"""
Tell = Callable[[str, float], None]  # what is going on, and how much of it is done, in [0, 1]


class DrawPage(VBox):
    """A progress bar and a DrawPanel, which searches as soon as `load` has made the gallery.

    `load` runs in a thread of its own and is given a function to tell how far it is; `options` are those of
    the panel.
    """

    def __init__(self, load: Callable[[Tell], Gallery], **options: Any) -> None:
        self.panel, self.news = DrawPanel(None, **options), Status()
        self.bar = FloatProgress(max=1.0, layout=Layout(width="100%", max_width="400px"))
        ready = HTML(STYLE)
        super().__init__([ready, self.news, self.bar, self.panel], layout=Layout(padding="0 10px"))
        self._load = load
        self.thread = threading.Thread(target=self._work, name="gallery", daemon=True)
        self.thread.start()

    def _tell(self, what: str, share: float) -> None:
        self.news.say(f"{what} You can draw already; photos are found as soon as this is done.")
        self.bar.value = share

    def _work(self) -> None:
        try:
            gallery = self._load(self._tell)
            self.panel.search_in(gallery)
        except Exception as error:  # which nobody would see in a thread
            text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self.news.say(text, alert=True)
        else:
            lost = f"; {gallery.skipped} more cannot be read" if gallery.skipped else ""
            self.news.say(f"{len(gallery.paths)} photos{lost}")
        self.bar.layout.display = "none"
