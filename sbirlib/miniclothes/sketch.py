"""The seven designers' hands: one garment, drawn as dark strokes on white paper.

A designer inks the very curves that the photo fills, but sees them in a personal way (shift, scale, turn),
draws them in a personal hand (width, wobble, overshoot, pressure), and always leaves the same details out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from PIL import Image, ImageChops, ImageDraw
from pydantic import TypeAdapter

from sbirlib.data.recordings import Recording
from sbirlib.miniclothes.cut import Part, pattern_marks, pixels
from sbirlib.miniclothes.garments import TABLES, Garment
from sbirlib.miniclothes.shapes import layout

OVERSAMPLING = 3
Seed = int | Sequence[int]
LIGHT = {"stitch": 0.55, "fold": 0.7, "pleat": 0.85, "seam": 0.8, "pattern": 0.7}  # share of the full width


@dataclass(frozen=True)
class Designer:
    """One designer's hand; lengths are shares of the frame (0.01 = 2.56 px at 256 px).

    As in Clothes-V1, four designers are professional and three are junior.
    """

    number: int  # 1..7, the two digits at the end of a sketch's name
    level: str  # "professional" or "junior"
    habit: str  # in words, for captions
    ink: int  # grey of a full stroke, 0 (black) .. 255
    width: float  # of a full stroke
    wobble: float  # how far a stroke strays from the curve
    overshoot: float  # how far strokes run past a corner
    restate: int = 0  # further strokes over each outline
    pressure: float = 0.0  # 0 even pen .. 1 strokes that thin out to nothing
    grain: float = 0.0  # 0 ink .. 1 soft pencil on rough paper
    leaves_out: frozenset[str] = frozenset()  # of button, pattern, stitch, fold, seam, inside
    pattern: str = "line"  # "line" marks the edges of stripes, "fill" also greys them
    scale: tuple[float, float] = (1.0, 1.0)  # usual width and height of the drawing
    turn: float = 0.0  # how far the centre front is seen off the middle
    lean: float = 0.0  # shear: sideways shift per height
    swing: float = 0.0  # degrees by which the sleeves are held away
    loose: float = 0.01  # spread of shift, scale and proportions from one sketch to the next


DESIGNERS = TypeAdapter(tuple[Designer, ...]).validate_python(TABLES["designers"])


def render_sketch(garment: Garment, designer: Designer, *, seed: Seed, size: int = 256) -> Image.Image:
    """Draws a garment as one designer would: an RGB image of size x size pixels, the same for a seed."""
    return _drawn(garment, designer, seed, size).finish(size)[0]


def record_sketch(garment: Garment, designer: Designer, *, seed: Seed, size: int = 256) -> Recording:
    """How `render_sketch` draws the same sketch.

    A stroke is a line from corner to corner and what restates it (its points are those of the first line), a
    button, a zip, or all of the pattern or hatching on one part (its lines end at the part's box). The order
    is a painter's, back to front: compare curves over the share drawn with each other, not with those of
    people, who draw outlines first. The first so many strokes give the paper as it was by then. Where others
    are left out, all else stays as it is: parts are white inside, and hide what is behind them.
    """
    # No point depends on the size of the page, and a small one is drawn on quickly.
    strokes = _drawn(garment, designer, seed, 8).strokes
    again = partial(_drawn, garment, designer, seed, size)
    return Recording(
        tuple(strokes), size, lambda keep: again(keep=keep).finish(size)[0],
        lambda counts: again(counts=counts).finish(size, counts),
    )  # fmt: skip


def _drawn(
    garment: Garment, designer: Designer, seed: Seed, size: int, *,
    keep: np.ndarray | None = None, counts: Sequence[int] = (),
) -> "_Page":  # fmt: skip
    rng = np.random.default_rng(seed)
    page = _Page(designer, rng, size * OVERSAMPLING, keep, counts)
    look = _view(designer, rng)
    for part in layout(garment, swing=designer.swing + rng.normal(0, 100 * designer.loose)):
        if part.name not in designer.leaves_out:
            marks = [look(mark) for mark in pattern_marks(garment, part)]
            finished = None if keep is None or keep[len(page.strokes) :].any() else page.paper.copy()
            page.draw(part._replace(points=look(part.points)), marks)
            if finished:  # no white of later parts either, which would show where they will be
                page.paper.paste(finished)
    return page


def _view(designer: Designer, rng: np.random.Generator):
    """The map from the garment's square to the paper: the habit of the hand, and what varies by sketch."""
    loose = designer.loose
    scale = np.array(designer.scale) * (1 + rng.normal(0, loose, 2))
    shift, angle = rng.normal(0, loose, 2), rng.normal(0, 1.2 * loose)
    waves = rng.normal(0, 0.45 * loose, (2, 2, 2))  # proportions: slow waves over the paper
    phase = rng.uniform(0, 2 * np.pi, (2, 2, 2))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

    def look(points: np.ndarray) -> np.ndarray:
        centred = points - 0.5
        swell = (waves * np.sin(5.0 * centred[:, None, :, None] + phase)).sum(axis=(2, 3))
        middle = np.clip(1 - (centred[:, 0] / 0.3) ** 2, 0, 1)  # the front comes forward, the sides stay
        moved = centred * scale + swell
        moved[:, 0] += designer.turn * middle - designer.lean * centred[:, 1]
        return moved @ turn + 0.5 + shift

    return look


class _Page:
    """Paper that later strokes and shapes cover, in painter's order, and the `strokes` drawn so far.

    Strokes without `keep` leave no ink, but take their random numbers. The paper as it was after each of
    `counts` strokes is kept.
    """

    def __init__(
        self, designer: Designer, rng: np.random.Generator, side: int, keep: np.ndarray | None,
        counts: Sequence[int],
    ) -> None:  # fmt: skip
        self.designer, self.rng, self.side, self.keep, self.counts = designer, rng, side, keep, counts
        self.strokes: list[np.ndarray] = []
        self.paper = Image.new("L", (side, side), 255)
        self.after = {0: self.paper.copy()}  # so many strokes
        self.brush = ImageDraw.Draw(self.paper)

    def draw(self, part: Part, marks: list[np.ndarray]) -> None:
        if part.name == "button":
            self._add(self._button(part))
        elif part.name == "zip":
            self._add(self._zip(part))
        elif part.filled:
            self.brush.polygon(pixels(part.points, self.side), fill=255)
            if marks and "pattern" not in self.designer.leaves_out:
                self._add(self._pattern(part, marks))
            if part.name == "back" and "inside" not in self.designer.leaves_out:
                self._add(self._inside(part))
            for stroke in _strokes(part.outline):
                self._add(self._ink(stroke, repeat=1 + self.designer.restate))
        else:
            self._add(self._ink(part.points, LIGHT.get(part.name, 0.9)))

    def _add(self, strokes: list[np.ndarray]) -> None:
        self.strokes += strokes
        if strokes and len(self.strokes) in self.counts:
            self.after[len(self.strokes)] = self.paper.copy()

    def finish(self, size: int, counts: Sequence[int] = ()) -> list[Image.Image]:
        """The picture, or those after so many strokes each, on paper of the same tooth."""
        papers = self.after | {len(self.strokes): self.paper}
        grain = self.designer.grain
        tooth = 1 - grain * self.rng.random((size, size), dtype=np.float32) ** 2 if grain else 1
        pictures = []
        for count in counts or [len(self.strokes)]:
            ink = 255.0 - np.asarray(papers[count].reduce(OVERSAMPLING), dtype=np.float32)
            pictures.append(Image.fromarray((255.5 - ink * tooth).astype(np.uint8)).convert("RGB"))
        return pictures

    @property
    def _kept(self) -> bool:
        """Whether the stroke that is being drawn leaves ink."""
        return self.keep is None or bool(self.keep[len(self.strokes)])

    def _ink(self, points: np.ndarray, share: float = 1.0, repeat: int = 1, brush=None) -> list[np.ndarray]:
        """One stroke along a curve, as a ribbon whose width follows the pressure of the hand; its line."""
        d, rng, brush = self.designer, self.rng, brush or self.brush
        curve = points @ [1, 1j]  # complex: one array operation moves both axes
        walked = np.r_[0.0, np.cumsum(np.abs(np.diff(curve)))]
        total = float(walked[-1])
        if total < 0.004:
            return []
        n, bends = max(int(total / 0.010), 4), max(int(total / 0.07), 2) + 1
        t = np.linspace(0.0, 1.0, n)
        profile = 1 - d.pressure * (1 - np.sin(np.pi * (0.06 + 0.9 * t)) ** 0.6)
        smooth = np.interp(t * total, walked, curve)
        for again in range(repeat):
            before, after = rng.uniform(0.2, 1.0, 2) * d.overshoot * min(1.0, total / 0.12)
            line = smooth.copy()
            line[0] -= _unit(line[1] - line[0]) * before
            line[-1] += _unit(line[-1] - line[-2]) * after
            knots = rng.normal(0, d.wobble * (1.7 if again else 1.0), (bends, 2)) @ [1, 1j]
            line += np.interp(t * (bends - 1), np.arange(bends), knots)
            if again:  # a second line lies beside the first
                line += rng.normal(0, 0.0035, 2) @ [1, 1j]
            half = 0.5 * d.width * share * rng.uniform(0.92, 1.08) * (0.8 if again else 1.0) * profile
            way = np.concatenate([line[1:2] - line[:1], line[2:] - line[:-2], line[-1:] - line[-2:-1]])
            side = 1j * _unit(way) * half
            ribbon = np.concatenate([line + side, (line - side)[::-1]])
            tone = int(np.clip(d.ink + rng.normal(0, 18 * d.grain), 0, 170))
            if self._kept:
                brush.polygon(pixels(ribbon.view(float), self.side), fill=tone)
            if not again:
                first = line
        return [first.view(float).reshape(-1, 2)]

    def _button(self, part: Part) -> list[np.ndarray]:
        centre = part.points[0] + self.rng.normal(0, self.designer.wobble * 0.5, 2)
        radius = np.hypot(*(part.points[1] - part.points[0])) * self.rng.uniform(0.92, 1.1)
        angle = np.linspace(0, 2 * np.pi, 17) + self.rng.uniform(0, 6)
        ring = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        self.brush.polygon(pixels(ring, self.side), fill=255)
        return self._ink(ring, 0.75)

    def _zip(self, part: Part) -> list[np.ndarray]:
        """Two rails and teeth between them, so that a zip never looks like a plain edge."""
        a, b = part.points[0], part.points[-1]
        across = np.array([0.010, 0.0])
        [left] = self._ink(part.points - across, 0.7)
        [right] = self._ink(part.points + across, 0.7)
        for share in np.arange(0.012, 1.0, 0.022 / max(np.hypot(*(b - a)), 0.05)):
            at = a + (b - a) * share
            self._ink(np.array([at - across, at + across]), 0.7)
        return [np.concatenate([left, right[::-1]])]

    def _pattern(self, part: Part, marks: list[np.ndarray]) -> list[np.ndarray]:
        """Marks of the pattern, cut off at the outline of the part, in lines of even width."""
        d = self.designer
        layer = Image.new("L", self.paper.size, 255)
        brush = ImageDraw.Draw(layer)
        width = max(round(LIGHT["pattern"] * d.width * self.side), 1)
        drawn = []
        for mark in marks:
            if d.pattern == "fill" and self._kept:
                brush.polygon(pixels(mark, self.side), fill=178)
            if len(mark) == 4:  # a band: only its long sides, since the short ones lie outside the part
                t = np.linspace(0, 1, max(int(np.hypot(*(mark[1] - mark[0])) / 0.06), 2))[:, None]
                sides = [a * (1 - t) + b * t for a, b in (mark[:2], mark[2:])]
                lines = [side + self.rng.normal(0, d.wobble, (len(t), 2)) for side in sides]
            else:  # a dot: too small for the hand to stray within
                lines = [np.concatenate([mark, mark[:2]]) + self.rng.normal(0, d.wobble, 2)]
            for line in lines:
                if self._kept:
                    brush.line(pixels(line, self.side), fill=d.ink, width=width)
            drawn += lines
        self._paste(ImageChops.darker(self.paper, layer), part)
        return [np.concatenate(drawn).clip(part.points.min(axis=0), part.points.max(axis=0))]

    def _inside(self, part: Part) -> list[np.ndarray]:
        """Slanted hatching where one looks into the garment."""
        (left, top), (right, bottom) = part.points.min(axis=0), part.points.max(axis=0)
        slant = 0.6 * (bottom - top)
        layer = Image.new("L", self.paper.size, 255)
        lines = []
        for x in np.arange(left, right + slant, 0.022):
            lines += self._ink(np.array([(x, top), (x - slant, bottom)]), 0.5, brush=ImageDraw.Draw(layer))
        self._paste(layer, part)
        return [np.concatenate(lines).clip((left, top), (right, bottom))]

    def _paste(self, layer: Image.Image, part: Part) -> None:
        """Lays a sheet down within the outline of a part."""
        within = Image.new("L", self.paper.size, 0)
        ImageDraw.Draw(within).polygon(pixels(part.points, self.side), fill=255)
        self.paper.paste(layer, mask=within)


def _unit(z):
    """Complex numbers brought to length 1."""
    return z / (np.abs(z) + 1e-9)


def _strokes(points: np.ndarray, sharp: float = 35.0) -> list[np.ndarray]:
    """A polyline cut at its corners (turns of more than `sharp` degrees): what one stroke draws."""
    way = np.diff(points, axis=0)
    angle = np.arctan2(way[:, 1], way[:, 0])
    turn = np.abs((np.diff(angle) + np.pi) % (2 * np.pi) - np.pi)
    cuts = [0, *(np.flatnonzero(turn > np.deg2rad(sharp)) + 1).tolist(), len(points) - 1]
    return [points[a : b + 1] for a, b in pairwise(cuts) if b > a]
