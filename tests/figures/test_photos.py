"""Pictures in rows: what is drawn is what was handed over."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from sbirlib.errors import InputError
from sbirlib.figures.photos import failure_gallery, retrieval_card
from sbirlib.figures.style import TRUE_COLOUR


def picture(value, shape=(10, 8)):
    return np.full((*shape, 3), value, dtype=np.uint8)


def test_failures_show_sketch_then_true_photo_framed_then_what_came_before():
    figure = failure_gallery(
        [picture(1), picture(10)],
        [picture(2), picture(20)],
        [[picture(3)], [picture(30), picture(31)]],
        [2, 9],
        captions=["a_01", "b_02"],
    )
    (axes,) = figure.axes
    assert [image.get_array()[0, 0, 0] for image in axes.images] == [1, 2, 3, 10, 20, 30, 31]
    framed = [to_rgba(frame.get_edgecolor())[:3] == to_rgba(TRUE_COLOUR)[:3] for frame in axes.patches]
    assert framed == [False, True, False, False, True, False, False]
    texts = [text.get_text() for text in axes.texts]
    assert texts == [
        "found before it, best first",
        "a_01",
        "true photo: rank 2",
        "1",
        "b_02",
        "true photo: rank 9",
        "1",
        "2",
        "and 6\nmore",
    ]
    extents = [image.get_extent() for image in axes.images]
    tops = [top for *_, top in extents]
    assert len(set(np.round(tops[:3], 6))) == len(set(np.round(tops[3:], 6))) == 1
    assert tops[0] < tops[3]
    assert [left for left, *_ in extents[3:]] == sorted(left for left, *_ in extents[3:])


def test_more_photos_than_the_rank_allows_are_refused():
    with pytest.raises(InputError, match="row 0: 2 photos cannot stand before one of rank 2"):
        failure_gallery([picture(0)], [picture(0)], [[picture(0)] * 2], [2])


def test_no_failures_are_said_so():
    assert "no failures" in failure_gallery([], [], [], []).texts[0].get_text()


@pytest.mark.parametrize("count", [0, 2, 12])
def test_a_card_holds_the_whole_sketch_however_few_its_results(count):
    (axes,) = retrieval_card(picture(0), [picture(1)] * count, [""] * count).axes
    assert len(axes.images) == 1 + count
    bottoms = [image.get_extent()[2] for image in axes.images]
    assert max(bottoms) < axes.get_ylim()[0]
