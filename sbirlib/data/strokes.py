"""Drawings as strokes of a pen, and the query pictures that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

FILL_OF_FRAME = 0.84  # the longer side of a garment, as a share of the frame
SIZE, WIDTH = 320, 3.0  # px: the canvas, and a pen as wide on it as those of MiniClothes' designers
SMALLEST = 1 / 8  # of the canvas: smaller drawings, such as the first dot, are not enlarged any further
INK, OVERSAMPLING = 20, 3
CONTRAST = 64  # grey levels by which ink differs from its paper


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

    Returns (size, size, 3) uint8; the paper becomes white. A picture without plain, light paper around
    it, such as a photo of a room, is only centred.
    """
    picture = picture.convert("RGB")
    picture.thumbnail((4 * size, 4 * size))
    pixels = np.asarray(picture, dtype=float)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    paper = np.median(edge, axis=0)
    rows, columns = np.nonzero(np.abs(pixels - paper).max(axis=2) > CONTRAST)
    plain = paper.min() > 128 and np.mean(np.abs(edge - paper).max(axis=1) > CONTRAST) < 0.1
    if plain and len(rows):
        pixels = np.minimum(pixels * 255 / paper, 255)
        middle = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
        side = max(np.ptp(columns) + 1, np.ptp(rows) + 1, SMALLEST * max(picture.size)) / FILL_OF_FRAME
    else:
        middle, side = (picture.width / 2, picture.height / 2), max(picture.size)
    page = Image.new("RGB", (round(side), round(side)), "white")
    page.paste(Image.fromarray(pixels.round().astype(np.uint8)), tuple(round(side / 2 - m) for m in middle))
    return np.array(page.resize((size, size), Image.Resampling.LANCZOS))
