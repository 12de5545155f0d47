"""Curves of runs: what is drawn is what was handed over."""

import numpy as np
import pytest
from matplotlib import rc_context

from sbirlib.figures.curves import accuracy_by_epoch, interval_plot
from sbirlib.figures.photos import image_grid
from sbirlib.figures.style import save_figure
from sbirlib.figures.tokens import discard_curves
from sbirlib.retrieval.scores import accuracy_of


def legend(figure):
    """Text by entry of the figure's legend, laid out and rendered."""
    figure.canvas.draw()
    return [text.get_text() for text in figure.legends[0].get_texts()]


def history(percent, kept=None, k=1):
    """Columns of history.csv; the epoch `kept` became best."""
    epochs = list(range(1, len(percent) + 1))
    best, where = [int(epoch == kept) for epoch in epochs], ["held-out photos"] * len(epochs)
    return {"epoch": epochs, f"val_acc@{k}": percent, "best": best, "selected_on": where}


def test_runs_are_drawn_where_they_were_measured_and_the_kept_epoch_is_marked():
    one, two = history([10.0, float("nan"), 30.0, 20.0], kept=3), history([5.0, 7.5])
    figure = accuracy_by_epoch({"with": one, "without": two})
    assert legend(figure) == ["with: kept epoch 3, 30.0 %", "without"]
    (axes,) = figure.axes
    first, star, second = axes.lines
    assert first.get_xydata().tolist() == [[1, 10], [3, 30], [4, 20]]
    assert star.get_xydata().tolist() == [[3, 30]]
    assert star.get_marker() == "*"
    assert second.get_xydata().tolist() == [[1, 5], [2, 7.5]]
    assert all(
        first_ != second_
        for first_, second_ in (
            (first.get_color(), second.get_color()),
            (first.get_marker(), second.get_marker()),
            (first.get_linestyle(), second.get_linestyle()),
        )
    )
    assert "held-out photos" in axes.get_title(loc="left")
    assert axes.get_xlabel() == "epoch"
    assert axes.get_ylabel() == "Acc@1 (% of queries)"


def test_another_k_reads_another_column():
    run = history([20.0, 40.0], k=5)
    (axes,) = accuracy_by_epoch({"run": run}, k=5).axes
    assert axes.lines[0].get_ydata().tolist() == [20, 40]
    assert axes.get_ylabel().startswith("Acc@5")


def test_a_long_run_does_not_drown_in_markers():
    (axes,) = accuracy_by_epoch({"run": history(np.linspace(0, 80, 500))}).axes
    assert 500 / axes.lines[0].get_markevery() <= 30


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
        accuracy_by_epoch(dict.fromkeys(names, history([5.0]))),
    ]
    with rc_context({"svg.fonttype": "none"}):  # text as text
        for figure in figures:
            save_figure(figure, tmp_path / f"a.{ending}")
            if ending == "svg":
                assert all(f">{name}</text>" in (tmp_path / "a.svg").read_text() for name in names)
