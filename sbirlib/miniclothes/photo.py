"""The photo of a garment: cloth, folds, seams and buttons under a studio light, on white.

Parts are laid on each other in painter's order; each one has volume (the slope of its blurred
mask), casts a soft shadow on what lies under it and is lit from the upper left.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from PIL.ImageFilter import BoxBlur, GaussianBlur

from sbirlib.miniclothes.cut import Part, off, pattern_marks, pixels
from sbirlib.miniclothes.garments import TABLES, Garment
from sbirlib.miniclothes.shapes import layout

OVERSAMPLING = 2
# Width (share of the frame) and darkness of the seam around a part. Details are piped: a plain seam is 1 px
# wide at 256 px and no darker than a fold, and a model that sees 96 px cannot learn to tell the two apart.
PLAIN, PIPED = (0.004, 0.30), (0.009, 0.55)
PIPED_PARTS = frozenset(["pocket", "flap", "placket", "collar", "trim", "belt", "cuff", "band"])


def render_photo(garment: Garment, *, seed: int | Sequence[int], size: int = 256) -> Image.Image:
    """Photographs a garment on white: an RGB image of size x size pixels.

    The same arguments give the same pixels; the seed chooses pose, folds and weave.
    """
    rng = np.random.default_rng(seed)
    angle, scale, shift = np.deg2rad(rng.normal(0, 1.2)), rng.uniform(0.95, 1.03), rng.normal(0, 0.008, 2)
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

    def pose(points: np.ndarray) -> np.ndarray:
        return (points - 0.5) @ turn + 0.5 + shift

    parts = layout(garment, swing=rng.uniform(-2.0, 3.0))
    posed = [part._replace(points=pose(part.points)) for part in parts]
    studio = _Studio(garment, posed, rng, size)
    for part, flat in zip(posed, parts, strict=True):
        if part.filled:
            studio.cloth(part, [pose(mark) for mark in pattern_marks(garment, flat)])
        elif part.name != "fold":
            getattr(studio, part.name, studio.seam)(part)
    rgb = np.clip(studio.rgb + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(rgb).reduce(OVERSAMPLING)


class _Studio:
    """A floating-point picture (rgb, height, width) that parts are laid on, planes first for speed."""

    def __init__(self, garment: Garment, parts: list[Part], rng: np.random.Generator, size: int):
        self.side = size * OVERSAMPLING
        main, trim, self.second = np.float32([garment.colour, garment.trim, garment.second])
        self.colours = TABLES["fittings"] | dict(main=main, rib=main * 0.92, trim=trim, lining=main / 2 + 18)
        self.relief = self._relief(parts, rng, size)
        weave = rng.standard_normal((self.side, self.side), dtype=np.float32)
        self.weave = 1 + 0.022 * (weave + np.roll(weave, 1, axis=0)) / 1.4
        self.rgb = self._ground(parts, size)

    def _enlarge(self, small: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(small).resize((self.side, self.side), Image.Resampling.BILINEAR))

    def _relief(self, parts: list[Part], rng: np.random.Generator, size: int) -> np.ndarray:
        """Light on the folds, about 1: a slow drape, longer downwards than across, and drawn folds."""
        drape = np.zeros((size, size), dtype=np.float32)
        for rows, columns, high in ((4, 7, 2.0), (8, 16, 0.9), (18, 26, 0.35)):
            bumps = Image.fromarray(rng.normal(0, high, (rows, columns)).astype(np.float32))
            drape += np.asarray(bumps.resize((size, size), Image.Resampling.BICUBIC))
        lines = Image.new("L", (size, size), 0)
        brush = ImageDraw.Draw(lines)
        for part in parts:
            if part.name in ("fold", "pleat"):
                width, depth = (0.016, 150) if part.name == "fold" else (0.010, 255)
                brush.line(pixels(part.points, size), fill=depth, width=max(round(width * size), 1))
        furrows = np.asarray(lines.filter(GaussianBlur(0.011 * size)), dtype=np.float32)
        slope_y, slope_x = np.gradient(drape * (size / 256) * 2.4 - furrows / 255 * 6.0 * (size / 256))
        return self._enlarge(np.clip(1 + 0.16 * (slope_x + 0.6 * slope_y), 0.62, 1.28).astype(np.float32))

    def _ground(self, parts: list[Part], size: int) -> np.ndarray:
        """White paper, a little darker below, with the soft shadow of the whole garment."""
        small = size // 2
        shape = Image.new("L", (small, small), 0)
        brush = ImageDraw.Draw(shape)
        for part in parts:
            if part.filled:
                brush.polygon(pixels(off(part.points, 0.012, 0.022), small), fill=255)
        shadow = np.asarray(shape.filter(GaussianBlur(0.02 * small)), dtype=np.float32) / 255
        near = np.linspace(254, 246, small, dtype=np.float32)[:, None] * (1 - 0.24 * shadow)
        return self._enlarge(near) * _planes((1.0, 1.0, 1.003))

    def _window(self, points: np.ndarray, margin: float) -> tuple[slice, slice]:
        """The part of the picture around some points: its rows and columns."""
        low = np.clip(np.floor((points.min(axis=0) - margin) * self.side), 0, self.side - 2).astype(int)
        high = np.clip(np.ceil((points.max(axis=0) + margin) * self.side), low + 2, self.side).astype(int)
        return slice(low[1], high[1]), slice(low[0], high[0])

    def _mask(self, window, shapes: list[np.ndarray], width: float | None = None) -> Image.Image:
        """The shapes in a window: lines of that width, or filled without one."""
        rows, columns = window
        mask = Image.new("L", (columns.stop - columns.start, rows.stop - rows.start), 0)
        brush = ImageDraw.Draw(mask)
        for points in shapes:
            corners = (points * self.side - (columns.start, rows.start)).ravel().tolist()
            if width is None:
                brush.polygon(corners, fill=255)
            else:
                brush.line(corners, fill=255, width=max(round(width * self.side), 1), joint="curve")
        return mask

    def _blur(self, mask: Image.Image, radius: float) -> np.ndarray:
        """The mask blurred by a share of the frame, as 0..1; wide blurs at a quarter of the resolution."""
        radius *= self.side
        if radius > 6 and min(mask.size) > 16:
            small = mask.reduce(4).filter(GaussianBlur(radius / 4))
            mask = small.resize(mask.size, Image.Resampling.BILINEAR)
        else:
            mask = mask.filter(GaussianBlur(radius) if radius > 1 else BoxBlur(radius))
        return np.asarray(mask, dtype=np.float32) / 255

    def _blend(self, window, mask: np.ndarray, colour) -> None:
        self.rgb[:, *window] += (colour - self.rgb[:, *window]) * mask

    def _line(self, lines: list[np.ndarray], width: float, colour, strength: float, blur=0.0015) -> None:
        window = self._window(np.concatenate(lines), width + 3 * blur)
        self._blend(window, strength * self._blur(self._mask(window, lines, width), blur), _planes(colour))

    def cloth(self, part: Part, marks: list[np.ndarray]) -> None:
        """Lays a piece of cloth down: its shadow, its colour and pattern, its volume and its edge."""
        thick = TABLES["volume"].get(part.name, 0.010)
        window = self._window(part.points, 2.2 * thick)
        shape = self._mask(window, [part.points])
        volume = self._blur(shape, thick)
        slope_y, slope_x = np.gradient(volume, 1 / (thick * self.side))
        shade = (0.76 + 0.28 * volume) * (1 + 0.15 * (slope_x + 0.9 * slope_y))
        shade = shade * self.relief[window] * self.weave[window]
        if part.cloth == "rib":  # knitted along the grain, ribs about 11 px apart at 512 px
            y, x = np.mgrid[window].astype(np.float32) / self.side
            turn = np.deg2rad(part.grain)
            shade *= 1 + 0.10 * np.sin((x * np.cos(turn) - y * np.sin(turn)) * 2 * np.pi / 0.021)
        if part.name == "back":
            shade *= 0.75 + 0.25 * (1 - volume)
        else:
            fall, step = self._blur(shape, min(thick, 0.012)), round(0.008 * self.side)
            self.rgb[:, *window] *= 1 - 0.34 * np.roll(fall, (step, step // 2), axis=(0, 1))
        colour = _planes(self.colours[part.cloth])
        if marks:
            dyed = self._blur(self._mask(window, marks), 0.0012)
            colour = colour + (_planes(self.second) - colour) * dyed
        # The edge is soft, against steps. Dark cloth shows its folds: light adds a little, not only scales.
        self._blend(window, self._blur(shape, 0.0012), (colour + 26) * shade - 23.4)
        width, strength = PIPED if part.name in PIPED_PARTS else PLAIN
        rim = self._mask(window, [part.outline], width)
        self.rgb[:, *window] *= 1 - strength * self._blur(rim, 0.0016)
        if part.cloth == "metal":
            self._line([part.points[:2] + 0.004], 0.006, (255, 252, 240), 0.8)

    def seam(self, part: Part) -> None:
        """A seam or the edge of an overlap: a dark furrow with a lit lip; a stitch: dashes beside one."""
        dark, light = self.colours["main"] * 0.42, np.minimum(self.colours["main"] * 1.25 + 30, 255)
        if part.name == "stitch":
            self._line(_dashes(part.points, 0.012), 0.004, dark, 0.55, blur=0.001)
            return
        width, strength = (0.010, 0.80) if part.name == "edge" else (0.005, 0.55)
        self._line([part.points + 0.006], 0.005, light, 0.25)
        self._line([part.points], width, dark, strength)

    def cord(self, part: Part) -> None:
        self._line([part.points + 0.005], 0.012, (30, 28, 28), 0.35, blur=0.004)
        self._line([part.points], 0.012, self.colours["trim"] * 1.05 + 10, 1.0)
        self._line([part.points[-2:]], 0.016, self.colours["metal"], 1.0)

    def zip(self, part: Part) -> None:
        a, b = part.points[0], part.points[-1]
        self._line([part.points], 0.026, self.colours["main"] * 0.42, 0.85)
        self._line(_dashes(part.points, 0.006), 0.014, (216, 214, 208), 0.95, blur=0.0008)
        way = (b - a) / max(np.hypot(*(b - a)), 1e-6)
        self._line([np.array([a + 0.008 * way, a + 0.045 * way])], 0.016, (120, 118, 114), 1.0)
        self._line([np.array([a + 0.010 * way, a + 0.040 * way]) - [0.002, 0]], 0.005, (245, 245, 240), 0.9)

    def button(self, part: Part) -> None:
        """A disc with a raised rim, four holes and a highlight."""
        centre, radius = part.points[0], float(np.hypot(*(part.points[1] - part.points[0])))
        window = self._window(part.points[:1], 2.2 * radius)
        y, x = np.mgrid[window].astype(np.float32) / self.side
        u, v = (x - centre[0]) / radius, (y - centre[1]) / radius
        away = np.hypot(u, v)
        self.rgb[:, *window] *= 1 - 0.5 * np.clip(1.5 - np.hypot(u - 0.25, v - 0.4), 0, 1)
        shade = 0.92 - 0.22 * (u + v) * away + 0.20 * np.exp(-(((away - 0.82) / 0.13) ** 2)) * -(u + v)
        holes = np.clip(1 - (np.hypot(np.abs(u) - 0.26, np.abs(v) - 0.26) / 0.15) ** 4, 0, 1)
        glint = np.exp(-((u + 0.45) ** 2 + (v + 0.5) ** 2) / 0.05)
        trim = self.colours["trim"]
        base = trim * 0.72 + 40 if trim.mean() < 120 else trim * 0.62
        colour = _planes(base) * (shade * (1 - 0.65 * holes)) + 120 * glint
        self._blend(window, np.clip((1 - away) * (0.5 * self.side * radius) + 0.5, 0, 1), colour)


def _planes(colour) -> np.ndarray:
    """A colour as (3, 1, 1), ready to meet planes."""
    return np.asarray(colour, dtype=np.float32)[:, None, None]


def _dashes(points: np.ndarray, long: float) -> list[np.ndarray]:
    """A polyline as dashes of length `long` with gaps of the same length."""
    walked = np.r_[0.0, np.cumsum(np.hypot(*np.diff(points, axis=0).T))]
    starts = np.arange(0.0, max(walked[-1] - long, 0.5 * long), 2 * long)
    at = np.stack([starts, starts + long], axis=1)
    return list(np.stack([np.interp(at, walked, axis) for axis in points.T], axis=2))
