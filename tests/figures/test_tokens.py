"""Figures of patch tokens: what is drawn is what was handed over."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import PathPatch

from sbirlib.errors import InputError
from sbirlib.figures.style import TRUE_COLOUR, png_bytes
from sbirlib.figures.tokens import EVEN_REACH, discard_card, distance_by_layer, heatmaps, token_overlay

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8)
GRID = RNG.random((4, 4))
# As large and as smooth as MiniClothes' own.
LARGE = np.broadcast_to(np.linspace(90, 255, 256).astype(np.uint8)[:, None, None], (256, 256, 3))


def cells(figure):
    """The maps as drawn: images of the page that carry single values, except the colour bars."""
    return [
        image for image in figure.axes[0].images if image.get_array().ndim == 2 and len(image.get_array()) > 1
    ]


def bars(figure):
    return [
        image
        for image in figure.axes[0].images
        if image.get_array().ndim == 2 and len(image.get_array()) == 1
    ]


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_each_map_lies_as_translucent_cells_over_the_grey_picture_on_one_scale():
    maps = [GRID, 2 * GRID, np.array([[0.5], [3.0]])]
    figure = token_overlay(PICTURE, maps, ["one", "two", "three"], heading="a sketch")
    assert texts(figure)[:5] == ["a sketch", "input", "one", "two", "three"]
    shown, *greys = [image.get_array() for image in figure.axes[0].images if image.get_array().ndim == 3]
    np.testing.assert_array_equal(shown, PICTURE)
    assert len(greys) == 3
    assert all((grey == grey[..., :1]).all() for grey in greys)
    for image, values in zip(cells(figure), maps, strict=True):
        np.testing.assert_array_equal(image.get_array(), values)
        assert image.get_clim() == (0, 3)
        assert 0 < image.get_alpha() < 1
        assert image.get_interpolation() == "nearest"
    (bar,) = bars(figure)
    assert bar.get_clim() == (0, 3)
    assert bar.get_cmap().name == cells(figure)[0].get_cmap().name
    assert texts(figure)[5:-1] == ["0", "0.6", "1.2", "1.8", "2.4", "3"]
    assert texts(figure)[-1] == "attention (share of 1)"


def test_maps_may_each_have_a_scale_of_their_own():
    figure = token_overlay(PICTURE, [GRID, 2 * GRID], ["one", "two"], common=False, label="share (%)")
    limits = [(0, GRID.max()), (0, 2 * GRID.max())]
    assert [image.get_clim() for image in cells(figure)] == limits
    assert [bar.get_clim() for bar in bars(figure)] == limits
    # Each bar lies below its map and is as wide.
    for image, bar in zip(cells(figure), bars(figure), strict=True):
        left, right, bottom, _ = image.get_extent()
        assert bar.get_extent()[:2] == pytest.approx((left, right))
        assert bar.get_extent()[3] > bottom
    assert texts(figure)[-1] == "share (%)"


def test_signed_weights_are_centred_on_zero():
    figure = token_overlay(PICTURE, [GRID, -3 * GRID], ["one", "two"], signed=True)
    reach = 3 * GRID.max()
    assert [image.get_clim() for image in cells(figure)] == [(-reach, reach)] * 2
    assert cells(figure)[0].get_cmap().name == "vlag"
    assert "signed weight" in texts(figure)[-1]


@pytest.mark.parametrize("signed", [False, True])
def test_a_map_of_zeros_has_a_scale(signed):
    low, high = cells(token_overlay(PICTURE, [np.zeros((2, 2))], ["none"], signed=signed))[0].get_clim()
    assert low < high


def test_a_cell_without_a_value_stays_empty():
    values = np.array([[np.nan, 1.0], [0.5, 0.25]])
    (image,) = cells(token_overlay(PICTURE, [values], ["one"]))
    assert image.get_clim() == (0, 1)
    assert image.get_array().mask.tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("shape", [(48, 48, 3), (20, 40, 3)])
def test_the_query_patch_is_framed_where_it_lies_in_the_picture(shape):
    figure = token_overlay(np.zeros(shape, np.uint8), [np.ones((2, 5))], ["one"], query=(1, 3))
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    assert (right - left) / (bottom - top) == pytest.approx(shape[1] / shape[0])
    frames = [patch for patch in figure.axes[0].patches if patch.get_width() < (right - left) / 2]
    assert len(frames) == 2
    for frame in frames:
        assert frame.get_x() == pytest.approx(left + 3 * (right - left) / 5)
        assert frame.get_y() == pytest.approx((top + bottom) / 2)
        assert frame.get_width() == pytest.approx((right - left) / 5)
        assert frame.get_height() == pytest.approx((bottom - top) / 2)
    assert "query patch framed" in texts(figure)
    # The cells cover just the picture, whatever its shape.
    ((x0, x1, y0, y1),) = [image.get_extent() for image in cells(figure)]
    assert (y0, y1) == pytest.approx((bottom, top))
    assert x1 - x0 == pytest.approx(right - left)


def test_maps_go_on_in_the_next_row():
    figure = token_overlay(PICTURE, [GRID] * 3, ["one", "two", "three"], columns=2)
    corners = [(image.get_extent()[0], image.get_extent()[3]) for image in cells(figure)]
    (first, high), (second, low), (third, low_too) = corners
    assert low == low_too > high
    assert second < first == third


def test_a_large_picture_is_drawn_no_larger_than_it_is_seen():
    large = np.zeros((1200, 600, 3), np.uint8)
    shown = token_overlay(large, [GRID], ["one"], side=1.5).axes[0].images[0].get_array()
    assert shown.shape == (300, 150, 3)


def test_pictures_of_fractions_are_drawn_like_those_of_bytes():
    shown = token_overlay(PICTURE / 255, [GRID], ["one"]).axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown, PICTURE)


@pytest.mark.parametrize(
    ("maps", "titles", "query", "words"),
    [
        ([GRID], ["one", "two"], None, "1 maps and 2 titles"),
        ([], [], None, "0 maps"),
        ([GRID.ravel()], ["one"], None, "shape (16,)"),
        ([GRID], ["one"], (4, 0), "outside the grid (4, 4)"),
    ],
)
def test_maps_that_do_not_fit_are_refused(maps, titles, query, words):
    with pytest.raises(InputError) as error:
        token_overlay(PICTURE, maps, titles, query=query)
    assert words in str(error.value)


def test_distances_by_layer_show_every_head_their_mean_and_their_variance():
    distances = {
        "with": np.array([[10.0, 20.0], [30.0, 60.0]]),
        "without": np.array([[5.0, 5.0], [6.0, 8.0]]),
    }
    figure = distance_by_layer(distances, pixels=100)
    figure.canvas.draw()
    left, right = figure.axes
    heads, mean, _, other_mean, even = left.lines
    assert heads.get_ydata().tolist() == [10, 20, 30, 60]
    assert mean.get_ydata().tolist() == [15, 45]
    assert other_mean.get_ydata().tolist() == [5, 7]
    # Dots stand at their layer, those of the models side by side.
    assert np.round(mean.get_xdata()).tolist() == np.round(other_mean.get_xdata()).tolist() == [1, 2]
    assert (mean.get_xdata() < other_mean.get_xdata()).all()
    assert heads.get_xdata().tolist() == np.repeat(mean.get_xdata(), 2).tolist()
    assert set(even.get_ydata()) == {EVEN_REACH * 100}
    assert [line.get_ydata().tolist() for line in right.lines] == [[25, 225], [0, 1]]
    assert mean.get_marker() != other_mean.get_marker()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "with: mean of heads",
        "without: mean of heads",
        "attention spread evenly",
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "mean attention distance (px)",
        "variance over heads (px²)",
    ]
    assert {axes.get_xlabel() for axes in figure.axes} == {"layer"}


def test_even_attention_reaches_about_half_the_side():
    points = RNG.random((2, 20000, 2))
    assert np.linalg.norm(points[0] - points[1], axis=1).mean() == pytest.approx(EVEN_REACH, abs=0.01)


def test_distances_without_heads_are_refused():
    with pytest.raises(InputError, match="with: distances of shape"):
        distance_by_layer({"with": np.ones(3)}, pixels=224)


def test_matrices_share_one_scale_and_one_bar_and_go_on_in_the_next_row():
    before, after = np.eye(4), np.array([[1.0, -0.5], [-0.5, 1.0]])
    matrices = {"before\nvariance 0.1875": before, "after": after, "a third": np.eye(2)}
    figure = heatmaps(matrices, label="cosine", side="patch token", columns=2)
    figure.canvas.draw()
    *panels, bar = [axes for axes in figure.axes if axes.images or axes.get_ylabel()]
    assert {axes.images[0].get_clim() for axes in panels} == {(-0.5, 1)}
    assert [axes.get_title() for axes in panels] == list(matrices)
    np.testing.assert_array_equal(panels[0].images[0].get_array(), before)
    assert bar.get_ylabel() == "cosine"
    assert {(axes.get_xlabel(), axes.get_ylabel()) for axes in panels} == {("patch token", "patch token")}
    tops = [axes.get_position().y1 for axes in panels]
    assert tops[0] == pytest.approx(tops[1])
    assert tops[2] < tops[0]


def test_a_matrix_that_is_not_square_is_refused():
    with pytest.raises(InputError, match="tokens: a matrix of shape .2, 3. is not square"):
        heatmaps({"tokens": np.ones((2, 3))}, label="cosine", side="patch token")


def test_discarded_tokens_are_hatched_out_and_the_true_photo_is_framed():
    kept = np.array([[True, False], [False, True]])
    photos = [np.full((8, 8, 3), value, np.uint8) for value in (1, 2, 3)]
    figure = discard_card(
        PICTURE, kept, photos, ["1", "2 true", "3"], true_place=1, heading="a sketch", columns=2
    )
    axes = figure.axes[0]
    sketch, *results = axes.images
    np.testing.assert_array_equal(sketch.get_array(), PICTURE)
    assert [image.get_array()[0, 0, 0] for image in results] == [1, 2, 3]
    assert sketch.get_extent()[1] - sketch.get_extent()[0] > 2 * np.ptp(results[0].get_extent()[:2])
    (out,) = [patch for patch in axes.patches if isinstance(patch, PathPatch)]
    assert out.get_hatch()
    left, right, bottom, top = sketch.get_extent()
    wide, high = (right - left) / 2, (bottom - top) / 2
    for row in (0, 1):
        for column in (0, 1):
            centre = (left + (column + 0.5) * wide, top + (row + 0.5) * high)
            assert out.get_path().contains_point(centre) == (not kept[row, column])
    framed = [
        patch.get_xy()[0]
        for patch in axes.patches
        if not isinstance(patch, PathPatch) and to_rgba(patch.get_edgecolor())[:3] == to_rgba(TRUE_COLOUR)[:3]
    ]
    assert framed == [results[1].get_extent()[0]]
    assert texts(figure) == ["a sketch", "query sketch: 2 of 4 patch tokens kept", "1", "2 true", "3"]


def test_nothing_is_hatched_where_every_token_is_kept():
    figure = discard_card(PICTURE, np.ones((2, 2)), [PICTURE], ["1"])
    (out,) = [patch for patch in figure.axes[0].patches if isinstance(patch, PathPatch)]
    assert not len(out.get_path().vertices)
    assert len(png_bytes(figure)) > 1000


def test_a_flat_list_of_kept_tokens_is_refused():
    with pytest.raises(InputError, match="grid"):
        discard_card(PICTURE, np.ones(4), [PICTURE], ["1"])
