"""The parts of a garment as polylines, the same for photo and sketch.

They are laid out in body units (see `cut`) and fitted into the unit square, in painter's order: the
photo fills the very curves that the sketch inks.
"""

import numpy as np

from sbirlib.data.strokes import FILL_OF_FRAME
from sbirlib.miniclothes.cut import Cut, Part, arc, between, bezier, both, box, chain, mirror, off, widen
from sbirlib.miniclothes.details import buttons, details
from sbirlib.miniclothes.garments import TABLES, Garment


def layout(garment: Garment, *, swing: float = 0.0) -> list[Part]:
    """The parts of a garment in the unit square, centred, its longer side 0.84 of the frame.

    `swing` (degrees) lifts the sleeves away from the body.
    """
    cut = Cut.of(garment)
    behind, front = _neck(garment, cut) if garment.family != "skirt" else ([], _waistband(garment, cut))
    sleeves, body = _sleeves(garment, cut, swing), _body(garment, cut)
    parts = [*behind, *sleeves, *body, *details(garment, cut), *front, *buttons(garment, cut)]
    solid = np.concatenate([part.points for part in parts if part.filled])
    low, high = solid.min(axis=0), solid.max(axis=0)
    scale = FILL_OF_FRAME / max(high - low)
    return [p._replace(points=(p.points - (low + high) / 2) * scale + 0.5) for p in parts]


def _neck_line(g: Garment, cut: Cut) -> np.ndarray:
    """The edge of the front from the left shoulder through the neck hole to the right one."""
    n, d = cut.neck, cut.depth
    if g.neckline in ("v", "lapel", "shawl"):
        return chain(arc((-n, 0), (0, d), -0.03), arc((0, d), (n, 0), -0.03))
    if g.neckline == "square":
        return np.array([(-n, 0), (-0.88 * n, d), (0.88 * n, d), (n, 0)])
    return bezier((-n, 0), (-0.92 * n, 1.33 * d), (0.92 * n, 1.33 * d), (n, 0), n=28)


def _body(g: Garment, cut: Cut) -> list[Part]:
    """The front with its hem, and what is seen of the back below it."""
    corner = cut.side[-1]
    bends = {
        "curved": (off(corner, -0.05, 0.02), (corner[0] * 0.6, cut.base)),
        "arched": ((corner[0] * 0.75, cut.end - 0.02), (corner[0] * 0.45, cut.base)),
    }.get(g.hem, [(corner[0] * 0.55, cut.base)])
    right = bezier(corner, *bends, (0.0, cut.base))
    bottom = chain(right, mirror(right))
    if g.hem == "slit":
        x, high = corner[0] * 0.42, cut.slit
        y = float(np.interp(x, bottom[::-1, 0], bottom[::-1, 1]))
        notch = np.array([(x + 0.035, y), (x, y - high), (x - 0.03, y)])
        bottom = chain(bottom[bottom[:, 0] > x + 0.035], notch, bottom[bottom[:, 0] < x - 0.03])
    half = cut.side[0, 0]
    top = np.array([(-half, 0.05), (half, 0.05)]) if g.family == "skirt" else _neck_line(g, cut)
    parts = [Part("body", chain(top, cut.side, bottom, mirror(cut.side)))]
    if g.hem == "arched":
        parts.insert(0, Part("back", chain(bottom[::-1], arc(corner, corner * [-1, 1], -0.03)), "lining"))
    if cut.sewn:
        parts += _hem_piece(g, cut, bottom)
    elif g.hem != "slit":
        parts.append(Part("stitch", bottom[1:-1] - [0, 0.03]))
    if g.sleeve == "none" and g.family != "skirt":
        parts += both(Part("stitch", widen(cut.armhole, 0.018)[1:-1]))
    return parts


def _hem_piece(g: Garment, cut: Cut, seam: np.ndarray) -> list[Part]:
    """A ribbed band or a ruffle sewn to the lower edge of the body."""
    if g.hem == "ribbed":
        lower = seam * [0.90, 1.0] + [0, cut.sewn]
        return [Part("hem", chain(seam, lower[::-1]), "rib")]
    lower = seam * [1.16, 1.0] + [0, cut.sewn - 0.015]
    x, waves = np.linspace(lower[0, 0], lower[-1, 0], 90), np.cos(np.linspace(0, 6.5 * np.pi, 90))
    y = np.interp(-x, -lower[:, 0], lower[:, 1]) + 0.014 * waves
    parts = [Part("hem", chain(seam, np.stack([x, y], axis=1)[::-1]))]
    for share in np.linspace(-0.8, 0.8, 7):
        x = share * seam[0, 0]
        at = float(np.interp(x, seam[::-1, 0], seam[::-1, 1]))
        parts.append(Part("pleat", chain((x, at + 0.01), (share * 1.16 * seam[0, 0], at + 0.1))))
    return parts


def _sleeves(g: Garment, cut: Cut, swing: float) -> list[Part]:
    if g.sleeve == "none":
        return []
    lengths, widths, angle = TABLES["sleeves"][g.sleeve]
    long, half = between(lengths, g.sleeve_length), between(widths, g.sleeve_width)
    turn = np.deg2rad(angle + swing)
    along, out = np.array([np.sin(turn), np.cos(turn)]), np.array([np.cos(turn), -np.sin(turn)])
    wrist = (cut.shoulder + cut.underarm) / 2 + along * long
    outer, inner = wrist + out * half, wrist - out * half
    upper = bezier(cut.shoulder, off(cut.shoulder, 0.06, 0.045), outer - along * long * 0.45, outer)
    lower = arc(inner, cut.underarm, 0.02)
    inside = [(cut.underarm[0] - 0.06, cut.underarm[1]), (cut.shoulder[0] - 0.06, cut.shoulder[1] + 0.03)]
    parts = [Part("sleeve", chain(upper, lower, inside), grain=angle + swing)]
    if g.sleeve == "long":
        elbow = inner + (cut.underarm - inner) * 0.5
        for step in (-0.03, 0.03):
            crease = arc(elbow + along * step, elbow + along * (step * 2.2) + out * half * 1.1, 0.12)
            parts.append(Part("fold", crease))
    if g.cuff == "plain":
        parts.append(Part("stitch", np.array([outer - out * 0.008, inner + out * 0.008]) - along * 0.025))
    else:
        wide, high, cloth = TABLES["cuffs"][g.cuff]
        right, left = (wrist + out * half * wide * side - along * high * 0.5 for side in (1, -1))
        outline = np.array([right, left, left + along * high, right + along * high])
        parts.append(Part("cuff", outline, cloth, angle + swing))
    return both(*parts)


def _neck(g: Garment, cut: Cut) -> tuple[list[Part], list[Part]]:
    """What is seen of the inside and the hood, and what lies on the front around the neck."""
    n, d, line, kind = cut.neck, cut.depth, _neck_line(g, cut), g.neckline
    if kind == "hood":
        dome = bezier((-n - 0.075, 0.07), (-n - 0.15, -0.36), (n + 0.15, -0.36), (n + 0.075, 0.07), n=40)
        hollow = bezier((-n - 0.01, 0.0), (-n - 0.05, -0.27), (n + 0.05, -0.27), (n + 0.01, 0.0), n=36)
        trim = Part("trim", chain(line, widen(line, 0.028)[::-1]), "main")
        cords = both(Part("cord", arc((0.045, d * 0.97), (0.055, d + 0.15), 0.05)))
        return [Part("hood", dome), Part("back", chain(hollow, line[::-1]), "lining")], [trim, *cords]
    rise = {"collar": 0.055, "lapel": 0.05, "shawl": 0.05, "stand": 0.075, "turtle": 0.11}.get(kind, 0.0)
    tip = np.array([n * (0.94 if rise else 1.0), -rise])
    behind = [Part("back", chain(arc(tip * [-1, 1], tip, 0.05 if rise else -0.10), line[::-1]), "lining")]
    return behind, _collar(g, n, d, line, tip)


def _collar(g: Garment, n: float, d: float, line: np.ndarray, tip: np.ndarray) -> list[Part]:
    """The collar or trim of a neck hole of half width `n` and depth `d`; `tip` is its upper right end."""
    if g.neckline in ("crew", "scoop", "v", "boat", "square"):
        if g.family in ("dress", "coat", "jacket", "shirt"):
            return [Part("stitch", widen(line, 0.02)[1:-1])]
        return [Part("trim", chain(line, widen(line, 0.032)[::-1]), "rib")]
    if g.neckline == "turtle":
        foot = np.array([n + 0.012, 0.01])
        rim, base = arc(tip * [-1, 1], tip, -0.10), bezier(foot, (0, 0.075), foot * [-1, 1])
        tube = chain(rim, arc(tip, foot), base)
        return [Part("collar", tube, "rib"), Part("seam", arc((-n, -0.045), (n, -0.045), -0.10))]
    if g.neckline == "stand":
        leaf = chain(arc(tip, (0.003, -0.012), 0.12), arc((0.003, d), (n + 0.008, 0.004), 0.12))
        return both(Part("collar", leaf, "trim"))
    if g.neckline in ("collar", "round"):
        meet, nape = np.array([0.004, d]), np.array([n + 0.034, 0.018])
        edge = [off(meet, 0.075, 0.085), nape]
        if g.neckline == "round":
            edge = bezier(meet, off(meet, 0.03, 0.13), off(nape, 0.065, 0.10), off(nape, -0.01, -0.01))
        return both(Part("collar", chain(arc(tip, meet, 0.08), edge), "trim"))
    stop, nape = np.array([0.0, d]), np.array([n + 0.042, 0.012])
    if g.neckline == "shawl":
        leaf = chain(tip, stop, bezier(stop, off(stop, 0.12, -0.10), off(nape, 0.055, 0.10), nape))
        return both(Part("collar", leaf, "trim"))
    notch = tip + (stop - tip) * 0.36
    lapel = chain(notch, off(notch, 0.115, 0.012), arc(off(notch, 0.115, 0.012), stop, -0.06))
    leaf = chain(tip, notch, off(notch, 0.085, -0.028), nape)
    return both(Part("collar", lapel, "main"), Part("collar", leaf, "trim"))


def _waistband(g: Garment, cut: Cut) -> list[Part]:
    half = cut.side[0, 0] + 0.008
    if g.neckline == "paperbag":
        x = np.linspace(-half * 1.12, half * 1.12, 40)
        frill = np.stack([x, -0.035 + 0.012 * np.cos(np.linspace(0, 9 * np.pi, 40))], axis=1)
        outline = chain(frill, (half, 0.07), (-half, 0.07))
        return [Part("band", outline), Part("seam", chain((-half, 0.035), (half, 0.035)))]
    top = 0.07 - (0.12 if g.neckline == "high" else 0.07)
    outline = chain((-half, top), (half, top), (half + 0.004, 0.07), (-half - 0.004, 0.07))
    return [Part("band", outline, "rib" if g.neckline == "elastic" else "trim")]


def pattern_marks(garment: Garment, part: Part) -> list[np.ndarray]:
    """The second colour's bands or dots on one part laid out by `layout`, as closed polygons.

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
