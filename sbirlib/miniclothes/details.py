"""What is sewn on the body of a garment: seams, pockets, closure, buttons and belt."""

import numpy as np

from sbirlib.miniclothes.cut import Cut, Part, arc, between, bezier, both, box, chain, mirror
from sbirlib.miniclothes.garments import Garment

# Degrees by which the cloth of pockets is turned, as tailors do where a pattern would hide them.
BIAS = 45.0


def details(g: Garment, cut: Cut) -> list[Part]:
    """Seams, folds, pockets, closure and belt, in the order in which they lie on each other."""
    return [*_seams(g, cut), *_pockets(g, cut), *_closure(g, cut), *_belt(g, cut)]


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


def buttons(g: Garment, cut: Cut) -> list[Part]:
    """Discs of radius 0.021, left out where a belt lies over them."""
    if g.closure not in ("buttons", "half", "double"):
        return []
    start, stop = _front(g, cut)
    first, last = (0.10, 0.14) if g.closure == "double" else (0.045, 0.045)
    fit = int((stop - start - first - last) / 0.055) + 1
    rows = np.linspace(start + first, stop - last, min(g.buttons, fit))
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
    loop = chain(
        bezier((0, middle), (0.06, middle - 0.10), (0.17, middle - 0.07), (0.15, middle + 0.01)),
        bezier((0.15, middle + 0.01), (0.10, middle + 0.06), (0, middle)),
    )
    knot = box(0, middle - 0.026, 0.05, 0.052)
    return [belt, *(Part("tie", p, cloth) for p in (mirror(tail), tail, mirror(loop), loop, knot))]
