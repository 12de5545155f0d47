"""The page of `python -m sbirlib app`: one can draw at once, and sees how far the photos are."""

import threading
from collections.abc import Callable
from typing import Any, Self

from ipywidgets import HTML, FloatProgress, Layout, VBox

from sbirlib.panels.base import Status
from sbirlib.panels.draw import DrawPanel
from sbirlib.retrieval.gallery import Gallery

# Voila confines what lies over everything to the part that scrolls.
STYLE = """<style>.sbir-wait { display: none }
#rendered_cells, #jp-main-content-panel { contain: none !important }</style>"""


class DrawPage(VBox):
    """A progress bar and a DrawPanel; `options` are those of the panel.

    `load` runs in a thread of its own: it tells this page how far it is, and gives it the gallery to search.
    """

    def __init__(self, load: Callable[[Self], object], **options: Any) -> None:
        self.panel, self.news = DrawPanel(None, **options), Status()
        self.bar = FloatProgress(max=1.0, layout=Layout(width="100%", max_width="400px"))
        super().__init__([HTML(STYLE), self.news, self.bar, self.panel], layout=Layout(padding="0 10px"))
        self._load = load
        self.thread = threading.Thread(target=self._work, name="gallery", daemon=True)
        self.thread.start()

    def tell(self, what: str, share: float) -> None:
        """Shows what is going on, and how much of it is done, in [0, 1]."""
        self.news.say(f"{what} You can draw already; photos are found as soon as this is done.")
        self.bar.value = share

    def search_in(self, gallery: Gallery) -> None:
        """Searches this gallery, and names the photos that are not in it."""
        self.panel.search_in(gallery)
        lost = f"; {gallery.skipped} more cannot be read, such as" if gallery.skipped else ""
        self.news.say("\n".join([f"{len(gallery.paths)} photos{lost}", *map(str, gallery.left_out[:10])]))

    def _work(self) -> None:
        self.news.attempt(lambda: self._load(self))
        self.bar.layout.display = "none"
