"""What every panel is made of: controls above a picture, and the picture alone where no widgets run.

A panel only passes the values of its controls to functions of this package; whatever it shows, a
script can make without it. Every panel's picture is a PNG that is redrawn when a control moves.
"""

import base64
import html
import io
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import PIL.Image
from ipywidgets import HTML, Box, Button, Image, Layout, VBox, Widget, interactive
from matplotlib.figure import Figure

from sbirlib.data.images import read_image
from sbirlib.errors import InputError
from sbirlib.figures.style import png_bytes
from sbirlib.retrieval.gallery import Hit

STYLE = {"description_width": "8.5em"}
THUMBNAIL, LARGEST = 300, 2000  # px: twice what is shown, and what any screen shows
CSS = f"<style>{Path(__file__).with_name('draw.css').read_text(encoding='utf-8')}</style>"


class Panel(VBox):
    """Rows of widgets above a picture, which is redrawn when one of the `controls` among them changes.

    Each kind of panel has a `figure()`, which draws what its controls ask for.
    """

    def __init__(self, *rows: Widget, controls: Iterable[Widget] = ()) -> None:
        self._controls = list(controls)
        self.picture = Image(format="png", layout=Layout(max_width="100%", object_fit="contain"))
        super().__init__([*rows, self.picture], layout=Layout(align_items="flex-start"))
        self.refresh()
        for control in self._controls:
            control.observe(self.refresh, "value")

    @property
    def png(self) -> bytes:
        """The picture for pages without a kernel, which says in words what the controls are set to."""
        said = [f"{c.description}: {getattr(c, 'label', c.value)}" for c in self._controls]
        return png_bytes(self.figure(), "    ".join(said))

    def refresh(self, _change: object = None) -> None:
        """Draws the picture again."""
        self.refill()
        self.picture.value = png_bytes(self.figure())

    def refill(self) -> None:
        """Limits each control to what the other controls leave to choose from."""

    def _repr_mimebundle_(self, **options: Any) -> dict:
        # JupyterLab takes the live view; a static page takes the picture.
        said = f"{type(self).__name__}: {(type(self).__doc__ or '').splitlines()[0]}"
        image = base64.b64encode(self.png).decode()
        return super()._repr_mimebundle_(**options) | {"text/plain": said, "image/png": image}


class Dials(Panel):
    """The figure that a function draws, with a control for each of its arguments.

    `choices` are ipywidgets' abbreviations or widgets: `Dials(draw, size=(1, 9), colour=["red", "blue"])`.
    """

    def __init__(self, draw: Callable[..., Figure], /, **choices: Any) -> None:
        self.draw = draw
        # Not `interact`: nbclient cannot fill its Output widget, and a static page would lack the figure.
        self.arguments = interactive(draw, {"manual": True}, **choices).kwargs_widgets
        shown = [control for control in self.arguments if isinstance(control, Widget)]
        super().__init__(*shown, controls=shown)

    def figure(self) -> Figure:
        """What the function draws with the values of the controls."""
        return self.draw(**{control._kwarg: control.value for control in self.arguments})


class Status(HTML):
    """A line of text that says what a panel is doing."""

    def say(self, text: str, *, alert: bool = False) -> None:
        """Shows this text; with `alert` in red, for what went wrong."""
        look = "color: #b00020; font-weight: bold" if alert else ""
        self.value = f'<div style="white-space: pre-wrap; line-height: 1.4; {look}">{html.escape(text)}</div>'

    def attempt(self, action: Callable[[], object]) -> Exception | None:
        """Runs what a click or a thread asks for; shows and returns its error, or nobody would see it."""
        try:
            action()
        except Exception as error:
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            self.say(f"{kind}{error}", alert=True)
            return error
        return None


class HitGrid(VBox):
    """A grid of the photos found, best first, each a button: a click shows it in full size with its name.

    `hint` stands there while there are none.
    """

    def __init__(self, hint: str) -> None:
        self.hint, self.status, self.grid = hint, Status(), Box().add_class("sbir-hits")
        self.name, self.photo = Status(), Image(format="jpeg")
        close = Button(description="\u00d7", tooltip="back to the photos found")
        close.on_click(lambda _: self.close_photo())
        self._parts = (self.photo, self.name, close)
        self.full = VBox().add_class("sbir-full")
        self._thumbnail = lru_cache(maxsize=512)(lambda path: encoded(thumbnail(path, THUMBNAIL), "jpeg"))
        super().__init__([HTML(CSS), self.status, self.grid, self.full])
        self.hits: list[Hit] = []
        self._cells: list[VBox] = []
        self.close_photo()

    def show(self, hits: list[Hit]) -> None:
        """Shows these photos instead. Raises ImageError where one cannot be read."""
        while len(self._cells) < len(hits):
            cell = VBox([Image(format="jpeg"), Button()]).add_class("sbir-hit")
            self._cells.append(cell)
            cell.children[1].on_click(partial(self.open_photo, len(self._cells)))
        for cell, hit in zip(self._cells, hits, strict=False):
            image, button = cell.children
            image.value = self._thumbnail(hit.path)
            button.description = f"{hit.rank}: {hit.similarity:.2f}  {hit.path.name}"
            button.tooltip = f"{hit.path.name}: show it in full size"
        self.grid.children = tuple(self._cells[: len(hits)])
        self.hits = list(hits)
        self.status.say("" if hits else self.hint)

    def open_photo(self, rank: int, _button: Button | None = None) -> None:
        """Shows the photo of this rank over everything else, with its file name."""
        self.status.attempt(lambda: self._enlarge(self.hits[rank - 1]))

    def close_photo(self) -> None:
        """Takes the large photo away."""
        self.full.children, self.full.layout.display = (), "none"

    def _enlarge(self, hit: Hit) -> None:
        self.photo.value = encoded(thumbnail(hit.path, LARGEST), "jpeg")
        self.name.say(f"{hit.path.name}   (place {hit.rank}, similarity {hit.similarity:.2f})")
        self.full.children, self.full.layout.display = self._parts, "flex"


def thumbnail(path: Path, side: int) -> PIL.Image.Image:
    """The picture of a file, at most `side` px wide and high."""
    picture = read_image(path)
    picture.thumbnail((side, side))
    return picture


def encoded(picture: PIL.Image.Image, form: str) -> bytes:
    """A picture as the bytes of a "jpeg" or "png" file."""
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=88)
    return buffer.getvalue()
