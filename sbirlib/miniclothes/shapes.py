"""The parts of a garment as polylines, the same for photo and sketch: the body, and what is sewn on it.

They are laid out in body units (see `cut`) and fitted into the unit square, in painter's order: the
photo fills the very curves that the sketch inks.
"""

import numpy as np

from sbirlib.data.strokes import FILL_OF_FRAME
from sbirlib.miniclothes.cut import Cut, Part, arc, between, bezier, both, box, chain, mirror, off, widen
from sbirlib.miniclothes.garments import TABLES, Garment

# Degrees by which the cloth of pockets is turned, as tailors do where a pattern would hide them.
BIAS = 45.0


def layout(garment: Garment, *, swing: float = 0.0) -> list[Part]:
    """The parts of a garment in the unit square, centred, its longer side 0.84 of the frame.

    `swing` (degrees) lifts the sleeves away from the body.
    """
    cut = Cut.of(garment)
    behind, front = _neck(garment, cut) if garment.family != "skirt" else ([], _waistband(garment, cut))
    sleeves, body = _sleeves(garment, cut, swing), _body(garment, cut)
    # In the order in which they lie on each other.
    details = [*_seams(garment, cut), *_pockets(garment, cut), *_closure(garment, cut), *_belt(garment, cut)]
    parts = [*behind, *sleeves, *body, *details, *front, *_buttons(garment, cut)]
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


def _seams(g: Garment, cut: Cut) -> list[Part]:
    parts = [Part("edge", cut.across(cut.waist))] if g.family == "dress" else []
    yoke = 0.07 + 0.26 * cut.end if g.family == "skirt" else cut.depth + 0.10
    if g.yoke == "straight":
        parts.append(Part("edge", cut.across(yoke)))
    elif g.yoke == "pointed":
        half = cut.half(yoke - 0.03)
        parts.append(Part("edge", chain((-half, yoke - 0.03), (0.0, yoke + 0.06), (half, yoke - 0.03))))
    elif g.yoke == "raglan":
        parts += both(Part("edge", arc((cut.neck * 0.97, 0.3 * cut.depth), cut.underarm, -0.08)))
    start = cut.waist + 0.01 if g.family != "skirt" else 0.08
    for share in np.linspace(-0.72, 0.72, g.pleats):
        low = cut.base + (cut.end - cut.base) * share**2 - 0.012
        if 0.3 < share < 0.5:  # this fold opens into the slit, if there is one
            low -= cut.slit
        parts.append(Part("pleat", chain((share * cut.half(start), start), (share * cut.half(low), low))))
    if g.family != "skirt":
        chest, half = cut.underarm[1], cut.half(cut.underarm[1] + 0.05)
        parts += both(Part("fold", arc((half * 0.93, chest + 0.03), (half * 0.5, chest + 0.17), 0.1)))
    if not g.pleats:
        for share, high in ((0.62, 0.35), (0.3, 0.22)):
            top = cut.end - high * (cut.end - start)
            ends = (share * cut.half(top) * 0.9, top), (share * cut.half(cut.end), cut.end - 0.05)
            parts += both(Part("fold", arc(*ends, 0.05)))
    return parts


def _pockets(g: Garment, cut: Cut) -> list[Part]:
    if g.pockets == "none":
        return []
    floor = min(cut.base, cut.end) - 0.03 - cut.slit
    wide = between((0.135, 0.195), g.pocket_size)
    if g.pocket_place == "chest":
        y = cut.underarm[1] - (0.03 if g.sleeve != "none" else 0.0)
    elif g.family == "skirt":
        y = 0.16
    else:
        y = cut.waist + 0.06 + 0.10 * min(max(cut.end - 0.9, 0.0), 0.5)
    if g.pockets == "kangaroo":
        low = min(y + 0.21, floor)
        half, top = cut.half(low - 0.1), low - 0.2
        edge = arc((0.44 * half, top), (0.8 * half, low - 0.07), -0.08)
        right = chain((0.36 * half, top), edge, (0.8 * half, low))
        return [Part("pocket", chain(right, mirror(right)), grain=BIAS)]
    y = min(y, floor - 1.15 * wide)
    half = 0.93 * min(cut.half(y - 0.01), cut.half(y + wide))
    inner = 0.12 if g.closure == "double" else 0.04  # clear of the closure
    wide = min(wide, (half - inner) / 1.12)  # a flap is wider than its pocket
    x, high = float(np.clip(0.58 * half, inner + 0.56 * wide, half - 0.56 * wide)), 1.15 * wide
    if g.pockets == "welt":
        lean = np.array([0.06, 0.0]) if g.pocket_place == "chest" else np.array([0.065, 0.14])
        a = np.array([x, y + 0.02]) - lean * [1, 0]
        b = a + lean * [2, 1] + [0, 0.001]
        across = np.array([-(b - a)[1], (b - a)[0]]) / np.hypot(*(b - a)) * 0.042
        return both(Part("flap", np.array([a, b, b + across, a + across]), grain=BIAS))
    left, right = x - wide / 2, x + wide / 2
    patch = chain((left, y), (right, y), (right, y + 0.82 * high), (x, y + high), (left, y + 0.82 * high))
    parts = [Part("pocket", patch, grain=BIAS)]
    if g.pockets == "flap":
        flap = chain(box(x, y - 0.012, 1.12 * wide, 0.34 * high), (x, y + 0.45 * high))[[0, 1, 2, 4, 3]]
        parts.append(Part("flap", flap, grain=BIAS))
    else:
        parts.append(Part("stitch", chain((left, y + 0.03), (right, y + 0.03))))
    return parts if g.pockets == "patch1" else both(*parts)


def _front(g: Garment, cut: Cut) -> tuple[float, float]:
    """Where the front closure starts and ends on the centre front."""
    start = 0.07 if g.family == "skirt" else -0.01 if g.neckline == "stand" else cut.depth
    if g.closure == "half":
        return start, start + 0.24
    return start, cut.base - 0.003 + (cut.sewn if g.hem == "ribbed" else 0.0)


def _closure(g: Garment, cut: Cut) -> list[Part]:
    start, stop = _front(g, cut)
    if g.closure in ("buttons", "half"):
        return [Part("placket", box(0, start, 0.056, stop - start))]
    if g.closure == "zip":
        return [Part("zip", chain((0, start), (0, stop)))]
    if g.closure == "double":
        return [Part("edge", chain(arc((0, start), (0.10, start + 0.08), -0.1), (0.10, stop)))]
    return []


def _buttons(g: Garment, cut: Cut) -> list[Part]:
    """Discs of radius 0.021, left out where a belt lies over them."""
    if g.closure not in ("buttons", "half", "double"):
        return []
    start, stop = _front(g, cut)
    first, last = (0.10, 0.14) if g.closure == "double" else (0.045, 0.045)
    fit = int((stop - start - first - last) / 0.055) + 1
    rows = np.linspace(start + first, stop - last, max(0, min(g.buttons, fit)))  # a short front has none
    columns = (-0.062, 0.062) if g.closure == "double" else (0.0,)
    free = [y for y in rows if g.belt == "none" or abs(y - cut.waist) > 0.06]
    return [Part("button", chain((x, y), (x + 0.021, y)), "trim") for y in free for x in columns]


def _belt(g: Garment, cut: Cut) -> list[Part]:
    if g.belt == "none":
        return []
    top, low = (np.array([cut.half(y) + 0.008, y]) for y in (cut.waist - 0.029, cut.waist + 0.029))
    cloth, middle = "leather" if g.belt == "buckle" else "trim", cut.waist + 0.006
    belt = Part("belt", chain(arc(top * [-1, 1], top, -0.015), arc(low, low * [-1, 1], 0.015)), cloth)
    if g.belt == "buckle":
        buckle, hole = box(0, middle - 0.042, 0.09, 0.084), box(0, middle - 0.022, 0.05, 0.044)
        return [belt, Part("buckle", buckle, "metal"), Part("buckle", hole, cloth)]
    tail = chain((0.0, middle), (0.07, middle + 0.22), (0.115, middle + 0.20), (0.02, middle))
    there = bezier((0, middle), (0.06, middle - 0.10), (0.17, middle - 0.07), (0.15, middle + 0.01))
    loop = chain(there, bezier((0.15, middle + 0.01), (0.10, middle + 0.06), (0, middle)))
    knot = box(0, middle - 0.026, 0.05, 0.052)
    return [belt, *(Part("tie", p, cloth) for p in (mirror(tail), tail, mirror(loop), loop, knot))]
