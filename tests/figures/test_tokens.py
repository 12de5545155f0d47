"""Figures of patch tokens: what is drawn is what was handed over."""

import numpy as np
import pytest

from sbirlib.figures import token_overlay

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8)
GRID = RNG.random((4, 4))


def overlaid(*args, **options):
    """The page, its pictures with the input first, its maps and the colour bar of a token overlay."""
    page, bar = (figure := token_overlay(*args, **options)).axes
    figure.canvas.draw()
    count = (len(page.images) + 1) // 2
    return page, page.images[:count], page.images[count:], bar


def texts_of(page):
    return [text.get_text() for text in page.texts]


def test_each_map_lies_as_translucent_cells_over_the_grey_picture_on_one_scale():
    maps = [GRID, 2 * GRID, np.array([[0.5], [3.0]])]
    page, (first, *grounds), cells, bar = overlaid(PICTURE, maps, ["one", "two", "three"], heading="a sketch")
    assert texts_of(page) == ["a sketch", "input", "one", "two", "three"]
    np.testing.assert_array_equal(first.get_array(), PICTURE)
    for ground, image, values in zip(grounds, cells, maps, strict=True):
        grey = ground.get_array()
        assert np.ptp(grey, axis=2).max() == 0
        assert abs(grey[..., 0] - PICTURE @ [0.299, 0.587, 0.114]).max() <= 1
        assert image.get_extent() == ground.get_extent()
        np.testing.assert_array_equal(image.get_array(), values)
        assert image.get_clim() == (0, 3)
        assert 0 < image.get_alpha() < 1
    assert bar.get_xlim() == (0, 3)
    assert bar.get_xlabel() == "attention (share of 1)"


def test_a_map_of_zeros_has_a_scale():
    *_, [cells], _ = overlaid(PICTURE, [np.zeros((2, 2))], ["none"])
    low, high = cells.get_clim()
    assert low < high


@pytest.mark.parametrize("shape", [(48, 48, 3), (20, 40, 3)])
def test_the_query_patch_is_framed_where_it_lies_in_the_picture(shape):
    page, (first, _), *_ = overlaid(np.zeros(shape, np.uint8), [np.ones((2, 5))], ["one"], query=(1, 3))
    left, right, bottom, top = first.get_extent()
    frames = page.patches[2:]  # after those of the pictures
    assert len(frames) == 2
    for frame in frames:
        assert frame.get_x() == pytest.approx(left + 3 * (right - left) / 5)
        assert frame.get_y() == pytest.approx((top + bottom) / 2)
        assert frame.get_width() == pytest.approx((right - left) / 5)
        assert frame.get_height() == pytest.approx((bottom - top) / 2)
    assert "query patch framed" in texts_of(page)


def test_maps_go_on_in_the_next_row():
    _, pictures, *_ = overlaid(PICTURE, [GRID] * 7, list("abcdefg"))
    input_, a, *_, e, f, _ = [picture.get_extent() for picture in pictures]
    assert e[2:] == a[2:]
    assert e[2] < f[3]
    assert input_[:2] == f[:2]
