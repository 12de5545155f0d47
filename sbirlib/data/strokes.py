"""Drawings as strokes of a pen, and the query pictures that are made of them."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads its parts when they are first used
from PIL import Image, ImageDraw, ImageFilter
from shapely import LineString

FILL_OF_FRAME = 0.84  # the longer side of a garment, as a share of the frame
SIZE, WIDTH = 320, 3.0  # px: the canvas, and a pen as wide on it as those of MiniClothes' designers
SMALLEST = 1 / 8  # of the canvas: smaller drawings, such as the first dot, are not enlarged any further
INK, OVERSAMPLING = 20, 3
# Grey levels by which ink differs from its paper: half as much as the darkest of it, within these bounds.
FAINT, CONTRAST = 12, 64
# A drawing is lines: of those 1/24 wide squares that have ink, few are full of it; in a photo most are.
SQUARE, FULL = 1 / 24, 0.2
GRID, CLOSED = 96, 13  # cells to a side in which the light on a paper is measured, and how wide a line may be
# Steeper steps of the logarithm of light, cell to cell, are no shadows but the outlines of things.
SHARP = 0.2
SPECK = 1 / 200  # of the ink of the longest line: what is smaller does not count for the frame


class Stroke(NamedTuple):
    """One movement of the pen: points (n, 2), x and y in px of the canvas, and the pen's width in px."""

    points: np.ndarray
    width: float = WIDTH


def render_strokes(strokes: Sequence[Stroke], size: int = SIZE) -> np.ndarray:
    """Dark, smooth strokes of even width on white paper: (size, size, 3) uint8.

    Points are in px of a canvas of that size; what lies outside is not drawn.
    """
    page = Image.new("L", (size * OVERSAMPLING, size * OVERSAMPLING), 255)
    brush = ImageDraw.Draw(page)
    for stroke in strokes:
        points = np.asarray(stroke.points, dtype=float) * OVERSAMPLING
        radius = stroke.width * OVERSAMPLING / 2
        brush.line(points.ravel().tolist(), fill=INK, width=max(1, round(2 * radius)))
        for x, y in points:  # round ends and joints; all there is of a dot
            brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=INK)
    return np.array(page.reduce(OVERSAMPLING).convert("RGB"))


def frame_strokes(strokes: Sequence[Stroke], size: int = SIZE) -> list[Stroke]:
    """The strokes, centred and enlarged to fill the picture as the sketches of MiniClothes do.

    A model is trained on drawings that fill the picture, and finds little for a small one in a corner.
    The pen stays as wide as it was.
    """
    if not strokes:
        return []
    points = np.concatenate([stroke.points for stroke in strokes])
    low, high = points.min(axis=0), points.max(axis=0)
    scale = FILL_OF_FRAME * size / max(*(high - low), SMALLEST * size)
    return [Stroke((stroke.points - (low + high) / 2) * scale + size / 2, stroke.width) for stroke in strokes]


def erase_strokes(strokes: Sequence[Stroke], rubber: Stroke) -> list[Stroke]:
    """What is left of the strokes where a rubber of some width has passed: the pieces beside its way."""
    way, left = scipy.spatial.cKDTree(closely(rubber.points)), []
    for stroke in strokes:
        points = closely(stroke.points)
        kept = way.query(points)[0] > (rubber.width + stroke.width) / 2
        # Pieces that stay and pieces that go take turns.
        pieces = np.split(points, np.flatnonzero(np.diff(kept)) + 1)[0 if kept[0] else 1 :: 2]
        left += [stroke] if kept.all() else [stroke._replace(points=piece) for piece in pieces]
    return left


def closely(points: np.ndarray) -> np.ndarray:
    """A stroke's points (n, 2), with others between them at most 1 px apart; or a dot."""
    points = np.asarray(points, dtype=float)
    return np.array(LineString(points).segmentize(1).coords) if np.ptp(points, axis=0).any() else points[:1]


class Sheet(NamedTuple):
    """What is on the canvas: a picture (SIZE, SIZE, 3) as paper, None for white, and the strokes on it."""

    paper: np.ndarray | None = None
    strokes: tuple[Stroke, ...] = ()

    def page(self) -> np.ndarray:
        """The canvas (SIZE, SIZE, 3) as it looks."""
        drawn = render_strokes(self.strokes)
        return drawn if self.paper is None else np.minimum(drawn, self.paper)

    def without(self, rubber: Stroke) -> "Sheet":
        """The sheet once a rubber has passed over its strokes and its paper."""
        paper = self.paper
        if paper is not None:
            paper = np.where(render_strokes([rubber]) < 128, np.uint8(255), paper)
        return Sheet(paper, tuple(erase_strokes(self.strokes, rubber)))

    def query(self) -> np.ndarray:
        """What is searched with, (SIZE, SIZE, 3): the strokes framed, unless a picture lies under them."""
        # A picture was framed when it was loaded: strokes must stay where they were drawn on it.
        return render_strokes(frame_strokes(self.strokes)) if self.paper is None else self.page()


def frame_picture(picture: Image.Image, size: int = SIZE) -> np.ndarray | None:
    """A picture of a drawing on plain paper, cut out and framed as `frame_strokes` does.

    Returns (size, size, 3) uint8; the paper becomes white, in a shadow too, and light lines on dark paper
    become dark ones. None for a picture without plain paper around a drawing, such as a photo of a room.
    """
    picture = picture.convert("RGB")
    picture.thumbnail((3 * size, 3 * size))
    pixels, ink = _ink(picture)
    if not ink.any():
        return None
    pieces, _ = scipy.ndimage.label(ink, np.ones((3, 3)))
    amounts = np.bincount(pieces.ravel())
    amounts[0] = 0  # the paper
    rows, columns = np.nonzero((amounts > SPECK * amounts.max())[pieces])
    middle = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
    side = max(np.ptp(columns) + 1, np.ptp(rows) + 1, SMALLEST * max(picture.size)) / FILL_OF_FRAME
    page = Image.new("RGB", (round(side), round(side)), "white")
    page.paste(Image.fromarray(pixels.round().astype(np.uint8)), tuple(round(side / 2 - m) for m in middle))
    return np.array(page.resize((size, size), Image.Resampling.LANCZOS))


def _ink(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (h, w, 3), dark on white if it is a drawing on plain paper, and where its ink is (h, w)."""
    pixels = np.asarray(picture, dtype=float)
    # Paper of one shade first. Unless it is bright, nothing but lines may lie on it, or it may be a photo.
    bright = bool(np.median(_edge(pixels), axis=0).min() > 128)
    pages = (pixels,) if bright else (pixels, 255 - pixels)
    for even, page in itertools.product((True, False), pages):
        paper = np.median(_edge(page), axis=0) if even else _light(page)
        ink = _darker(page, paper, not (bright and even))
        if ink.any():
            return _cleaned(page, ink), ink
    return pixels, ink


def _light(page: np.ndarray) -> np.ndarray:
    """The paper (h, w, 3) of a page without its dark lines; black if this is no paper in uneven light."""
    around = ((CLOSED, CLOSED), (CLOSED, CLOSED), (0, 0))  # or closing would lighten dark corners
    light = scipy.ndimage.grey_closing(np.pad(_resized(page), around, mode="edge"), (CLOSED, CLOSED, 1))
    light = light[CLOSED:-CLOSED, CLOSED:-CLOSED]
    steps = max(np.abs(np.diff(np.log(light + 1), axis=axis)).max() for axis in (0, 1))
    return _resized(light, page.shape, Image.Resampling.BICUBIC) * (steps < SHARP)


def _darker(page: np.ndarray, paper: np.ndarray, strict: bool) -> np.ndarray:
    """Where a page (h, w, 3) has ink on its paper, (h, w); nowhere if it is no drawing."""
    difference = (paper - page) * 255 / np.maximum(paper, 1)
    difference = (difference.clip(0) if strict else np.abs(difference)).max(axis=2)
    # Of nine neighbours the third largest: a line of one pixel stays, a speck of dust goes.
    levels = Image.fromarray(difference.clip(0, 255).astype(np.uint8))
    lines = np.asarray(levels.filter(ImageFilter.RankFilter(3, 6)))
    grain = 5 * np.median(difference)  # which is some 0.7 standard deviations of the paper's noise
    contrast = max(np.clip(np.percentile(lines, 99.8) / 2, FAINT, CONTRAST), grain)
    ink = (difference if contrast == CONTRAST else lines) > contrast
    squares = np.asarray(Image.fromarray(ink).convert("L").reduce(max(1, int(SQUARE * max(ink.shape)))))
    lines_only = np.sum(squares == 255) < FULL * np.sum(squares > 0)
    return ink & bool(np.mean(_edge(ink)) < 0.1 and (lines_only or not strict))


def _cleaned(page: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """The page with white paper, whatever light falls on it, and with ink as dark as that of a pen."""
    blank = ~scipy.ndimage.binary_dilation(ink, iterations=2)
    cells = _resized(np.dstack([page * blank[..., None], blank]))
    cells = scipy.ndimage.gaussian_filter(cells, (4, 4, 0))
    cells = cells[..., :3] / np.maximum(cells[..., 3:], 1e-6)
    paper = _resized(cells, page.shape, Image.Resampling.BICUBIC)
    dark = (255 - page * 255 / np.maximum(paper, 1)).clip(0, 255)
    grain = np.percentile(dark.max(axis=2)[blank], 99) if blank.any() else 0
    dark = (dark - grain).clip(0) * 255 / max(255 - grain, 1)
    strength = np.percentile(dark.max(axis=2)[ink], 75)
    return 255 - (dark * max(1, 200 / max(strength, 1))).clip(0, 255)


def _resized(values: np.ndarray, shape=(GRID, GRID), how=Image.Resampling.BOX) -> np.ndarray:
    """Values (h, w, c) as those of a page of another shape; without one, means in the cells of the grid."""
    layers = np.moveaxis(values.astype(np.float32), 2, 0)
    size = shape[1], shape[0]
    return np.stack([np.asarray(Image.fromarray(layer).resize(size, how)) for layer in layers], axis=2)


def _edge(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
