import math

import pytest

from sbirlib import Config
from sbirlib.figures.curves import training_curves
from sbirlib.runs.atomic import RunError
from sbirlib.runs.history import differences, find_runs, read_config, read_history, short_names


def test_a_runs_curves_are_read_back(run, tiny):
    history = read_history(run)
    assert history["epoch"] == [1, 2]
    assert history["selected_on"] == ["held-out photos"] * 2
    assert 0 <= history["val_acc@1"][0] <= 100
    assert len(training_curves(history).axes) == 2
    assert read_config(run) == read_config(run / "best")
    assert read_config(run).run.epochs == tiny.run.epochs
    assert find_runs(run.parent) == [run]


def test_epochs_that_measured_nothing_are_nan(tmp_path):
    (tmp_path / "history.csv").write_text(
        "epoch,val_acc@1,selected_on\n1,,held-out photos\n2,5.5,held-out photos\n"
    )
    assert math.isnan(read_history(tmp_path)["val_acc@1"][0])
    assert read_history(tmp_path)["val_acc@1"][1] == 5.5


@pytest.mark.parametrize(
    ("text", "reason"), [("epoch,best\n1,high\n", "cannot be read"), (None, "no such file")]
)
def test_what_cannot_be_read_is_named(tmp_path, text, reason):
    if text is not None:
        (tmp_path / "history.csv").write_text(text)
    with pytest.raises(RunError, match=f"history.csv: {reason}"):
        read_history(tmp_path)
    with pytest.raises(RunError, match="is not a run: it has no config.yaml"):
        read_config(tmp_path)


def test_only_fields_that_differ_are_listed():
    mini = Config.preset("mini").updated({"optim.lr": 2e-3})
    changed = mini.updated({"optim.lr": 1e-4, "mstr.scales": (1,)})
    assert differences({"a": mini, "b": changed, "c": mini}) == {
        "mstr.scales": {"a": (1, 2, 4), "b": (1,), "c": (1, 2, 4)},
        "optim.lr": {"a": 2e-3, "b": 1e-4, "c": 2e-3},
    }
    assert differences({"a": mini, "b": mini}) == {}


def test_names_are_as_long_as_it_takes_to_tell_runs_apart(tmp_path):
    runs = [tmp_path / "one" / "run-01", tmp_path / "two" / "run-01", tmp_path / "two" / "run-02"]
    assert short_names(runs) == dict(zip(("one/run-01", "two/run-01", "two/run-02"), runs, strict=True))
    assert list(short_names(runs[1:])) == ["run-01", "run-02"]
    assert short_names([]) == {}
