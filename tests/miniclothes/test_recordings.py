"""How MiniClothes' sketches are drawn: recording changes no pixel, and a stroke lies where it says."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sbirlib.miniclothes.cut import pattern_marks
from sbirlib.miniclothes.garments import wardrobe
from sbirlib.miniclothes.shapes import layout
from sbirlib.miniclothes.sketch import DESIGNERS, record_sketch, render_sketch

CLOTHES = wardrobe(0)
# Together they have a zip, buttons, every pattern with bands or dots, and an inside.
GARMENTS = [
    next(g for g in CLOTHES.train if g.closure == "zip" and g.pattern == "diagonal"),
    next(g for g in CLOTHES.train if g.closure == "buttons" and g.pattern == "dots"),
    next(g for g in CLOTHES.test if g.pattern == "block" and g.neckline != "high"),
]


@pytest.mark.parametrize("designer", DESIGNERS, ids=lambda designer: str(designer.number))
def test_recording_changes_no_pixel(designer):
    for garment, size in zip(GARMENTS, (64, 96, 256), strict=True):
        seed = (0, int(garment.photo), designer.number)
        found = record_sketch(garment, designer, seed=seed, size=size)
        whole = np.asarray(render_sketch(garment, designer, seed=seed, size=size))
        assert len(found.strokes) > 10
        np.testing.assert_array_equal(found.picture(), whole)
        np.testing.assert_array_equal(found.picture(first=len(found.strokes)), whole)
        assert np.asarray(found.picture(first=0)).min() == 255
        firsts = [found.picture(first=math.ceil(part * len(found.strokes) / 4)) for part in (1, 2, 3, 4)]
        for partial, first in zip(found.partials(4), firsts, strict=True):
            np.testing.assert_array_equal(partial, first)
        np.testing.assert_array_equal(firsts[-1], whole)


@pytest.mark.parametrize("designer", DESIGNERS, ids=lambda designer: str(designer.number))
def test_a_dropped_stroke_changes_pixels_only_where_it_lies(designer):
    size, visible = 96, []
    # Half the widest line, and how far a second line strays from the first, whose points are listed.
    reach = 1 + size * (0.7 * designer.width + (0.02 if designer.restate else 0))
    found = record_sketch(GARMENTS[designer.number % 3], designer, seed=5, size=size)
    whole = np.asarray(found.picture())
    for number, stroke in list(enumerate(found.strokes))[::2]:
        changed = np.asarray(found.picture(np.arange(len(found.strokes)) != number)) != whole
        rows, columns = np.nonzero(changed.any(axis=2))
        visible.append(len(rows) > 0)
        for places, along in ((columns, stroke[:, 0] * size), (rows, stroke[:, 1] * size)):
            assert (places >= along.min() - reach - 1).all()
            assert (places <= along.max() + reach).all()
    assert np.mean(visible) > 0.8


def count(garment):
    return len(record_sketch(garment, replace(DESIGNERS[0], leaves_out=frozenset()), seed=1).strokes)


def test_a_button_and_the_pattern_of_a_part_are_one_stroke_each():
    _, buttoned, _ = GARMENTS
    fewer = replace(buttoned, buttons=2)
    buttons, left = (sum(part.name == "button" for part in layout(g)) for g in (buttoned, fewer))
    assert buttons > left
    assert count(buttoned) - count(fewer) == buttons - left
    patterned = sum(len(pattern_marks(buttoned, part)) > 0 for part in layout(buttoned))
    assert patterned > 1
    assert count(replace(buttoned, pattern="plain")) == count(buttoned) - patterned


def test_points_lie_on_the_paper():
    points = np.concatenate([s for g in GARMENTS for s in record_sketch(g, DESIGNERS[0], seed=1).strokes])
    assert points.min() > 0
    assert points.max() < 1


def test_what_a_part_hides_stays_hidden_without_its_strokes():
    found = record_sketch(GARMENTS[0], DESIGNERS[0], seed=1)
    whole = np.asarray(found.picture())
    random = np.random.default_rng(0)
    for _ in range(5):
        some = np.asarray(found.picture(random.random(len(found.strokes)) < 0.5))
        assert (some >= whole).mean() > 0.999  # where all strokes leave no ink, half of them leave none


def test_the_first_strokes_show_nothing_of_what_is_drawn_later():
    garment = next(g for g in CLOTHES.train if g.pockets == "patch2" and g.pattern == "stripes across")
    found, bare = (
        record_sketch(g, DESIGNERS[0], seed=1) for g in (garment, replace(garment, pockets="none"))
    )
    same = [np.array_equal(a, b) for a, b in zip(found.strokes, bare.strokes, strict=False)].index(False)
    assert same > 5
    np.testing.assert_array_equal(found.picture(first=same), bare.picture(first=same))
    assert (np.asarray(found.picture()) != np.asarray(bare.picture())).any()
