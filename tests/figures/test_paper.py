"""Figures of notebook 05: what is drawn is what was handed over."""

from itertools import pairwise

import numpy as np
import pytest

from sbirlib.figures.paper import cell_pictures, chosen_epoch, histograms, moved_bars, rank_pairs


def drawn(figure):
    """The figure's panels, laid out and rendered, so that a label that cannot be drawn shows up here."""
    figure.canvas.draw()
    return figure.axes


def labels_overlap(figure):
    boxes = [
        text.get_window_extent()
        for axes in drawn(figure)
        for text in (axes.title, axes.xaxis.label)
        if text.get_text()
    ]
    return any(one.overlaps(two) for i, one in enumerate(boxes) for two in boxes[:i])


def test_rank_pairs_count_the_ranks_that_differ():
    first, second = np.array([1, 2, 3, 4]), np.array([1, 2, 4, 3])
    figure = rank_pairs({"again": (first, second), "loaded": (first, first)}, gallery=5)
    again, loaded = drawn(figure)
    assert again.get_title() == "again:\n50% of 4 ranks differ"
    assert loaded.get_title() == "loaded:\n0% of 4 ranks differ"
    assert again.lines[1].get_xydata().tolist() == [[1, 1], [2, 2], [3, 4], [4, 3]]
    assert not labels_overlap(figure)


def test_bars_show_how_far_each_part_moved_and_name_the_zero():
    (axes,) = drawn(moved_bars(["backbone", "mix"], {"on": [2.5, 1.0], "off": [2.0, 0.0]}))
    assert [bar.get_height() for bar in axes.patches] == [2.5, 1.0, 2.0, 0.0]
    assert [text.get_text() for text in axes.texts] == ["2.5", "1.0", "2.0", "0"]
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
    assert all(right <= left for (_, right), (left, _) in pairwise(edges))


def test_cells_are_outlined_and_those_of_the_chosen_patches_coloured():
    windows = np.kron([[0, 1], [2, 3]], np.ones((2, 2), dtype=int))
    strips = np.arange(16).reshape(4, 4) // 4
    image = np.full((40, 40, 3), 200, dtype=np.uint8)
    first, second = drawn(
        cell_pictures(image, {"windows": windows, "strips": strips}, [(0, 0), (3, 3)], columns=2)
    )
    assert first.get_title() == "windows: 4 cells"
    for axes, numbers in ((first, windows), (second, strips)):
        tint = axes.images[1].get_array()
        coloured = tint[..., 3] > 0
        np.testing.assert_array_equal(coloured, np.isin(numbers, (0, 3)))
        assert (tint[0, 0] != tint[3, 3]).any()
    # Windows are cut once each way, along four patches; strips have three lines down the page, none across.
    sides = [[len(lines.get_segments()) for lines in axes.collections] for axes in (first, second)]
    assert sides == [[4, 4], [0, 12]]


def test_chosen_epoch_marks_the_best_and_the_mean_of_the_last():
    (axes,) = drawn(chosen_epoch([1, 2, 3, 5], [10.0, 60.0, 50.0, 52.0], last=2))
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[1:] == ["mean of the last 2 epochs: 51.0", "best epoch, 2: 60.0"]
    assert axes.lines[1].get_xydata().tolist() == [[2, 60]]
    assert axes.collections[0].get_segments()[0].tolist() == [[3, 51], [5, 51]]
    assert axes.get_ylim()[1] > 60


def test_histograms_hold_every_repetition_on_common_bins():
    scores = {"reported": np.array([75.0, 76.0, 76.2]), "fresh": np.array([70.0, 71.0, 70.1])}
    labels = dict(xlabel="Acc@1 (% of queries)", ylabel="repetitions")
    (axes,) = drawn(histograms(scores, mark=75.4, mark_name="in the paper", **labels))
    steps = [patch.get_path().vertices for patch in axes.patches]
    assert [max(step[:, 1]) for step in steps] == [2, 2]
    assert {tuple(np.unique(step[:, 0])) for step in steps} == {tuple(np.arange(69.5, 77.6))}
    assert axes.lines[0].get_xdata()[0] == 75.4
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "reported: mean 75.7",
        "fresh: mean 70.4",
        "in the paper: 75.4",
    ]


@pytest.mark.parametrize(
    "figure",
    [
        moved_bars(["a"], {"on": [1.0]}),
        chosen_epoch([1, 2], [1.0, 2.0]),
        rank_pairs({"a": (np.array([1]), np.array([1]))}, 3),
        histograms({"a": [1.0, 2.0]}, mark=1, mark_name="m", xlabel="x", ylabel="y"),
    ],
)
def test_a_notebook_shows_a_figure_with_its_axes_labelled(figure):
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert all(axes.get_ylabel() or axes.get_yticklabels()[0].get_text() for axes in figure.axes)
    assert all(axes.get_xlabel() or axes.get_xticklabels()[0].get_text() for axes in figure.axes)
