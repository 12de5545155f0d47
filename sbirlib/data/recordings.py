"""How a sketch was drawn: its strokes in drawing order, read from a file, and pictures of some of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageFilter
from pydantic import BaseModel, Field, ValidationError
from shapely import LineString

from sbirlib.data.strokes import SIZE, WIDTH, Stroke, closely, render_strokes
from sbirlib.errors import ImageError, first_line

RECORDINGS = (".json", ".svg")  # how the names of stroke files end
JSON_FORM = '{"size": [w, h], "strokes": [[[x, y], ...], ...]} in px, as the draw panel saves it'
SVG_FORM = "an SVG with width and height or a viewBox, and lines that have a stroke colour"
STEP = 0.01  # of the picture's side: the farthest apart that points on a curve of an SVG are
SEEN = 200  # grey level below which a line of a picture is seen
_Number = Annotated[float, Field(strict=True, ge=-100_000, le=100_000, allow_inf_nan=False)]  # px
_Line = Annotated[list[tuple[_Number, _Number]], Field(min_length=1)]


@dataclass(frozen=True, eq=False)
class Recording:
    """How one sketch was drawn, and pictures of parts of it.

    `strokes` are arrays (n, 2) of x and y in drawing order, as shares of the picture's side: 0 to 1, but for
    what runs over its edge. `size` is that side in px. `render` draws the picture of the strokes to keep
    (strokes,) bool; without it, they are drawn with an ordinary pen, as `render_strokes` does. `render_first`
    draws the pictures of the first so many, of several numbers at once.
    """

    strokes: tuple[np.ndarray, ...]
    size: int = SIZE
    render: Callable[[np.ndarray], Image.Image] | None = None
    render_first: Callable[[Sequence[int]], list[Image.Image]] | None = None

    def picture(self, keep: ArrayLike | None = None, first: int | None = None) -> Image.Image:
        """RGB, size x size px: all strokes, those with `keep` (strokes,) bool, or the `first` so many."""
        kept = np.ones(len(self.strokes), bool) if keep is None else np.array(keep, bool)
        if kept.shape != (len(self.strokes),):
            raise ValueError(f"keep has the shape {kept.shape}; there are {len(self.strokes)} strokes")
        if first is not None:
            kept[first:] = False
        if self.render:
            return self.render(kept)
        shown = [Stroke(self.strokes[i] * self.size, WIDTH * self.size / SIZE) for i in np.flatnonzero(kept)]
        return Image.fromarray(render_strokes(shown, self.size))

    def partials(self, count: int) -> list[Image.Image]:
        """Pictures after 1 / count, 2 / count, ... of the strokes, rounded up; the last is the whole drawing.

        With more pictures than strokes, some repeat.
        """
        firsts = [math.ceil(len(self.strokes) * share / count) for share in range(1, count + 1)]
        return self.render_first(firsts) if self.render_first else [self.picture(first=k) for k in firsts]

    def lines(self, most: int) -> tuple[np.ndarray, ...]:
        """What is seen of the strokes in the picture, as lines with few points, the largest first to be kept.

        Arrays (n, 2) as `strokes` are, in drawing order, of about `most` points in all: no more unless a
        single line has more. What other strokes hide is left out, and lines are straight to 1 % of the side.
        """
        page = self.picture().convert("L").filter(ImageFilter.MinFilter(3))
        ink, pieces = np.asarray(page) < SEEN, []
        for stroke in self.strokes:
            points = closely(stroke * self.size)
            x, y = np.clip(points, 0, self.size - 1).astype(int).T
            seen = ink[y, x]
            # Pieces that are seen and pieces that are not take turns.
            parts = np.split(points / self.size, np.flatnonzero(np.diff(seen)) + 1)[0 if seen[0] else 1 :: 2]
            # A line has two points at least.
            lines = [LineString(part if len(part) > 1 else [*part] * 2) for part in parts]
            pieces += [np.array(line.simplify(STEP).coords) for line in lines]
        extents = [np.hypot(*np.ptp(piece, axis=0)) for piece in pieces]
        order = np.argsort(extents, kind="stable")[::-1]
        count = np.cumsum([len(pieces[i]) for i in order])
        return tuple(pieces[i] for i in sorted(order[count <= max(most, *count[:1], 0)])) or self.strokes[:1]


class _Drawing(BaseModel):
    """What a stroke file holds: width and height, and the strokes, in px."""

    size: Annotated[list[Annotated[_Number, Field(ge=1)]], Field(min_length=2, max_length=2)]
    strokes: Annotated[list[_Line], Field(min_length=1)]


def read_recording(path: Path) -> Recording:
    """The strokes of a .json or .svg file; the longer side of its size fills the picture, white is around.

    A JSON holds {"size": [w, h], "strokes": [[[x, y], ...], ...]} in px. Of an SVG, the lines that have a
    stroke colour are taken, each connected piece as a stroke; curves become points at most 1 % of the side
    apart, the points of straight lines stay as they are. Raises ImageError.
    """
    svg = path.suffix.lower() == ".svg"
    try:
        drawing = _read_svg(path) if svg else _Drawing.model_validate_json(path.read_bytes())
    except (MemoryError, ImportError):
        raise  # which say nothing about the file
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}; a readable stroke file is needed") from None
    except Exception as error:  # parsers raise almost anything over a damaged file
        form, reason = SVG_FORM if svg else JSON_FORM, first_line(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = ": ".join(map(str, (*first["loc"], first["msg"])))
        raise ImageError(f"{path}: is no drawing ({reason}); needed is {form}") from None
    size = np.array(drawing.size)
    margin = (size.max() - size) / 2
    return Recording(tuple((np.array(stroke) + margin) / size.max() for stroke in drawing.strokes))


def _read_svg(path: Path) -> _Drawing:
    from svgelements import SVG, Close, Line, Move, Shape
    from svgelements import Path as Outline

    if b"<use" in path.read_bytes():
        raise ValueError("it has <use> elements, which may hold a billion lines; save it as plain paths")
    svg = SVG.parse(path)
    # Without a size, the library assumes one.
    if not isinstance(svg, SVG) or not (svg.viewbox or {"width", "height"} <= {*svg.values["attributes"]}):
        raise ValueError("it has no <svg> with a size")
    strokes, step = [], STEP * max(svg.width, svg.height)
    for shape in svg.elements(lambda item: isinstance(item, Shape) and item.stroke.value is not None):
        for piece in Outline(shape).as_subpaths():
            strokes.append([])
            for segment in Outline(piece):
                straight = isinstance(segment, (Move, Line, Close))
                # No curve within the picture is longer than that many steps.
                n = 1 if straight else 1 + int(min(segment.length(error=1e-2) / step, 1000))
                strokes[-1] += [tuple(segment.point((i + 1) / n)) for i in range(n)]
    return _Drawing(size=[svg.width, svg.height], strokes=strokes)
