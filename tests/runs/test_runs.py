import errno
import math
import shutil

import pytest
import torch
from safetensors.torch import save_model

from sbirlib import Config
from sbirlib.cli.app import main
from sbirlib.config.config import differing_settings
from sbirlib.figures.curves import training_curves
from sbirlib.methods.catalogue import build
from sbirlib.runs.atomic import RunError, write_csv
from sbirlib.runs.folder import Run
from sbirlib.runs.model import load_model_folder, save_model_folder
from sbirlib.runs.records import HELD_OUT, WEIGHTS, EpochRecord
from sbirlib.runs.state import Progress, load_state, save_state


def test_a_run_is_read_back(run, tiny):
    read = Run(run)
    history = read.history()
    assert history["epoch"] == [1, 2]
    assert history["selected_on"] == ["held-out photos"] * 2
    assert 0 <= history["val_acc@1"][0] <= 100
    assert len(training_curves(history).axes) == 2
    assert read.epochs == 2
    assert read.config() == Run(run / "best").config()
    assert read.config().run.epochs == tiny.run.epochs
    assert read.start()["method"] == "arnet"


def test_epochs_that_measured_nothing_are_nan(tmp_path):
    rows = [EpochRecord(1, {}, 0, 0, 1, {}, True, HELD_OUT).as_row()]
    rows.append(rows[0] | {"epoch": 2, "val_acc@1": 5.5})
    rows[0]["val_acc@1"] = ""
    write_csv(tmp_path / "history.csv", rows)
    history = Run(tmp_path).history()
    assert math.isnan(history["val_acc@1"][0])
    assert history["val_acc@1"][1] == 5.5


def test_a_history_that_cannot_be_read_is_named(run, tmp_path, capsys):
    whole = (run / "history.csv").read_text()
    shutil.copytree(run, tmp_path / "run")
    for text, reason in (
        ("", "it holds no epoch"),
        ("\0" * 4096, ""),
        (whole.splitlines()[0], "it holds no epoch"),
        ("epoch,best\n1,high\n", "high"),
        ("epoch,best\n1,1\n", "it holds no .*seconds.*skipped"),
        (whole[: whole.rindex(",")], "an epoch in it is not complete"),
        (whole.replace("\n2,", "\ninf,"), "an epoch in it is not complete"),
    ):
        (tmp_path / "run" / "history.csv").write_text(text)
        with pytest.raises(
            RunError, match=rf"run/history.csv: cannot be read .*{reason}.*leave this run out"
        ):
            Run(tmp_path / "run").history()
        assert main(["report", str(tmp_path / "run")]) == 2
        assert "history.csv: cannot be read" in capsys.readouterr().err


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(RunError, match="history.csv: no such file"):
        Run(tmp_path).history()
    with pytest.raises(RunError, match=r"is not a run: it has no config\.yaml"):
        Run(tmp_path).config()


def test_only_fields_that_differ_are_listed():
    mini = Config.preset("mini").updated({"optim.lr": 2e-3})
    changed = mini.updated({"optim.lr": 1e-4, "mstr.scales": (1,)})
    assert differing_settings([mini, changed, mini]) == {
        "mstr.scales": [(1, 2, 4), (1,), (1, 2, 4)],
        "optim.lr": [2e-3, 1e-4, 2e-3],
    }
    assert differing_settings([mini, mini]) == {}
    other = differing_settings([mini, mini.updated({"method": "b_siamese"})])
    assert other["method"] == ["arnet", "b_siamese"]
    assert other["mstr.enabled"] == [False, None]
    assert other["b_siamese.margin"] == [None, 0.3]


@pytest.fixture(params=[False, True], ids=["two encoders", "one encoder"])
def resnet(request):
    """A ResNet, whose BatchNorm has numbers beside its weights, in channels-last order, and its config."""
    config = Config.preset("mini").updated(
        {"model.backbone": "test_resnet", "model.image_size": 64, "model.share_encoders": request.param}
    )
    model = build(config).to(memory_format=torch.channels_last)
    pictures = torch.rand(2, 3, 64, 64)
    model.embed_sketches(pictures), model.embed_photos(pictures)
    return model.eval(), config


def assert_same_weights(one, other):
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(list(one.buffers())) == len(list(other.buffers()))


def test_weights_of_any_order_in_memory_are_read_back(resnet, tmp_path):
    model, config = resnet
    save_model_folder(tmp_path / "best", model, config)
    loaded = load_model_folder(tmp_path / "best")
    assert_same_weights(model, loaded)
    pictures = torch.rand(2, 3, 64, 64)
    for embed in ("embed_sketches", "embed_photos"):
        torch.testing.assert_close(getattr(model, embed)(pictures), getattr(loaded, embed)(pictures))


def test_a_checkpoint_of_any_order_in_memory_is_read_back(resnet, tmp_path):
    model, config = resnet
    save_state(tmp_path, model, config, Progress(epoch=2), {"schedule": 5})
    again = build(config)
    progress, rest = load_state(tmp_path, config, again)
    assert (progress.epoch, rest) == (2, {"schedule": 5})
    assert_same_weights(model, again)


def test_weights_are_read_under_any_of_their_names(resnet, tmp_path):
    model, config = resnet
    model.to(memory_format=torch.contiguous_format)
    save_model_folder(tmp_path / "best", model, config)
    save_model(model, str(tmp_path / "best" / WEIGHTS), metadata={"queries": "0"})
    assert_same_weights(model, load_model_folder(tmp_path / "best"))


def test_weights_that_cannot_be_read_are_not_called_damaged(run, monkeypatch):
    def refused(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("sbirlib.layers.weights.load_state_dict", refused)
    with pytest.raises(RunError, match=r"model\.safetensors: cannot be read \(Permission denied\)"):
        load_model_folder(run / "best")
