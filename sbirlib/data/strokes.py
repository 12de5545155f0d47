"""Drawings as strokes of a pen, and the query pictures that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

FILL_OF_FRAME = 0.84  # the longer side of a garment, as a share of the frame
SIZE, WIDTH = 320, 3.0  # px: the canvas, and a pen as wide on it as those of MiniClothes' designers
SMALLEST = 1 / 8  # of the canvas: smaller drawings, such as the first dot, are not enlarged any further
INK, OVERSAMPLING = 20, 3
# Grey levels by which ink differs from its paper: half as much as the darkest of it, within these bounds.
FAINT, CONTRAST = 12, 64
# A drawing is lines: of those 1/24 wide squares that have ink, few are full of it; in a photo most are.
SQUARE, FULL = 1 / 24, 0.2


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


def frame_picture(picture: Image.Image, size: int = SIZE) -> np.ndarray:
    """A picture of a drawing on plain paper, cut out and framed as `frame_strokes` does.

    Returns (size, size, 3) uint8; the paper becomes white, and light lines on dark paper become dark ones. A
    picture without plain paper around it, such as a photo of a room, is only centred: see `has_drawing`.
    """
    picture = _shrunk(picture, size)
    pixels, ink = _ink(picture)
    rows, columns = np.nonzero(ink)
    if len(rows):
        middle = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
        side = max(np.ptp(columns) + 1, np.ptp(rows) + 1, SMALLEST * max(picture.size)) / FILL_OF_FRAME
    else:
        middle, side = (picture.width / 2, picture.height / 2), max(picture.size)
    page = Image.new("RGB", (round(side), round(side)), "white")
    page.paste(Image.fromarray(pixels.round().astype(np.uint8)), tuple(round(side / 2 - m) for m in middle))
    return np.array(page.resize((size, size), Image.Resampling.LANCZOS))


def has_drawing(picture: Image.Image) -> bool:
    """Whether `frame_picture` finds a drawing on plain paper, or else only centres the picture."""
    return bool(_ink(_shrunk(picture, SIZE))[1].any())


def _shrunk(picture: Image.Image, size: int) -> Image.Image:
    picture = picture.convert("RGB")
    picture.thumbnail((4 * size, 4 * size))
    return picture


def _ink(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (h, w, 3), dark on white if it is a drawing on plain paper, and where its ink is (h, w)."""
    pixels = np.asarray(picture, dtype=float)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    paper = np.median(edge, axis=0)
    difference = np.abs(pixels - paper).max(axis=2)
    # Of nine neighbours the third largest: a line of one pixel stays, a speck of dust goes.
    lines = np.asarray(Image.fromarray(difference.astype(np.uint8)).filter(ImageFilter.RankFilter(3, 6)))
    contrast = np.clip(np.percentile(lines, 99.8) / 2, FAINT, CONTRAST)
    ink = (difference if contrast == CONTRAST else lines) > contrast
    squares = np.asarray(Image.fromarray(ink).convert("L").reduce(max(1, int(SQUARE * max(ink.shape)))))
    dark = paper.max() < 128 and np.sum(squares == 255) < FULL * np.sum(squares > 0)
    plain = np.mean(np.abs(edge - paper).max(axis=1) > contrast) < 0.1
    if not plain or not (dark or paper.min() > 128):
        return pixels, np.zeros_like(ink)
    if dark:
        pixels, paper = 255 - pixels, 255 - paper
    return np.minimum(pixels * 255 / paper, 255), ink
