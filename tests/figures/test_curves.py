"""Curves of runs: what is drawn is what was handed over."""

import numpy as np
import pytest
from matplotlib import rc_context

from sbirlib.figures.curves import interval_plot
from sbirlib.figures.photos import image_grid
from sbirlib.figures.tokens import discard_curves
from sbirlib.retrieval.scores import accuracy_of


def legend(figure):
    """Text by entry of the figure's legend, laid out and rendered."""
    figure.canvas.draw()
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_curves_run_through_their_accuracies_with_the_interval_around_them():
    falling = [accuracy_of(hits, 20) for hits in (16, 10, 4)]
    figure = discard_curves([25, 50, 100], {"least attended": falling[::-1], "random": falling})
    assert legend(figure) == ["least attended", "random"]
    (axes,) = figure.axes
    assert axes.lines[0].get_xydata().tolist() == [[25, 20], [50, 50], [100, 80]]
    band = axes.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(band[:, 1].min(), falling[2].low)
    np.testing.assert_allclose(band[:, 1].max(), falling[0].high)
    assert axes.lines[0].get_marker() != axes.lines[1].get_marker()
    assert "%" in axes.get_xlabel()
    assert "% of queries" in axes.get_ylabel()


def test_a_row_holds_its_value_its_interval_and_single_points():
    (axes,) = interval_plot(["tokens", "batch"], [20.0, 21.0], points=[[0.0, 0.0], [3.0, 4.0]]).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["tokens", "batch"]
    dots = [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]
    assert dots[:3] == [([0, 0], [0, 0]), ([3, 4], [1, 1]), ([20, 21], [0, 1])]
    (axes,) = interval_plot(["one", "none"], [20.0, 21.0], [15.0, np.nan], [30.0, np.nan]).axes
    (bars,) = axes.collections
    assert bars.get_segments()[0].tolist() == [[15, 0], [30, 0]]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_dollar_in_a_name_is_a_dollar(ending, tmp_path):
    names, percent = [r"a$\frac$b", "$x^2$"], [10.0, 20.0]
    figures = [
        image_grid(np.zeros((2, 9, 9, 3)), names),
        interval_plot(names, percent, percent, percent),
        discard_curves([100], {name: [accuracy_of(1, 20)] for name in names}),
    ]
    with rc_context({"svg.fonttype": "none"}):  # text as text
        for figure in figures:
            figure.savefig(tmp_path / f"a.{ending}")
            if ending == "svg":
                assert all(f">{name}</text>" in (tmp_path / "a.svg").read_text() for name in names)
