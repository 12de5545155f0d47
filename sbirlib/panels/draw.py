"""Draw and search: a canvas, the most similar photos beside it, and a web page of both.

A drawing is a list of strokes. The query picture is made of them here, not in the browser, so a script
can draw and search in the same way.
"""

import base64
import json
import tempfile
import threading
from collections.abc import Callable
from itertools import compress
from pathlib import Path
from typing import Self

import ipywidgets
import numpy as np
import PIL.Image
import PIL.ImageOps
from ipycanvas import Canvas
from ipywidgets import HTML, Box, Button, FileUpload, FloatSlider, HBox, Image, Layout, ToggleButton, VBox
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from sbirlib.data import EXTENSIONS, RECORDINGS, Recording, as_pixels, frame_picture, read_image
from sbirlib.data.strokes import INK, SIZE, WIDTH, Sheet, Stroke, frame_strokes, render_strokes
from sbirlib.errors import ImageError, InputError
from sbirlib.figures import message, retrieval_card
from sbirlib.panels.base import HitGrid, Panel, Status, encoded, thumbnail
from sbirlib.retrieval.gallery import Gallery, Hit

HINT = "Draw on the canvas, or upload a picture.\nThe most similar photos appear after each stroke."
SEEN = '<div style="line-height: 1.4">what is searched with</div>'
LEFT_OUT = "The strokes in colour were left out of the search: the model found that they do harm."
ON_PICTURE = "Strokes go on top of this picture; Clear takes it away."
NOT_FRAMED = "No plain paper was found around a drawing in {}, so it is centred, but not cut out or enlarged."
DROPPED = np.uint8([235, 120, 60])  # the colour of strokes that are left out of the search
RUBBER = 24.0  # px, the width of the eraser
# Voila confines what lies over everything to the part that scrolls.
PAGE_STYLE = """<style>.sbir-wait { display: none }
#rendered_cells, #jp-main-content-panel { contain: none !important }</style>"""

BLANK = Sheet()


def search_picture(gallery: Gallery, picture: np.ndarray, k: int = 10) -> list[Hit]:
    """The k photos most similar to a query picture (h, w, 3) uint8."""
    return gallery.search(as_pixels(picture).float() / 255, k)


class DrawPanel(Panel):
    """A canvas to draw on, and the most similar photos of a gallery, searched again after every stroke.

    `sample` is a picture file that is on the canvas from the start. A picture, be it the sample or an
    uploaded one, lies on the canvas like paper: strokes go on top of it, Clear takes it away. Undo
    takes back the last step, whether that was a stroke, a picture or Clear. Until there is a gallery, which
    `search_in` gives it, one can draw, but nothing is found.
    """

    def __init__(self, gallery: Gallery | None, *, k: int = 10, sample: str | Path | None = None) -> None:
        self.gallery, self.k = gallery, k
        self.hits: list[Hit] = []
        self.query = render_strokes([])
        self._sheets = [BLANK]
        self._page = BLANK.page()
        self._pen: list[tuple[float, float]] = []
        self._lock = threading.RLock()  # a gallery may come while somebody draws
        self.canvas, self._other = Canvas(width=SIZE, height=SIZE), Canvas(width=1, height=1)
        self.status, self.found = Status(), HitGrid(HINT)
        self.seen, self.saved = Image(format="png", width=SIZE // 4).add_class("sbir-seen"), HTML()
        look = {"description": "pen (px)", "readout_format": ".1f", "layout": Layout(width="100%")}
        self.pen_width = FloatSlider(WIDTH, min=1, max=10, step=0.5, **look)
        self.undo_button = self._button("Undo", "takes back the last step", self.undo)
        self.clear_button = self._button("Clear", "an empty canvas", self.clear)
        look, files = {"layout": Layout(width="auto")}, ",".join((*EXTENSIONS, *RECORDINGS))
        self.eraser = ToggleButton(description="Eraser", tooltip="rubs out what is under the pen", **look)
        self.upload = FileUpload(accept=files, tooltip="searches a file", **look)
        super().__init__()
        if sample is not None:
            self.load(sample)
        self._listen()
        tools = HBox([self.undo_button, self.clear_button, self.eraser, self.upload]).add_class("sbir-tools")
        seen = HBox([self.seen, VBox([HTML(SEEN), self.saved])])
        left = VBox([Box([self.canvas]).add_class("sbir-canvas"), tools, self.pen_width, seen])
        halves = [left.add_class("sbir-left"), VBox([self.status, self.found]).add_class("sbir-right")]
        self.children = (HBox(halves).add_class("sbir"),)

    def search_in(self, gallery: Gallery) -> None:
        """Searches this gallery from now on, at once with what is on the canvas."""
        with self._lock:
            self.gallery = gallery
            self._turn_to(self._sheets)

    @property
    def strokes(self) -> list[Stroke]:
        """The strokes on the canvas, the oldest first."""
        return list(self._sheets[-1].strokes)

    def stroke(self, points: ArrayLike, width: float | None = None) -> None:
        """What one stroke of the mouse does: points (n, 2) in px of the canvas, the pen's width in px.

        The width is the slider's unless given. Points outside are moved to the canvas's edge. Raises
        InputError for anything but one or more finite points.
        """
        points = np.asarray(points, dtype=float)
        if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not np.isfinite(points).all():
            raise InputError(f"a stroke is one or more points (n, 2), not an array of shape {points.shape}")
        stroke = Stroke(points.clip(0, SIZE), self.pen_width.value if width is None else width)
        sheet = self._sheets[-1]
        self._turn_to([*self._sheets, sheet._replace(strokes=(*sheet.strokes, stroke))])

    def erase(self, points: ArrayLike, width: float = RUBBER) -> None:
        """Rubs out what lies under a movement of the eraser; Undo brings it back."""
        rubber = Stroke(np.asarray(points, dtype=float), width)
        self._turn_to([*self._sheets, self._sheets[-1].without(rubber)])

    def load(self, path: str | Path, name: str | None = None) -> None:
        """Searches with a picture file, which replaces what was on the canvas. Raises ImageError."""
        picture = read_image(path)
        framed = frame_picture(picture)
        whole = np.array(PIL.ImageOps.pad(picture, (SIZE, SIZE), color="white"))
        self._turn_to([*self._sheets, Sheet(whole if framed is None else framed)])
        if framed is None:
            self.status.say(NOT_FRAMED.format(name or path), alert=True)

    def undo(self) -> None:
        """Takes back the last step: a stroke, a picture, or Clear."""
        self._turn_to(self._sheets[:-1] or [BLANK])

    def clear(self) -> None:
        """Empties the canvas; Undo brings the drawing back."""
        if self._sheets[-1] is not BLANK:
            self._turn_to([*self._sheets, BLANK])

    def drawing(self) -> str:
        """The strokes as JSON: the canvas's size, and for each stroke its points in px."""
        strokes = [np.round(stroke.points, 1).tolist() for stroke in self.strokes]
        return json.dumps({"size": [SIZE, SIZE], "strokes": strokes})

    def figure(self) -> Figure:
        """The query picture beside its photos."""
        if not self.hits:
            return message(HINT)
        photos = [thumbnail(hit.path, 270) for hit in self.hits]  # px: twice what is shown
        titles = [f"{hit.rank}: {hit.similarity:.2f}" for hit in self.hits]
        of = f"the {len(photos)} most similar of {len(self.gallery.paths)} photos"
        heading = f"{of}: rank and {'cosine similarity' if self.gallery.model.vectors else 'score'}"
        return retrieval_card(self.query, photos, titles, heading=heading, columns=(len(photos) + 1) // 2)

    def refresh(self, _change: object = None) -> None:
        """Draws the canvas again, and the photos beside it."""
        self._paint()
        self.found.show(self.hits)
        link = base64.b64encode(self.drawing().encode()).decode()
        save = f'<a download="drawing.json" href="data:application/json;base64,{link}">Save these strokes</a>'
        self.saved.value = save if self.strokes else ""

    def _turn_to(self, sheets: list[Sheet]) -> None:
        """Searches with the last of these sheets, and shows it."""
        sheet, keep = sheets[-1], np.ones(len(sheets[-1].strokes), bool)
        blank = self.gallery is None or (sheet.paper is None and not sheet.strokes)
        if not blank and sheet.paper is None:  # on a picture all strokes count
            framed = frame_strokes(sheet.strokes)
            keep = self.gallery.model.clean(Recording(tuple(stroke.points / SIZE for stroke in framed)))
        kept = sheet._replace(strokes=tuple(compress(sheet.strokes, keep)))
        dropped = render_strokes([*compress(sheet.strokes, ~keep)])
        page, query = np.minimum(kept.page(), np.maximum(dropped, DROPPED)), kept.query()
        found = [] if blank else search_picture(self.gallery, query, self.k)
        self._sheets, self._page, self.query, self.hits = sheets, page, query, found
        on_picture = sheet.paper is not None and not sheet.strokes
        self.status.say(ON_PICTURE if on_picture else "" if keep.all() else LEFT_OUT)
        self.refresh()

    def _paint(self) -> None:
        """Shows the present sheet on the canvas, and small the query picture made of it."""
        # With four channels ipycanvas sends PNG; with three it would be a blurred JPEG.
        self.canvas.put_image_data(np.pad(self._page, ((0, 0), (0, 0), (0, 1)), constant_values=255))
        self.seen.value = encoded(PIL.Image.fromarray(self.query), "png")

    def _listen(self) -> None:
        """Mouse, finger and upload do what `stroke` and `load` do."""
        canvas = self.canvas
        canvas.on_client_ready(lambda: self._attempt(self._ready))
        canvas.on_mouse_down(self._pen_down)
        canvas.on_mouse_move(self._pen_move)
        canvas.on_mouse_up(self._pen_up)
        canvas.on_mouse_out(self._pen_up)
        canvas.on_touch_start(lambda touches: None if self._pen else self._pen_down(*touches[0]))
        canvas.on_touch_move(lambda touches: self._pen_move(*touches[0]))
        canvas.on_touch_end(lambda touches: self._pen_up())
        canvas.on_touch_cancel(lambda touches: self._pen_up())
        self.upload.observe(lambda _: self._attempt(self._take_upload), "value")

    def _ready(self) -> None:
        """Paints the canvas of a page that was opened later: it is empty."""
        self._other.clear()  # the page does not know yet which canvas is drawn on: a change tells it
        self._paint()

    def _pen_down(self, x: float, y: float) -> None:
        self._pen = [(x, y)]
        rubs, self.canvas.line_cap = self.eraser.value, "round"
        self.canvas.line_width = RUBBER if rubs else self.pen_width.value
        self.canvas.stroke_style = "white" if rubs else f"rgb({INK}, {INK}, {INK})"

    def _pen_move(self, x: float, y: float) -> None:
        if self._pen:
            self.canvas.stroke_line(*self._pen[-1], x, y)
            self._pen.append((x, y))

    def _pen_up(self, *last: float) -> None:
        if self._pen:
            points, self._pen = [*self._pen, last] if last else self._pen, []
            self._attempt(lambda: (self.erase if self.eraser.value else self.stroke)(points))

    def _take_upload(self) -> None:
        if not self.upload.value:
            return
        [file], self.upload.value = self.upload.value, ()  # emptied, so that the same file can come again
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "upload").with_suffix(Path(file["name"]).suffix)
            path.write_bytes(file["content"])
            try:
                self.load(path, file["name"])
            except ImageError as error:
                raise ImageError(str(error).replace(str(path), file["name"])) from None

    def _attempt(self, action: Callable[[], object]) -> None:
        with self._lock:
            self.status.attempt(action)

    def _button(self, name: str, tooltip: str, action: Callable[[], None]) -> Button:
        button = Button(description=name, tooltip=tooltip, layout=Layout(width="auto"))
        button.on_click(lambda _: self._attempt(action))
        return button


class DrawPage(VBox):
    """The page of `python -m sbirlib app`: a DrawPanel of `k` photos, and how far the gallery is.

    `load` runs in a thread of its own: it tells this page how far it is, and gives it the gallery to search.
    """

    def __init__(self, load: Callable[[Self], object], *, k: int) -> None:
        self.panel, self.news = DrawPanel(None, k=k), Status()
        self.bar = ipywidgets.FloatProgress(max=1.0, layout=Layout(width="100%", max_width="400px"))
        super().__init__([HTML(PAGE_STYLE), self.news, self.bar, self.panel], layout=Layout(padding="0 10px"))
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
        lost = f"; {len(gallery.left_out)} more cannot be read, such as" if gallery.left_out else ""
        self.news.say("\n".join([f"{len(gallery.paths)} photos{lost}", *map(str, gallery.left_out[:10])]))

    def _work(self) -> None:
        self.news.attempt(lambda: self._load(self))
        self.bar.layout.display = "none"
