"""Pictures in rows: what is drawn is what was handed over."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from sbirlib.figures.photos import retrieval_card, retrieval_strip
from sbirlib.figures.style import TRUE_COLOUR


def picture(value, shape=(10, 8)):
    return np.full((*shape, 3), value, dtype=np.uint8)


def test_a_strip_shows_each_sketch_then_its_results_with_the_true_photo_framed_and_named():
    figure = retrieval_strip(
        [picture(1), picture(10)],
        [[picture(2), picture(3)], [picture(20)]],
        [1, None],
        captions=["a_01", "b_02"],
        titles=[["1: 0.90", "2: 0.80"], ["1: 0.70"]],
    )
    (axes,) = figure.axes
    assert [image.get_array()[0, 0, 0] for image in axes.images] == [1, 2, 3, 10, 20]
    framed = [to_rgba(frame.get_edgecolor())[:3] == to_rgba(TRUE_COLOUR)[:3] for frame in axes.patches]
    assert framed == [False, False, True, False, False]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["a_01", "1: 0.90", "2: 0.80 true", "b_02", "1: 0.70"]
    tops = [image.get_extent()[-1] for image in axes.images]
    assert len(set(tops[:3])) == len(set(tops[3:])) == 1
    assert tops[0] < tops[3]


@pytest.mark.parametrize("count", [0, 2, 12])
def test_a_card_holds_the_whole_sketch_however_few_its_results(count):
    (axes,) = retrieval_card(picture(0), [picture(1)] * count, [""] * count).axes
    assert len(axes.images) == 1 + count
    bottoms = [image.get_extent()[2] for image in axes.images]
    assert max(bottoms) < axes.get_ylim()[0]
