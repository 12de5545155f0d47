"""Curves of runs: what is drawn is what was handed over."""

import math

import numpy as np
import pytest
from matplotlib import rc_context

from sbirlib.figures.curves import interval_plot, training_curves
from sbirlib.figures.photos import image_grid


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
    figures = [image_grid(np.zeros((2, 9, 9, 3)), names), interval_plot(names, percent, percent, percent)]
    with rc_context({"svg.fonttype": "none"}):  # text as text
        for figure in figures:
            figure.savefig(tmp_path / f"a.{ending}")
            if ending == "svg":
                assert all(f">{name}</text>" in (tmp_path / "a.svg").read_text() for name in names)


def test_a_reward_below_0_and_a_run_with_one_term_and_no_search_are_drawn_whole():
    rows = {"epoch": [1, 2], "loss_total": [1.0, -0.5], "best": [0, 0], "selected_on": ["nothing"] * 2}
    rows |= {"val_acc@1": [math.nan] * 2}
    for history in (rows, rows | {"loss_policy": [0.2, -0.5], "loss_triplet": [0.8, 0.0]}):
        left = training_curves(history).axes[0]
        low, high = left.get_ylim()
        assert low < -0.5
        assert high > 0.2
        assert left.get_ylabel() == "loss"
