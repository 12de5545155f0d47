"""A garment traced with a pen: drawings of garments that no photo shows, detail by detail."""

import numpy as np
from matplotlib.path import Path as Outline

from sbirlib.data.strokes import SIZE, Stroke
from sbirlib.miniclothes.garments import Garment
from sbirlib.miniclothes.shapes import layout


def trace_garment(garment: Garment, size: int = SIZE, *, seed: int = 0) -> dict[str, list[Stroke]]:
    """The lines of a garment as strokes of a shaky hand, by part: body, sleeve, pocket and others.

    Points are px of a canvas of `size`. A line that another part hides is not drawn, nor is a pattern.
    """
    rng = np.random.default_rng(seed)
    parts, strokes = layout(garment), {}
    outlines = [Outline(part.points) if part.filled else None for part in parts]
    for place, part in enumerate(parts):
        points = part.outline if part.filled else part.points
        if part.name == "button":
            turn = np.linspace(0, 2 * np.pi, 13)[:, None]
            points = points[0] + np.ptp(points[:, 0]) * np.hstack([np.cos(turn), np.sin(turn)])
        points = _shaky(points, rng)
        hidden = np.zeros(len(points), dtype=bool)
        for outline in filter(None, outlines[place + 1 :]):
            hidden |= outline.contains_points(points)
        for run in np.split(np.arange(len(points)), np.flatnonzero(np.diff(hidden)) + 1):
            if len(run) > 3 and not hidden[run[0]]:
                strokes.setdefault(part.name, []).append(Stroke(points[run] * size))
    return strokes


def _shaky(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A polyline in the unit square, a point every hundredth of the side, that strays by some thousandths."""
    walked = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    steps = np.linspace(0.0, walked[-1], max(int(walked[-1] / 0.01), 4))
    line = np.stack([np.interp(steps, walked, axis) for axis in points.T], axis=1)
    bends = np.linspace(0.0, walked[-1], max(int(walked[-1] / 0.06), 2))
    return line + np.stack([np.interp(steps, bends, rng.normal(0, 0.003, len(bends))) for _ in "xy"], axis=1)
