"""Draw and search: a canvas for notebooks, the most similar photos beside it, and the same for scripts.

A drawing is a list of strokes. The query picture is made of them here, not in the browser, so a script
can draw and search in the same way.
"""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
from ipycanvas import Canvas
from ipywidgets import HTML, Box, Button, FileUpload, FloatSlider, HBox, Image, Layout, VBox
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from sbirlib.data.images import EXTENSIONS, ImageError, as_pixels, read_image
from sbirlib.data.strokes import INK, SIZE, WIDTH, Stroke, frame_picture, frame_strokes, render_strokes
from sbirlib.errors import InputError
from sbirlib.figures.photos import image_grid, retrieval_card
from sbirlib.figures.style import message, png_bytes
from sbirlib.panels.base import BORDER, Panel, Status
from sbirlib.retrieval.gallery import Gallery, Hit

THUMBNAIL = 270  # px, twice what is shown: sharp on fine screens, and large photos are decoded only once
HINT = "Draw on the canvas, or upload a picture.\nThe most similar photos appear after each stroke."
SEEN = '<div style="line-height: 1.4">what is searched with:<br>the drawing, centred<br>and enlarged</div>'
ON_PICTURE = "Strokes go on top of this picture; Clear takes it away."


class Sheet(NamedTuple):
    """What is on the canvas: a picture (size, size, 3) as paper, None for white, and the strokes on it."""

    paper: np.ndarray | None = None
    strokes: tuple[Stroke, ...] = ()

    def page(self, size: int = SIZE) -> np.ndarray:
        """The canvas (size, size, 3) as it looks."""
        drawn = render_strokes(self.strokes, size)
        return drawn if self.paper is None else np.minimum(drawn, self.paper)

    def query(self, size: int = SIZE) -> np.ndarray:
        """What is searched with, (size, size, 3): the strokes framed, unless a picture lies under them."""
        # A picture was framed when it was loaded: strokes must stay where they were drawn on it.
        if self.paper is not None:
            return self.page(size)
        return render_strokes(frame_strokes(self.strokes, size), size)


BLANK = Sheet()


def search_picture(gallery: Gallery, picture: np.ndarray, k: int = 10) -> list[Hit]:
    """The k photos most similar to a query picture (h, w, 3) uint8."""
    return gallery.search(as_pixels(picture).float() / 255, k)


class DrawPanel(Panel):
    """A canvas to draw on, and the most similar photos of a gallery, searched again after every stroke.

    `sample` is a picture file that is on the canvas from the start. A picture, be it the sample or an
    uploaded one, lies on the canvas like paper: strokes go on top of it, Clear takes it away. Undo
    takes back the last step, whether that was a stroke, a picture or Clear. `size` is in px.
    """

    def __init__(
        self, gallery: Gallery, *, k: int = 10, sample: str | Path | None = None, size: int = SIZE
    ) -> None:
        self.gallery, self.k, self.size = gallery, k, size
        self.hits: list[Hit] = []
        self.query = render_strokes([], size)
        self._sheets = [BLANK]
        self._pen: list[tuple[float, float]] = []
        self._thumbnail = lru_cache(maxsize=256)(_thumbnail)
        self.canvas, self.status = Canvas(width=size, height=size), Status()
        self.seen = Image(format="png", width=size // 3, layout=Layout(border=BORDER))
        look = {"description": "pen (px)", "readout_format": ".1f", "layout": Layout(width=f"{size}px")}
        self.pen_width = FloatSlider(WIDTH, min=1, max=10, step=0.5, **look)
        self.undo_button = self._button("Undo", "takes back the last step", self.undo)
        self.clear_button = self._button("Clear", "an empty canvas", self.clear)
        look = {"tooltip": "searches with a picture file", "layout": Layout(width="auto")}
        self.upload = FileUpload(accept=",".join(EXTENSIONS), **look)
        super().__init__()
        buttons = [self.undo_button, self.clear_button, self.upload]
        if sample is not None:
            hint = "searches with a sample sketch"
            self.sample_button = self._button("Sample", hint, lambda: self.load(sample))
            buttons.append(self.sample_button)
            self.load(sample)
        self._listen()
        frame = Box([self.canvas], layout=Layout(border=BORDER, overflow="hidden")).add_class("sbir-canvas")
        rows = [frame, self.pen_width, HBox(buttons), HBox([self.seen, HTML(SEEN)])]
        left = VBox(rows, layout=Layout(flex="0 0 auto"))
        right = VBox([self.picture, self.status], layout=Layout(flex="1 1 0", min_width="0"))
        self.children = (HBox([left, right], layout=Layout(width="100%")),)

    @property
    def strokes(self) -> list[Stroke]:
        """The strokes on the canvas, the oldest first."""
        return list(self._sheets[-1].strokes)

    @property
    def png(self) -> bytes:
        """The query beside its photos, for pages without a kernel."""
        return png_bytes(self.figure())

    def stroke(self, points: ArrayLike, width: float | None = None) -> None:
        """What one stroke of the mouse does: points (n, 2) in px of the canvas, the pen's width in px.

        The width is the slider's unless given. Points outside are moved to the canvas's edge. Raises
        InputError for anything but one or more finite points.
        """
        points = np.asarray(points, dtype=float)
        if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not np.isfinite(points).all():
            raise InputError(f"a stroke is one or more points (n, 2), not an array of shape {points.shape}")
        stroke = Stroke(points.clip(0, self.size), self.pen_width.value if width is None else width)
        sheet = self._sheets[-1]
        self._turn_to([*self._sheets, sheet._replace(strokes=(*sheet.strokes, stroke))])

    def load(self, path: str | Path) -> None:
        """Searches with a picture file, which replaces what was on the canvas. Raises ImageError."""
        self._turn_to([*self._sheets, Sheet(frame_picture(read_image(path), self.size))])

    def undo(self) -> None:
        """Takes back the last step: a stroke, a picture, or Clear."""
        self._turn_to(self._sheets[:-1] or [BLANK])

    def clear(self) -> None:
        """Empties the canvas; Undo brings the drawing back."""
        if self._sheets[-1] is not BLANK:
            self._turn_to([*self._sheets, BLANK])

    def photos(self) -> Figure:
        """The photos found, best first, in two rows; titles are rank and cosine similarity."""
        if not self.hits:
            return message(HINT, width=7.4, height=3.2)
        return image_grid(*self._shown(), columns=math.ceil(len(self.hits) / 2), side=1.35)

    def figure(self) -> Figure:
        """The query picture beside its photos."""
        if not self.hits:
            return message(HINT)
        count, total = len(self.hits), len(self.gallery.paths)
        heading = f"the {count} most similar of {total} photos: rank and cosine similarity"
        return retrieval_card(self.query, *self._shown(), heading=heading, columns=math.ceil(count / 2))

    def refresh(self, _change: object = None) -> None:
        """Draws the canvas again, and the photos beside it."""
        self._paint()
        self.picture.value = png_bytes(self.photos())

    def _shown(self) -> tuple[list[np.ndarray], list[str]]:
        titles = [f"{hit.rank}: {hit.similarity:.2f}" for hit in self.hits]
        return [self._thumbnail(hit.path) for hit in self.hits], titles

    def _turn_to(self, sheets: list[Sheet]) -> None:
        """Searches with the last of these sheets, and shows it."""
        sheet = sheets[-1]
        query = sheet.query(self.size)
        found = [] if sheet is BLANK else search_picture(self.gallery, query, self.k)
        self._sheets, self.query, self.hits = sheets, query, found
        self.status.say(ON_PICTURE if sheet.paper is not None and not sheet.strokes else "")
        self.refresh()

    def _paint(self) -> None:
        """Shows the present sheet on the canvas, and small the query picture made of it."""
        # With four channels ipycanvas sends PNG; with three it would be a blurred JPEG.
        page = np.pad(self._sheets[-1].page(self.size), ((0, 0), (0, 0), (0, 1)), constant_values=255)
        self.canvas.put_image_data(page)
        buffer = io.BytesIO()
        PIL.Image.fromarray(self.query).save(buffer, "png")
        self.seen.value = buffer.getvalue()

    def _listen(self) -> None:
        """Mouse, finger and upload do what `stroke` and `load` do."""
        canvas = self.canvas
        canvas.on_client_ready(lambda: self._attempt(self._paint))  # a page opened later gets an empty canvas
        canvas.on_mouse_down(self._pen_down)
        canvas.on_mouse_move(self._pen_move)
        canvas.on_mouse_up(self._pen_up)
        canvas.on_mouse_out(self._pen_up)
        canvas.on_touch_start(lambda touches: None if self._pen else self._pen_down(*touches[0]))
        canvas.on_touch_move(lambda touches: self._pen_move(*touches[0]))
        canvas.on_touch_end(lambda touches: self._pen_up())
        canvas.on_touch_cancel(lambda touches: self._pen_up())
        self.upload.observe(lambda _: self._attempt(self._take_upload), "value")

    def _pen_down(self, x: float, y: float) -> None:
        self._pen = [(x, y)]
        self.canvas.line_width, self.canvas.line_cap = self.pen_width.value, "round"
        self.canvas.stroke_style = f"rgb({INK}, {INK}, {INK})"

    def _pen_move(self, x: float, y: float) -> None:
        if self._pen:
            self.canvas.stroke_line(*self._pen[-1], x, y)
            self._pen.append((x, y))

    def _pen_up(self, *last: float) -> None:
        if self._pen:
            points, self._pen = [*self._pen, last] if last else self._pen, []
            self._attempt(lambda: self.stroke(points))

    def _take_upload(self) -> None:
        if not self.upload.value:
            return
        [file], self.upload.value = self.upload.value, ()  # emptied, so that the same file can come again
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "upload"
            path.write_bytes(file["content"])
            try:
                self.load(path)
            except ImageError as error:
                raise ImageError(str(error).replace(str(path), file["name"])) from None

    def _attempt(self, action: Callable[[], None]) -> None:
        """Runs what a click or a stroke asks for; an error is shown in the panel, or nobody would see it."""
        try:
            action()
        except Exception as error:
            text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self.status.say(text, alert=True)

    def _button(self, name: str, tooltip: str, action: Callable[[], None]) -> Button:
        button = Button(description=name, tooltip=tooltip, layout=Layout(width="auto"))
        button.on_click(lambda _: self._attempt(action))
        return button


def _thumbnail(path: Path) -> np.ndarray:
    picture = read_image(path)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(picture)
