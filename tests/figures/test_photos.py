"""Pictures in rows: what is drawn is what was handed over."""

import numpy as np
import pytest

from sbirlib.figures.photos import retrieval_card


def picture(value, shape=(10, 8)):
    return np.full((*shape, 3), value, dtype=np.uint8)


@pytest.mark.parametrize("count", [0, 2, 12])
def test_a_card_holds_the_whole_sketch_however_few_its_results(count):
    (axes,) = retrieval_card(picture(0), [picture(1)] * count, [""] * count).axes
    assert len(axes.images) == 1 + count
    bottoms = [image.get_extent()[2] for image in axes.images]
    assert max(bottoms) < axes.get_ylim()[0]
