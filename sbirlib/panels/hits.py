"""The photos found, each a button: a click shows the photo in full size with its file name."""

import io
from functools import lru_cache, partial
from pathlib import Path

import PIL.Image
from ipywidgets import HTML, Box, Button, Image, VBox

from sbirlib.data.images import read_image
from sbirlib.panels.base import Status
from sbirlib.retrieval.gallery import Hit

THUMBNAIL, LARGEST = 300, 2000  # px: twice what is shown, and what any screen shows
STYLE = f"<style>{Path(__file__).with_name('draw.css').read_text(encoding='utf-8')}</style>"


class HitGrid(VBox):
    """A grid of the photos found, best first; `hint` stands there while there are none."""

    def __init__(self, hint: str) -> None:
        self.hint, self.status, self.grid = hint, Status(), Box().add_class("sbir-hits")
        self.name, self.photo = Status(), Image(format="jpeg")
        close = Button(description="\u00d7", tooltip="back to the photos found")
        close.on_click(lambda _: self.close_photo())
        self._parts = (self.photo, self.name, close)
        self.full = VBox().add_class("sbir-full")
        self._thumbnail = lru_cache(maxsize=512)(lambda path: encoded(thumbnail(path, THUMBNAIL), "jpeg"))
        super().__init__([HTML(STYLE), self.status, self.grid, self.full])
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
