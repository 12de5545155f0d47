"""The photos found, each a button: a click shows the photo in full size with its file name."""

import io
from functools import lru_cache, partial
from pathlib import Path

from ipywidgets import HTML, Box, Button, Image, VBox

from sbirlib.data.images import ImageError, read_image
from sbirlib.panels.base import Status
from sbirlib.retrieval.gallery import Hit

THUMBNAIL, LARGEST = 300, 2000  # px: twice what is shown, and what any screen shows
STYLE = """<style>
.sbir { width: 100%; flex-wrap: wrap; gap: 20px; align-items: flex-start; font-size: 15px; }
.sbir-left { flex: 0 1 400px; min-width: 0; width: 400px; max-width: 100%; gap: 6px; overflow: visible; }
.sbir-right { flex: 1 1 330px; min-width: 0; gap: 8px; overflow: visible; }
.sbir-canvas { border: 1px solid #8a8f98; border-radius: 8px; overflow: hidden; width: 100%;
  background: #fff; }
.sbir-canvas canvas { display: block; width: 100%; height: auto; touch-action: none; cursor: crosshair; }
.sbir-canvas canvas:focus { outline: none; }
.sbir-left a { color: #1565c0; text-decoration: underline; }
.sbir-tools { flex-wrap: wrap; gap: 6px; overflow: visible; }
.sbir-tools .jupyter-button { height: 38px; line-height: 38px; margin: 0; border-radius: 6px;
  padding: 0 12px; }
.sbir-seen { border: 1px solid #ccc; border-radius: 6px; }
.sbir-hits { display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 10px;
  width: 100%; overflow: visible; }
.sbir-hit { position: relative; border: 1px solid #d5d8dd; border-radius: 8px; background: #fff; margin: 0;
  overflow: hidden; }
.sbir-hit:hover { border-color: #1976d2; box-shadow: 0 1px 6px rgba(0, 0, 0, .2); }
.sbir-hit img { width: 100%; height: 140px; object-fit: contain; padding: 6px 6px 30px; margin: 0;
  box-sizing: content-box; width: calc(100% - 12px); }
.sbir-hit button.jupyter-button { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0;
  padding: 0 6px 5px; background: none; border: 0; box-shadow: none; display: block; text-align: left;
  padding-top: 148px; line-height: 26px; color: #222; overflow: hidden; text-overflow: ellipsis; }
.sbir-full { position: fixed; top: 0; left: 0; width: 100vw; height: 100vh; height: 100dvh; max-width: none;
  z-index: 10000; margin: 0; padding: 12px;
  background: rgba(15, 18, 22, .93);
  align-items: center; justify-content: center; box-sizing: border-box; }
.sbir-full img { max-width: 100%; max-height: calc(100vh - 90px); object-fit: contain; background: #fff; }
.sbir-full .widget-html-content, .sbir-full .widget-html { color: #fff; height: auto;
  overflow-wrap: anywhere; }
.sbir-full button.jupyter-button { position: absolute; inset: 0; width: 100%; height: 100%; background: none;
  color: #fff; border: 0; font-size: 34px; text-align: right; padding: 12px 20px; line-height: 1;
  display: flex; align-items: flex-start; justify-content: flex-end; margin: 0; }
</style>"""


class HitGrid(VBox):
    """A grid of the photos found, best first; `hint` stands there while there are none."""

    def __init__(self, hint: str) -> None:
        self.hint, self.status, self.grid = hint, Status(), Box().add_class("sbir-hits")
        self.name, self.photo = Status(), Image(format="jpeg")
        close = Button(description="\u00d7", tooltip="back to the photos found")
        close.on_click(lambda _: self.close_photo())
        self.full = VBox([self.photo, self.name, close]).add_class("sbir-full")
        self._thumbnail = lru_cache(maxsize=512)(partial(_jpeg, side=THUMBNAIL))
        super().__init__([HTML(STYLE), self.status, self.grid, self.full])
        self.hits: list[Hit] = []
        self._cells: list[VBox] = []
        self.close_photo()

    def show(self, hits: list[Hit]) -> None:
        """Shows these photos instead. Raises ImageError where one cannot be read."""
        while len(self._cells) < len(hits):
            cell = VBox([Image(format="jpeg"), Button()]).add_class("sbir-hit")
            cell.children[1].on_click(partial(self._clicked, len(self._cells)))
            self._cells.append(cell)
        for cell, hit in zip(self._cells, hits, strict=False):
            image, button = cell.children
            image.value = self._thumbnail(hit.path)
            button.description = f"{hit.rank}: {hit.similarity:.2f}  {hit.path.name}"
            button.tooltip = f"{hit.path.name}: show it in full size"
        self.grid.children = tuple(self._cells[: len(hits)])
        self.hits = list(hits)
        self.status.say("" if hits else self.hint)

    def open_photo(self, rank: int) -> None:
        """Shows the photo of this rank over everything else, with its file name."""
        hit = self.hits[rank - 1]
        try:
            self.photo.value = _jpeg(hit.path, LARGEST)
        except ImageError as error:
            self.status.say(str(error), alert=True)
            return
        self.name.say(f"{hit.path.name}   (place {hit.rank}, similarity {hit.similarity:.2f})")
        self.full.layout.display = "flex"

    def close_photo(self) -> None:
        """Takes the large photo away."""
        self.full.layout.display = "none"

    def _clicked(self, place: int, _button: Button) -> None:
        self.open_photo(place + 1)


def _jpeg(path: Path, side: int) -> bytes:
    picture = read_image(path)
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=88)
    return buffer.getvalue()
