"""What a garment is, and the wardrobe of MiniClothes: single garments and near twins."""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

TABLES = yaml.safe_load(Path(__file__).with_name("tables.yaml").read_text(encoding="utf-8"))
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
    neckline: str  # one of `necks` in tables.yaml; of skirts: band, high, elastic, paperbag
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


_CHOSEN = ("neckline", "sleeve", "cuff", "closure", "belt", "pockets", "yoke", "hem")
_SWAPS = ("neckline", "sleeve", "closure", "pockets", "belt", "yoke", "hem")  # what twins differ in


def wardrobe(seed: int = 0, train: int = 380, test: int = 120) -> Wardrobe:
    """Designs the garments of both splits; photos are numbered from 00001, first train, then test.

    In each split 30 % of the garments have a twin that differs in one or two details.
    """
    return Wardrobe(_collection(seed, 0, train, 1), _collection(seed, 1, test, train + 1))


def detail_differences(a: Garment, b: Garment) -> tuple[str, ...]:
    """The names of the fields in which two garments differ, colours and photo names left out."""
    names = (field.name for field in fields(Garment) if field.name not in NOT_DRAWABLE)
    return tuple(name for name in names if getattr(a, name) != getattr(b, name))


def _collection(seed: int, split: int, count: int, first: int) -> list[Garment]:
    """The garments of one split: single ones and twin pairs, in mixed order."""
    names = [f"{first + i:05d}" for i in np.random.default_rng([seed, split]).permutation(count)]
    families, garments = list(TABLES["families"]), []
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
    words, palette = TABLES["families"][family], TABLES["palette"]
    details = {name: str(rng.choice(words[name].split())) for name in _CHOSEN}
    colour, second, trim = (tuple(palette[i]) for i in rng.choice(len(palette), 3, replace=False))
    if abs(sum(colour) - sum(second)) < 150:  # a pattern needs contrast
        second = (236, 232, 224) if sum(colour) < 400 else (58, 62, 80)
    shares = (field.name for field in fields(Garment) if field.type is float)
    details |= {name: round(float(rng.uniform()), 4) for name in shares}
    details |= dict(buttons=int(rng.integers(3, 8)), pocket_place=str(rng.choice(["chest", "hip"])))
    details |= dict(pleats=int(rng.choice([0, 0, 3, 4, 5, 6])), pattern=str(rng.choice(TABLES["patterns"])))
    colours = dict(colour=colour, second=second, trim=trim if rng.uniform() < 0.35 else colour)
    return _tidy(Garment(photo=photo, family=family, **details, **colours))


def _tidy(g: Garment) -> Garment:
    """The garment without details that cannot be sewn together."""
    changes = {}
    for found, instead in TABLES["rules"]:
        if all(getattr(g, name) in words.split() for name, words in found.items()):
            changes |= instead
    g = replace(g, **changes)
    return replace(g, buttons=min(g.buttons, TABLES["most_buttons"].get(g.closure, 0)))


def _twin(rng: np.random.Generator, garment: Garment, photo: str) -> Garment:
    """The same garment in the same colours with one detail changed, or two that go together."""
    calm = garment.pattern in ("plain", "block", "chest band")  # else a yoke's seam is lost among stripes
    for name in rng.permutation([name for name in _SWAPS if calm or name != "yoke"]):
        others = set(TABLES["families"][garment.family][name].split()) - {getattr(garment, name)}
        for value in rng.permutation(sorted(others)):
            twin = _tidy(replace(garment, photo=photo, twin_of=garment.photo, **{str(name): str(value)}))
            changed = detail_differences(garment, twin)
            if name in changed and len(changed) <= 2:
                return twin
    raise RuntimeError(f"no detail of a {garment.family} can be changed alone")
