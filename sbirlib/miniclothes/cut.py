"""The measures a garment is cut by, the curves it is made of, and the pattern of its cloth.

Body units: x = 0 is the centre front, y = 0 the highest point of the shoulder or of a
waistband, y grows downwards, 1 is roughly the length of a long top.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from sbirlib.miniclothes.garments import TABLES, Garment

# Every other part is closed and filled; these are lines, but "button", a disc.
LINES = frozenset(("button", "cord", "edge", "fold", "pleat", "seam", "stitch", "zip"))


class Part(NamedTuple):
    """One thing to draw; parts come in painter's order, the farthest first.

    `points` is (n, 2); for a button, its centre and one point of its rim. `cloth` names the material
    (main, trim, rib, lining, leather, metal). `grain` is the way the cloth lies, in degrees,
    counter-clockwise from upright.
    """

    name: str
    points: np.ndarray
    cloth: str = "main"
    grain: float = 0.0

    @property
    def filled(self) -> bool:
        return self.name not in LINES

    @property
    def outline(self) -> np.ndarray:
        """(n + 1, 2) the points, back to the first."""
        return np.concatenate([self.points, self.points[:1]])


class Cut(NamedTuple):
    """The measures that the details are placed by, in body units; x is measured to the right."""

    neck: float  # half the width of the neck hole
    depth: float  # depth of the neck hole
    shoulder: np.ndarray  # (2,) tip of the shoulder
    underarm: np.ndarray  # (2,)
    armhole: np.ndarray  # (n, 2) from the tip of the shoulder to the underarm; empty for skirts
    side: np.ndarray  # (n, 2) the whole right edge, from the shoulder or waistband to the hem
    waist: float  # y of the waist
    base: float  # y of the lowest point of the centre front
    end: float  # y at which the side seam ends
    slit: float  # height of a slit in the hem, 0 without
    sewn: float  # height of a ribbed band or a ruffle sewn on below the body, 0 without

    @classmethod
    def of(cls, g: Garment) -> Self:
        """The measures of one garment in body units."""
        ranges = TABLES["families"][g.family]
        length, chest, flare = (between(ranges[n], getattr(g, n)) for n in ("length", "width", "flare"))
        hem = chest * (1 + flare)
        sewn = {"ribbed": 0.085, "ruffle": 0.150}.get(g.hem, 0.0)
        end = length - (0.09 if g.hem == "curved" else sewn)
        sag = 0.012 + 0.05 * max(hem - chest, 0.0)
        base = {"arched": length - 0.15, "curved": length}.get(g.hem, end + sag)
        waist = 0.0 if g.family == "skirt" else min(0.50, 0.62 * end)
        slit = min(0.26, 0.07 + 0.3 * (end - waist)) if g.hem == "slit" else 0.0
        if g.family == "skirt":
            top, hip = np.array([chest, 0.06]), chest + 0.5 * (hem - chest) + 0.035
            side = bezier(top, (hip, 0.06 + 0.30 * length), (hem, end - 0.3 * length), (hem, end))
            return cls(0.0, 0.0, top, top, side[:0], side, waist, base, end, slit, sewn)
        neck, *depths = TABLES["necks"][g.neckline]
        depth, pit = between(depths, g.neck_depth), chest
        if g.sleeve == "none":
            neck = min(neck, 0.115)
            shoulder = np.array([min(neck + between((0.040, 0.10), g.shoulder), chest), 0.035])
            pit = min(chest, shoulder[0] + 0.07)  # a wider chest would stand off as wings
        else:
            shoulder = np.array([min(max(between((0.175, 0.25), g.shoulder), neck + 0.04), chest), 0.05])
        underarm, narrow = np.array([pit, 0.24 + 0.06 * g.width]), chest * (1 - 0.24 * g.waist)
        inset = 0.055 if g.sleeve == "none" else 0.03
        deepest = (min(shoulder[0], pit) - inset, underarm[1] - 0.01)
        armhole = bezier(shoulder, off(shoulder, -0.012, 0.09), deepest, underarm)
        middle = (narrow, waist)
        upper = bezier(underarm, (pit, between((underarm[1], waist), 0.4)), (narrow, waist - 0.06), middle)
        lower = bezier(middle, (narrow, waist + 0.08), (hem, between((waist, end), 0.55)), (hem, end))
        side = chain(armhole, upper, lower)
        return cls(neck, depth, shoulder, underarm, armhole, side, waist, base, end, slit, sewn)

    def half(self, y: float) -> float:
        """Half the width of the cloth at height y."""
        return float(np.interp(y, self.side[:, 1], self.side[:, 0]))

    def across(self, y: float) -> np.ndarray:
        """A seam across the front at height y, a little lower in the middle."""
        return arc((-self.half(y), y), (self.half(y), y), -0.02)


def between(span: Sequence[float], share: float) -> float:
    """The value at `share` (0..1) of the way through `span`."""
    return span[0] + (span[1] - span[0]) * share


def bezier(*controls, n: int = 20) -> np.ndarray:
    """A Bezier curve of any degree through its control points, as (n, 2) points (de Casteljau)."""
    levels = np.repeat(np.asarray(controls, dtype=float)[:, None], n, axis=1)
    t = np.linspace(0.0, 1.0, n)[:, None]
    while len(levels) > 1:
        levels = levels[:-1] * (1 - t) + levels[1:] * t
    return levels[0]


def arc(a, b, bow: float = 0.0, n: int = 14) -> np.ndarray:
    """A curve from a to b whose middle lies `bow` times their distance to the left of the straight line."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    along = b - a
    return bezier(a, (a + b) / 2 + 2 * bow * np.array([along[1], -along[0]]), b, n=n)


def chain(*pieces) -> np.ndarray:
    """Several polylines or points joined into one polyline, without doubled points."""
    points = np.concatenate([np.atleast_2d(np.asarray(piece, dtype=float)) for piece in pieces])
    return points[np.r_[True, np.abs(np.diff(points, axis=0)).sum(axis=1) > 1e-9]]


def mirror(points: np.ndarray) -> np.ndarray:
    """The same polyline on the other side of the centre front, its points in reverse order."""
    return (np.asarray(points, dtype=float) * [-1.0, 1.0])[::-1]


def box(x: float, y: float, width: float, height: float) -> np.ndarray:
    """A rectangle from its top centre."""
    left, right = x - width / 2, x + width / 2
    return np.array([[left, y], [right, y], [right, y + height], [left, y + height]])


def off(points: np.ndarray, right: float, down: float) -> np.ndarray:
    """A point or polyline moved."""
    return np.asarray(points, dtype=float) + np.array([right, down])


def widen(points: np.ndarray, by: float) -> np.ndarray:
    """A polyline moved sideways by `by`, to the right as one walks it for a positive value."""
    along = np.gradient(points, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    return points + by * normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)


def both(*parts: Part) -> list[Part]:
    """Each part and its mirror image."""
    return [p for part in parts for p in (part, part._replace(points=mirror(part.points), grain=-part.grain))]


def pattern_marks(garment: Garment, part: Part) -> list[np.ndarray]:
    """The second colour's bands or dots on one part laid out by `shapes.layout`, as closed polygons.

    They run over the part's edges: cut them off at its outline.
    """
    across = garment.pattern in ("block", "chest band")
    if part.cloth != "main" or not part.filled or garment.pattern == "plain" or (across and part.grain):
        return []
    if across:
        split = between((0.36, 0.64), garment.pattern_scale)
        top, high = (split, 1.0) if garment.pattern == "block" else (split - 0.12, 0.12)
        return [box(0.5, top, 1.2, high)]
    pitch = between((0.060, 0.115), garment.pattern_scale)
    origin = part.points.mean(axis=0) if part.grain else np.array([0.5, 0.5])
    reach = np.arange(-int(0.75 / pitch), int(0.75 / pitch) + 1) * pitch
    level = [box(0.0, y, 1.6, pitch * 0.46) for y in reach]
    upright = [band[:, ::-1] for band in level]
    if garment.pattern == "dots":
        angle = np.arange(12) * np.pi / 6
        circle = 0.27 * pitch * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        marks = [off(circle, x + 0.5 * pitch * (row % 2), y) for row, y in enumerate(reach) for x in reach]
    else:
        marks = {"stripes down": upright, "checks": level + upright}.get(garment.pattern, level)
    turn = np.deg2rad(part.grain + (40.0 if garment.pattern == "diagonal" else 0.0))
    rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    low, high = part.points.min(axis=0) - 0.05, part.points.max(axis=0) + 0.05
    placed = [mark @ rotate + origin for mark in marks]
    return [mark for mark in placed if (mark.max(axis=0) > low).all() and (mark.min(axis=0) < high).all()]


def pixels(points: np.ndarray, side: float) -> list[float]:
    """Points of the unit square as x, y, x, y, ... in px of a picture of that side, as Pillow draws them."""
    return (points * side).ravel().tolist()
