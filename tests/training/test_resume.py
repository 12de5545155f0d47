"""A run that was stopped goes on as if nothing had happened; whatever breaks, the last good state is kept."""

import csv
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import timm
import torch
from safetensors.torch import load_file
from tools.trainers import trainer_of

from sbirlib import Config, load_run, train
from sbirlib.cli.app import main
from sbirlib.errors import ConfigError
from sbirlib.layers.backbone import Backbone, BackboneError
from sbirlib.runs.atomic import RunError, replacing, settled
from sbirlib.runs.folder import Run
from sbirlib.runs.state import CheckpointWarning, Progress, load_state
from sbirlib.training.signals import Stop
from sbirlib.training.trainer import Trainer

TIMING = ("seconds", "views_per_second")


@pytest.fixture(scope="module")
def config(tiny, pairs):
    """Three epochs of three steps, with all that draws random numbers: dropout and stochastic depth."""
    return tiny.updated(
        {
            "mstr.enabled": True,
            "mstr.scales": (1, 2),
            "run.epochs": 3,
            "model.drop_path": 0.2,
            "optim.batch_size": 6,
            "data.root": str(pairs.root),
            "run.save_minutes": 0,
        }
    )


@pytest.fixture(scope="module")
def whole(config, pairs, tmp_path_factory):
    """The run that nobody interrupts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert len(list(train(pairs, config, out=out))) == 3
    return out


def history(run):
    with (run / "history.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in TIMING} for row in csv.DictReader(file)
        ]


def assert_same_run(one, other):
    """Weights, history, optimiser, schedule and random numbers are equal bit for bit."""
    for name in ("best", "last"):
        first, second = (load_file(run / name / "model.safetensors") for run in (one, other))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert history(one) == history(other)
    assert_equal(
        *(
            torch.load(Run(run).checkpoints[-1] / "trainer.pt", weights_only=True)["rest"]
            for run in (one, other)
        )
    )


def assert_equal(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_equal(first, second)
    else:
        assert one == other


def stop_after(monkeypatch, steps, action):
    """Does `action` within the step of this number, counted from 1 over the whole run."""
    # By its name: `sbirlib.train` is the function.
    module = sys.modules[Trainer.__module__]
    original, count = module.backward, []

    def backward(*args):
        count.append(1)
        if len(count) == steps:
            action()
        return original(*args)

    monkeypatch.setattr(module, "backward", backward)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_a_run_stopped_at_any_step_goes_on_exactly(whole, config, pairs, tmp_path, monkeypatch, steps):
    stop, out = Stop(), tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, steps, lambda: stop.ask(now=True))
        # The step under way is finished; at the end of an epoch so is the epoch.
        assert len(list(train(pairs, config, out=out, stop=stop))) == steps // 3
    # Whatever happened to the random numbers in between does not matter.
    torch.manual_seed(99)
    records = list(train(pairs, config, out=out, resume=True))
    assert [record.epoch for record in records] == list(range(steps // 3 + 1, 4))
    assert_same_run(whole, out)


def test_an_iteration_that_is_closed_between_epochs_goes_on_exactly(whole, config, pairs, tmp_path):
    records = train(pairs, config.updated({"run.save_minutes": 60}), out=tmp_path / "run")
    next(records)
    records.close()
    assert [path.name for path in Run(tmp_path / "run").checkpoints] == ["000002-000000"]
    list(train(pairs, config, out=tmp_path / "run", resume=True))
    assert_same_run(whole, tmp_path / "run")


def test_an_interrupt_waits_for_the_step_leaves_a_checkpoint_and_comes_through(
    whole, config, pairs, tmp_path, monkeypatch
):
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        stop_after(patch, 5, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            list(train(pairs, config, out=tmp_path / "run"))
    assert signal.getsignal(signal.SIGINT) is before
    assert Run(tmp_path / "run").checkpoints[-1].name == "000002-000002"
    list(train(pairs, config, out=tmp_path / "run", resume=True))
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.parametrize("steps", [2, 4])
def test_a_second_interrupt_does_not_wait_and_spoils_no_checkpoint(
    whole, config, pairs, tmp_path, monkeypatch, steps
):
    def twice():
        torch.rand(1)  # as dropout does before the step is cut
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    with monkeypatch.context() as patch:
        stop_after(patch, steps, twice)
        with pytest.raises(KeyboardInterrupt):
            list(train(pairs, config, out=tmp_path / "run"))
    assert Run(tmp_path / "run").checkpoints[-1].name == {2: "000001-000001", 4: "000002-000000"}[steps]
    list(train(pairs, config, out=tmp_path / "run", resume=True))
    assert_same_run(whole, tmp_path / "run")


def test_a_run_stopped_before_its_first_step_goes_on(whole, config, pairs, tmp_path):
    stop = Stop()
    stop.ask(now=True)
    assert list(train(pairs, config, out=tmp_path / "run", stop=stop)) == []
    assert [path.name for path in Run(tmp_path / "run").checkpoints] == ["000001-000000"]
    list(train(pairs, config, out=tmp_path / "run", resume=True))
    assert_same_run(whole, tmp_path / "run")


def test_what_a_run_began_from_is_written_once(config, pairs, tmp_path, monkeypatch):
    records = train(pairs, config, out=tmp_path / "run")
    next(records)
    records.close()
    before = (tmp_path / "run" / "start.yaml").read_bytes()
    monkeypatch.setattr("sbirlib.training.files.RunFiles.begin", lambda *_: pytest.fail("written again"))
    list(train(pairs, config, out=tmp_path / "run", resume=True))
    assert (tmp_path / "run" / "start.yaml").read_bytes() == before


def test_a_disk_that_is_full_while_an_epoch_is_kept_leaves_it_to_be_done_again(
    whole, config, pairs, tmp_path, monkeypatch
):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    records = train(pairs, config, out=tmp_path / "run")
    next(records)
    with monkeypatch.context() as patch:
        patch.setattr("sbirlib.config.config.Config.to_yaml", full)
        with pytest.raises(RunError, match="last cannot be written"):
            next(records)
    # The epoch is not done before its model is on the disk.
    assert Run(tmp_path / "run").checkpoints[-1].name == "000002-000003"
    list(train(pairs, config, out=tmp_path / "run", resume=True))
    assert_same_run(whole, tmp_path / "run")


def test_leftovers_of_a_killed_save_are_cleared_away(config, pairs, tmp_path):
    records = train(pairs, config, out=tmp_path / "run")
    next(records)
    (tmp_path / "run" / "state" / ".000009-000009.new").mkdir()
    next(records)
    assert not list((tmp_path / "run" / "state").glob(".*"))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", ["model.safetensors", "trainer.pt", "checksums.json"])
@pytest.mark.parametrize("damage", [flip, cut, os.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_is_passed_over_and_named(whole, config, pairs, tmp_path, name, damage):
    shutil.copytree(whole, tmp_path / "run")
    newest, older = Run(tmp_path / "run").checkpoints[::-1][:2]
    damage(newest / name)
    trainer = trainer_of(pairs, config, tmp_path / "run")
    with pytest.warns(CheckpointWarning, match=f"{newest} is damaged.*going on from {older}"):
        progress, _ = load_state(tmp_path / "run" / "state", config, trainer.model)
    assert progress.epoch == 3
    assert len(progress.rows) == 2


def test_a_run_goes_on_exactly_from_the_older_checkpoint(whole, config, pairs, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    cut(Run(tmp_path / "run").checkpoints[-1] / "trainer.pt")
    with pytest.warns(CheckpointWarning):
        list(train(pairs, config, out=tmp_path / "run", resume=True))
    assert_same_run(whole, tmp_path / "run")


def test_without_a_usable_checkpoint_a_run_is_refused_and_kept(whole, config, pairs, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    for folder in Run(tmp_path / "run").checkpoints:
        flip(folder / "trainer.pt")
    with pytest.raises(RunError, match=r"cannot be resumed: .* is damaged .*; .* is damaged.*overwrite"):
        train(pairs, config, out=tmp_path / "run", resume=True)
    with pytest.raises(RunError, match=r"cannot be resumed: .* is damaged"):
        Run(tmp_path / "run").saved()
    assert load_run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "state")
    with pytest.raises(RunError, match="it holds no checkpoint"):
        train(pairs, config, out=tmp_path / "run", resume=True)
    with pytest.raises(RunError, match=r"has no start.yaml: it is not a run"):
        train(pairs, config, out=tmp_path / "nowhere", resume=True)


def test_nothing_in_a_checkpoint_is_executed(whole, config, pairs, tmp_path):
    class Malice:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    shutil.copytree(whole, tmp_path / "run")
    for folder in Run(tmp_path / "run").checkpoints:
        torch.save({"progress": Malice()}, folder / "trainer.pt")
        sums = {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in ("model.safetensors", "trainer.pt")
        }
        (folder / "checksums.json").write_text(json.dumps(sums))
    with pytest.raises(RunError, match="is damaged"):
        train(pairs, config, out=tmp_path / "run", resume=True)
    assert not (tmp_path / "harm").exists()


def test_other_settings_are_named_but_those_that_learn_nothing_may_change(whole, config, pairs, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    with pytest.raises(
        RunError, match=r"other settings: loss.temperature was 0.07, now 0.1\. Resume with the old"
    ):
        train(pairs, config.updated({"loss.temperature": 0.1}), out=tmp_path / "run", resume=True)
    with pytest.raises(RunError, match="run.epochs was 3, now 5"):  # half a cosine ends where it was told to
        train(pairs, config.updated({"run.epochs": 5}), out=tmp_path / "run", resume=True)
    free = config.updated({"run.eval_batch": 7, "run.save_minutes": 5})
    assert list(train(pairs, free, out=tmp_path / "run", resume=True)) == []
    with pytest.raises(ConfigError, match="choose one"):
        train(pairs, config, out=tmp_path / "run", resume=True, overwrite=True)


def test_a_constant_learning_rate_can_be_trained_on(config, pairs, tmp_path):
    constant = config.updated({"optim.schedule": "constant"})
    list(train(pairs, constant.updated({"run.epochs": 2}), out=tmp_path / "longer"))
    list(train(pairs, constant, out=tmp_path / "longer", resume=True))
    list(train(pairs, constant, out=tmp_path / "at_once"))
    assert_same_run(tmp_path / "at_once", tmp_path / "longer")


def test_the_weights_that_a_run_began_from_are_needed_no_more(config, pairs, tmp_path):
    weights = tmp_path / "weights.pth"
    torch.save(Backbone("sbir_mini", image_size=48).encoder.state_dict(), weights)
    # Hidden layers keep the weights that they drew, after those of the backbone.
    begun = config.updated({"model.weights": str(weights), "mstr.registered": False})
    list(train(pairs, begun, out=tmp_path / "whole"))
    records = train(pairs, begun, out=tmp_path / "run")
    next(records)
    records.close()
    start = (tmp_path / "run" / "start.yaml").read_bytes()
    weights.unlink()
    assert len(list(train(pairs, begun, out=tmp_path / "run", resume=True))) == 2
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert (tmp_path / "run" / "start.yaml").read_bytes() == start
    with pytest.raises(BackboneError, match="cannot be read .No such file"):
        train(pairs, begun, out=tmp_path / "run", overwrite=True)


def test_published_weights_are_fetched_once(config, pairs, tmp_path, monkeypatch):
    begun = config.updated({"model.backbone": "test_vit", "model.image_size": 64, "model.pretrained": True})
    create = timm.create_model
    with monkeypatch.context() as patch:
        patch.setattr("timm.create_model", lambda name, pretrained, **options: create(name, **options))
        records = train(pairs, begun, out=tmp_path / "run")
        next(records)
        records.close()
    # Now there is no network.
    with pytest.raises(BackboneError, match="published weights of 'test_vit' cannot be loaded"):
        train(pairs, begun, out=tmp_path / "other")
    assert len(list(train(pairs, begun, out=tmp_path / "run", resume=True))) == 2


def test_other_data_are_refused(whole, config, pairs, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    shutil.copytree(pairs.root, tmp_path / "data")
    moved = config.updated({"data.root": str(tmp_path / "data")})
    assert (
        list(train(tmp_path / "data", moved, out=tmp_path / "run", resume=True)) == []
    )  # moved, not changed
    first = sorted((tmp_path / "data" / "trainA").iterdir())
    shutil.copy(first[0], first[1])
    with pytest.raises(RunError, match=r"its data had sha256 .*/data has .*Resume with the data of before"):
        train(tmp_path / "data", moved, out=tmp_path / "run", resume=True)


@pytest.mark.parametrize("room", [10**6, 8 * 10**6])
def test_a_full_disk_keeps_what_was_saved_and_the_run_goes_on(whole, config, pairs, tmp_path, room):
    resource = pytest.importorskip("resource")  # not on Windows
    sizes = [
        (Run(whole).checkpoints[-1] / name).stat().st_size for name in ("model.safetensors", "trainer.pt")
    ]
    assert 10**6 < sizes[0] < 8 * 10**6 < sizes[1]  # each file is cut short once
    records = train(pairs, config, out=tmp_path / "run")
    next(records)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Files of that size and no larger: both libraries find out while they write.
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(RunError, match=r"000002-000001 cannot be written \(.*File too large.*resume"):
            next(records)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in Run(tmp_path / "run").checkpoints] == ["000001-000003", "000002-000000"]
    assert not list((tmp_path / "run" / "state").glob(".*"))
    list(train(pairs, config, out=tmp_path / "run", resume=True))
    assert_same_run(whole, tmp_path / "run")


def test_what_is_no_fault_of_the_disk_is_not_called_one(config, pairs, tmp_path, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("torch.save", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        next(train(pairs, config, out=tmp_path / "run"))


def write_half(folder):
    with replacing(folder) as fresh:
        (fresh / "a").write_text("half")
        raise OSError("unplugged")


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "best"
    with replacing(folder) as fresh:
        (fresh / "a").write_text("old")
    with pytest.raises(RunError, match="what was saved before is kept"):
        write_half(folder)
    assert (folder / "a").read_text() == "old"
    # Killed between the two renamings: the old one is read where it is.
    folder.rename(tmp_path / ".best.old")
    assert (settled(folder) / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [".best.old"]
    with replacing(folder) as fresh:
        (fresh / "a").write_text("new")
    assert (folder / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def command(config, out, *words):
    """The command line that trains as `config` says."""
    preset, flags = Config.preset("mini_full").flat(), []
    for name, value in config.flat().items():
        if value != preset[name]:
            group, _, field = name.replace("_", "-").rpartition(".")
            if isinstance(value, bool):
                flags.append(f"--{group}.{'' if value else 'no-'}{field}")
            else:
                flags += [f"--{group}.{field}", *map(str, value if isinstance(value, tuple) else [value])]
    return [
        sys.executable,
        "-m",
        "sbirlib",
        "train",
        "--out",
        str(out),
        "--preset",
        "mini_full",
        *flags,
        *words,
    ]


def kill_and_resume(config, out, chance, tries):
    """Kills a run that often, at random moments, and resumes it; then lets it end. Counts the kills."""
    killed = 0
    for number in range(tries + 1):
        words = (
            command(config, out) if not (out / "state").is_dir() else [*command(config, out)[:6], "--resume"]
        )
        if number and "--resume" not in words:
            words.append("--overwrite")  # killed before its first checkpoint: nothing to go on from
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started = time.monotonic()
        if number < tries:
            # From its first checkpoint on: before that there is nothing to lose.
            delay = chance.uniform(0, 1.2)
            while (
                not list(out.glob("state/0*")) and process.poll() is None and time.monotonic() - started < 120
            ):
                time.sleep(0.01)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=300)
        assert process.returncode in (0, -signal.SIGKILL), errors
        killed += process.returncode != 0
    return killed


def test_a_killed_run_goes_on_exactly(whole, config, tmp_path):
    assert kill_and_resume(config, tmp_path / "run", random.Random(0), 2) >= 1
    assert_same_run(whole, tmp_path / "run")


def test_a_schedulers_signal_ends_the_run_in_good_order(whole, config, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(config, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("state/0*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"stopped; `python -m sbirlib train --out {out} --resume` goes on from here" in output
    assert len(history(out) if (out / "history.csv").exists() else []) < 3
    assert main(["train", "--out", str(out), "--resume"]) == 0
    assert_same_run(whole, out)


def test_the_command_resumes_with_the_settings_of_the_run(whole, pairs, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "run")
    assert main(["train", "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert "epoch" not in capsys.readouterr().out  # all its epochs are done
    assert (
        main(
            [
                "train",
                "--out",
                str(tmp_path / "run"),
                "--resume",
                "--optim.lr",
                "1",
                "--data.root",
                str(pairs.root),
            ]
        )
        == 2
    )
    assert "was made with other settings" in capsys.readouterr().err
    assert main(["train", "--out", str(tmp_path / "none"), "--resume"]) == 2
    assert "cannot be resumed: it holds no checkpoint" in capsys.readouterr().err


def test_progress_begins_at_the_first_step():
    assert (Progress().epoch, Progress().step, Progress().rows) == (1, 0, [])
