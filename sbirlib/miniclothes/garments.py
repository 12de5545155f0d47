"""What a garment is, and the wardrobe of MiniClothes: single garments and near twins."""

import math
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from sbirlib.errors import InputError

TWIN_PAIRS = 0.15  # pairs per photo, so 30 % of the photos of a split have a twin
NOT_DRAWABLE = ("photo", "twin_of", "colour", "second", "trim")
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Garment:
    """One garment; shares run from 0 (least) to 1 (most) of what its family allows.

    Colours are RGB, 0..255, and are the only part of the look that a sketch does not show.
    """

    photo: str  # five digits, the name of its photo
    family: str  # tee, shirt, hoodie, jacket, coat, dress, skirt
    length: float  # share
    width: float  # share, of the chest or of a skirt's waist
    waist: float  # share, how far the waist is taken in
    flare: float  # share, how far the hem is wider than the chest
    shoulder: float  # share, width of the shoulders
    neckline: str  # a key of `cut.NECKS`; of skirts: band, high, elastic, paperbag
    neck_depth: float  # share
    sleeve: str  # none, short, long
    sleeve_length: float  # share
    sleeve_width: float  # share
    cuff: str  # plain, band, rib, rolled
    closure: str  # none, buttons, half (to the chest), zip, double (double-breasted)
    buttons: int  # rows of buttons, 0 without
    pockets: str  # none, patch1, patch2, welt, flap, kangaroo
    pocket_place: str  # chest, hip
    pocket_size: float  # share
    belt: str  # none, buckle, tie
    yoke: str  # none, straight, pointed, raglan
    hem: str  # straight, curved, arched, ribbed, ruffle, slit
    pleats: int  # pressed folds from the waist to the hem
    pattern: str  # plain, stripes across, stripes down, diagonal, checks, dots, block, chest band
    pattern_scale: float  # share, width of stripes or place of a block
    colour: Colour  # of the cloth
    second: Colour  # of the pattern
    trim: Colour  # of collar, cuffs, belt and buttons
    twin_of: str | None = None  # the photo that differs in one or two details only


class Wardrobe(NamedTuple):
    """The garments of both splits, in the order of their photos' names."""

    train: list[Garment]
    test: list[Garment]


_SHALLOW = ("crew", "boat", "turtle", "collar", "round", "stand")
# What each family may have; a word or a pattern named twice is twice as likely.
_PATTERNS = (
    "plain", "plain", "plain", "plain", "plain", "stripes across", "stripes across",
    "stripes down", "diagonal", "checks", "dots", "block", "chest band",
)  # fmt: skip
_CUT: dict[str, dict[str, str]] = {
    "tee": dict(
        neckline="crew scoop v boat square turtle", sleeve="none short short long",
        cuff="plain plain band rib rolled", closure="none none none half", belt="none",
        pockets="none none patch1 patch2 kangaroo", yoke="none none raglan straight",
        hem="straight straight curved arched ribbed ruffle slit"),
    "shirt": dict(
        neckline="collar collar collar round stand v", sleeve="none short long long",
        cuff="plain band band rolled", closure="buttons buttons buttons half zip", belt="none none none tie",
        pockets="none patch1 patch2 flap flap", yoke="none straight pointed",
        hem="straight curved curved ruffle slit"),
    "hoodie": dict(
        neckline="hood hood hood hood stand crew", sleeve="long long long short", cuff="rib rib band plain",
        closure="none none zip half", belt="none", pockets="kangaroo kangaroo none welt patch1 patch2",
        yoke="none raglan straight", hem="ribbed ribbed straight curved slit"),
    "jacket": dict(
        neckline="collar stand lapel shawl round hood crew", sleeve="long long long none",
        cuff="plain band rib rolled", closure="buttons zip zip double", belt="none none none buckle tie",
        pockets="none flap flap welt patch2 patch1", yoke="none straight pointed raglan",
        hem="straight ribbed ribbed curved arched"),
    "coat": dict(
        neckline="lapel lapel shawl collar round stand hood", sleeve="long", cuff="plain plain band rolled",
        closure="buttons double double zip", belt="none none buckle tie", pockets="none flap welt patch2",
        yoke="none none straight pointed raglan", hem="straight straight curved arched ruffle"),
    "dress": dict(
        neckline="crew scoop v square boat collar round turtle", sleeve="none none short long",
        cuff="plain plain band rolled", closure="none none buttons half zip", belt="none none buckle tie",
        pockets="none none patch1 patch2 welt", yoke="none none straight pointed",
        hem="straight arched ruffle slit curved"),
    "skirt": dict(
        neckline="band high elastic paperbag", sleeve="none", cuff="plain", closure="none none buttons zip",
        belt="none", pockets="none none patch1 patch2 welt flap", yoke="none none straight pointed",
        hem="straight arched ruffle slit curved"),
}  # fmt: skip
_SWAPS = ("neckline", "sleeve", "closure", "pockets", "belt", "yoke", "hem")  # what twins differ in
_PALETTE: tuple[Colour, ...] = (
    (52, 62, 92), (92, 120, 160), (150, 178, 205), (176, 60, 58), (120, 40, 56), (214, 128, 120),
    (226, 178, 172), (84, 104, 76), (140, 156, 118), (52, 92, 90), (196, 158, 72), (222, 198, 130),
    (150, 104, 68), (196, 172, 142), (232, 224, 208), (216, 216, 214), (150, 150, 154), (82, 84, 92),
    (56, 56, 62), (118, 92, 130), (190, 170, 204),
)  # fmt: skip


def wardrobe(seed: int = 0, train: int = 380, test: int = 120) -> Wardrobe:
    """Designs the garments of both splits; photos are numbered from 00001, first train, then test.

    In each split 30 % of the garments have a twin that differs in one or two details. Raises
    InputError for fewer than one photo in a split.
    """
    for name, count in (("train", train), ("test", test)):
        if count < 1:
            raise InputError(f"{name}={count} photos: ask for at least 1")
    return Wardrobe(_collection(seed, 0, train, 1), _collection(seed, 1, test, train + 1))


def detail_differences(a: Garment, b: Garment) -> tuple[str, ...]:
    """The names of the fields in which two garments differ, colours and photo names left out."""
    names = (field.name for field in fields(Garment) if field.name not in NOT_DRAWABLE)
    return tuple(name for name in names if getattr(a, name) != getattr(b, name))


def _collection(seed: int, split: int, count: int, first: int) -> list[Garment]:
    """The garments of one split: single ones and twin pairs, in mixed order."""
    rng = np.random.default_rng([seed, split])
    names = [f"{first + i:05d}" for i in rng.permutation(count)]
    families, garments = list(_CUT), []
    pairs = math.ceil(TWIN_PAIRS * count) if count > 1 else 0
    for index in range(count - pairs):
        own = np.random.default_rng([seed, split, index])
        garment = _design(own, families[index % len(families)], names.pop())
        if index < pairs:
            garments.append(_twin(own, garment, names.pop()))
            garment = replace(garment, twin_of=garments[-1].photo)
        garments.append(garment)
    return sorted(garments, key=lambda garment: garment.photo)


def _design(rng: np.random.Generator, family: str, photo: str) -> Garment:
    details = {name: str(rng.choice(words.split())) for name, words in _CUT[family].items()}
    colour, second, trim = (_PALETTE[i] for i in rng.choice(len(_PALETTE), 3, replace=False))
    if abs(sum(colour) - sum(second)) < 150:  # a pattern needs contrast
        second = (236, 232, 224) if sum(colour) < 400 else (58, 62, 80)
    shares = (field.name for field in fields(Garment) if field.type is float)
    details |= {name: round(float(rng.uniform()), 4) for name in shares}
    details |= dict(buttons=int(rng.integers(3, 8)), pocket_place=str(rng.choice(["chest", "hip"])))
    details |= dict(pleats=int(rng.choice([0, 0, 3, 4, 5, 6])), pattern=str(rng.choice(_PATTERNS)))
    colours = dict(colour=colour, second=second, trim=trim if rng.uniform() < 0.35 else colour)
    return _tidy(Garment(photo=photo, family=family, **details, **colours))


def _tidy(g: Garment) -> Garment:
    """The garment without details that cannot be sewn together."""
    skirt, bare, shallow = g.family == "skirt", g.sleeve == "none", g.neckline in _SHALLOW
    deep = g.neckline in ("lapel", "shawl", "v", "scoop", "square")
    rules = (
        (bare, "cuff", "plain"),
        (
            g.yoke == "raglan" and (bare or g.neckline not in ("crew", "hood", "stand", "turtle")),
            "yoke",
            "none",
        ),
        (g.yoke in ("straight", "pointed") and not (skirt or shallow), "yoke", "none"),
        (g.closure == "half" and not (shallow or g.neckline == "hood"), "closure", "none"),
        (g.neckline == "turtle", "closure", "none"),
        (
            skirt or g.pockets in ("kangaroo", "welt") or (g.pockets == "patch2" and deep),
            "pocket_place",
            "hip",
        ),
        (g.pockets in ("patch1", "none") and not skirt, "pocket_place", "chest"),
        (g.family != "dress" and not (skirt and g.yoke == "none"), "pleats", 0),
    )
    g = replace(g, **{field: value for wrong, field, value in rules if wrong})
    return replace(g, buttons=min(g.buttons, {"buttons": 7, "half": 3, "double": 4}.get(g.closure, 0)))


def _twin(rng: np.random.Generator, garment: Garment, photo: str) -> Garment:
    """The same garment in the same colours with one detail changed, or two that go together."""
    calm = garment.pattern in ("plain", "block", "chest band")  # else a yoke's seam is lost among stripes
    for name in rng.permutation([name for name in _SWAPS if calm or name != "yoke"]):
        others = set(_CUT[garment.family][name].split()) - {getattr(garment, name)}
        for value in rng.permutation(sorted(others)):
            twin = _tidy(replace(garment, photo=photo, twin_of=garment.photo, **{str(name): str(value)}))
            changed = detail_differences(garment, twin)
            if name in changed and len(changed) <= 2:
                return twin
    raise RuntimeError(f"no detail of a {garment.family} can be changed alone")
