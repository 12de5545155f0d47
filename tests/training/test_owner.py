"""A run folder has one owner, nobody else's files in it are removed, and looking at it changes nothing."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from sbirlib import evaluate, load_run, train
from sbirlib.cli.app import main
from sbirlib.errors import ConfigError
from sbirlib.layers.backbone import BackboneError
from sbirlib.runs.atomic import RunError
from sbirlib.runs.folder import Run, describe
from sbirlib.training import files

WRITER = """
import sys, time
from pathlib import Path
from sbirlib.runs.atomic import Owner
owner = Owner(Path(sys.argv[1]))
print("mine", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def another_process(folder):
    """Another process that owns the folder."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "mine\n"
        yield writer
    finally:
        writer.kill()
        writer.communicate()


def test_a_second_writer_is_refused_and_told_who_the_first_is(pairs, tiny, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with another_process(tmp_path / "run") as writer:
        for how in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(RunError, match=rf"is being written by process {writer.pid} on .*, since 20"):
                train(pairs, tiny, out=tmp_path / "run", **how)
        # Whoever only reads is let in.
        assert "2 of 2 epochs" in describe(tmp_path / "run")
        assert load_run(tmp_path / "run")
    assert {path: path.read_bytes() for path in before} == before


def test_a_crash_leaves_no_lock_behind(pairs, tiny, tmp_path):
    with another_process(tmp_path / "run") as writer:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert (tmp_path / "run" / ".run.owner").is_file()
        assert len(list(train(pairs, tiny, out=tmp_path / "run"))) == 2
    assert not (tmp_path / "run" / ".run.owner").exists()


def test_an_iteration_that_nobody_ends_stands_in_the_way_of_other_threads_alone(pairs, tiny, tmp_path):
    records = train(pairs, tiny, out=tmp_path / "run")
    next(records)
    refused = []

    def another_panel():
        try:
            train(pairs, tiny, out=tmp_path / "run", resume=True)
        except RunError as error:
            refused.append(str(error))

    thread = threading.Thread(target=another_panel)
    thread.start()
    thread.join()
    assert f"is being written by process {os.getpid()} on" in refused[0]
    # The cell that is run again goes on where its first iteration was left.
    assert [record.epoch for record in train(pairs, tiny, out=tmp_path / "run", resume=True)] == [2]
    assert list(records) == []


def test_one_that_was_never_begun_gives_way_too(pairs, tiny, tmp_path):
    unused = train(pairs, tiny, out=tmp_path / "run")
    assert len(list(train(pairs, tiny, out=tmp_path / "run"))) == 2
    assert list(unused) == []


def test_a_run_that_does_not_begin_leaves_no_trace(pairs, tiny, tmp_path):
    with pytest.raises(ConfigError, match="would split it|BatchNorm"):
        train(
            pairs, tiny.updated({"model.backbone": "resnet18", "optim.chunk": 4}), out=tmp_path / "a" / "run"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_a_place_that_cannot_be_written_is_found_before_anything_is_read(
    pairs, tiny, tmp_path, monkeypatch, out
):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("sbirlib.training.trainer.load_data", lambda *_: pytest.fail("data was read"))
    with pytest.raises(RunError, match=rf"{out} cannot be written .*(File exists|Not a directory)"):
        train(pairs, tiny, out=tmp_path / out)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["best", "last", "state", "history.csv"])
def test_what_never_was_a_run_is_not_overwritten(pairs, tiny, tmp_path, name):
    mine = tmp_path / "out" / name / "mine.txt" if "." not in name else tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(FileExistsError, match=f"already holds {name}, but no run that could be replaced"):
        train(pairs, tiny, out=tmp_path / "out", overwrite=True)
    assert mine.read_text() == "mine"


def test_overwriting_removes_what_was_said_of_the_old_run(pairs, tiny, run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    (out / "best").rename(out / ".best.old")  # as a process killed in between leaves it
    (out / "notes.txt").write_text("mine")
    for name in ("result.json", "test.json"):
        (out / name).write_text("of the old run")
    list(train(pairs, tiny.updated({"run.keep": "last"}), out=out, overwrite=True))
    assert sorted(path.name for path in out.iterdir()) == [
        ".run.lock", "history.csv", "last", "notes.txt", "start.yaml", "state",
    ]  # fmt: skip


def test_readers_leave_a_run_as_it_is(pairs, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "best").rename(tmp_path / "run" / ".best.old")
    names = sorted(tmp_path.rglob("*"))
    read = Run(tmp_path / "run")
    assert read.chosen == "best"
    assert torch.equal(*(next(load_run(place).parameters()) for place in (run, tmp_path / "run")))
    assert read.config() == Run(run).config()
    assert "best" in read.present
    assert sorted(tmp_path.rglob("*")) == names


def test_a_run_goes_on_where_its_checkpoint_is_whatever_its_history_says(
    pairs, tiny, tmp_path, capsys, monkeypatch
):
    longer = tiny.updated({"run.epochs": 3, "data.root": str(pairs.root), "run.save_minutes": 0})
    records = train(pairs, longer, out=tmp_path / "run")
    next(records)
    records.close()
    history = tmp_path / "run" / "history.csv"
    rows = history.read_text()
    for torn in ("", "\0" * 4096, rows[: len(rows) // 2]):
        shutil.copytree(tmp_path / "run", tmp_path / "again")
        (tmp_path / "again" / "history.csv").write_text(torn)
        assert main(["train", "--out", str(tmp_path / "again"), "--resume"]) == 0
        assert "epochs 2 to 3" in capsys.readouterr().out
        assert Run(tmp_path / "again").history()["epoch"] == [1, 2, 3]
        shutil.rmtree(tmp_path / "again")


def test_the_epoch_that_a_run_goes_on_in_is_that_of_the_whole_checkpoint(pairs, tiny, tmp_path, capsys):
    longer = tiny.updated({"run.epochs": 4, "data.root": str(pairs.root), "run.save_minutes": 0})
    records = train(pairs, longer, out=tmp_path / "run")
    for _ in range(3):
        next(records)
    records.close()
    newest = Run(tmp_path / "run").checkpoints[-1]
    assert newest.name == "000004-000000"
    (newest / "trainer.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="is damaged"):
        assert main(["train", "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert "epochs 3 to 4" in capsys.readouterr().out


def weights(out):
    return torch.cat([weight.flatten() for weight in load_run(out, "last").parameters()])


def test_what_happens_between_and_beside_the_steps_changes_nothing(pairs, tiny, tmp_path):
    dropping = tiny.updated(
        {"mstr.enabled": True, "mstr.scales": (1, 2), "mstr.dropout": 0.5, "model.drop_path": 0.2}
    )
    list(train(pairs, dropping, out=tmp_path / "alone"))
    records = train(pairs, dropping, out=tmp_path / "looked-at")
    other = train(pairs, dropping.updated({"run.seed": 1}), out=tmp_path / "other")
    before = torch.get_rng_state()
    next(records)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(7)
    next(other)
    evaluate(load_run(tmp_path / "looked-at"), pairs)
    next(records)
    assert torch.equal(weights(tmp_path / "alone"), weights(tmp_path / "looked-at"))
    next(other)
    list(train(pairs, dropping.updated({"run.seed": 1}), out=tmp_path / "other-alone"))
    assert torch.equal(weights(tmp_path / "other"), weights(tmp_path / "other-alone"))


def test_two_trainings_in_threads_learn_what_each_would_alone(pairs, tiny, tmp_path):
    dropping = tiny.updated({"mstr.enabled": True, "mstr.scales": (1, 2), "mstr.dropout": 0.5})
    seeds = [dropping.updated({"run.seed": seed}) for seed in (0, 1)]
    threads = [
        threading.Thread(target=lambda c=config, s=seed: list(train(pairs, c, out=tmp_path / f"beside-{s}")))
        for seed, config in enumerate(seeds)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, config in enumerate(seeds):
        list(train(pairs, config, out=tmp_path / f"alone-{seed}"))
        assert torch.equal(weights(tmp_path / f"beside-{seed}"), weights(tmp_path / f"alone-{seed}"))


def test_a_launcher_that_accumulates_gradients_changes_nothing(pairs, tiny, tmp_path, monkeypatch):
    once = tiny.updated({"run.epochs": 1})
    list(train(pairs, once, out=tmp_path / "plain"))
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "3")
    list(train(pairs, once, out=tmp_path / "launched"))
    assert torch.equal(weights(tmp_path / "plain"), weights(tmp_path / "launched"))


def test_what_a_stranger_keeps_in_the_folder_stays(pairs, tiny, tmp_path):
    names = ("result.json", "test.json", ".owner", "notes.txt")
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(BackboneError):
        train(pairs, tiny.updated({"model.image_size": 47}), out=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    list(train(pairs, tiny.updated({"run.epochs": 1}), out=tmp_path))
    assert all((tmp_path / name).read_text() == "mine" for name in names)


@pytest.mark.parametrize("left", [True, False])
def test_a_run_that_is_moved_meanwhile_ends_and_goes_on_where_it_is(pairs, tiny, tmp_path, left):
    longer = tiny.updated({"run.epochs": 3, "run.save_minutes": 0, "data.root": str(pairs.root)})
    records = train(pairs, longer, out=tmp_path / "run")
    next(records)
    (tmp_path / "run").rename(tmp_path / "renamed")
    if left:
        (tmp_path / "run").mkdir()  # as another run would
    with pytest.raises(RunError, match="was moved, renamed or removed while it was written"):
        next(records)
    assert [record.epoch for record in train(pairs, longer, out=tmp_path / "renamed", resume=True)] == [2, 3]
    assert not left or list((tmp_path / "run").iterdir()) == []


def test_another_working_directory_changes_nothing(pairs, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = train(pairs, tiny.updated({"run.tracker": "tensorboard"}), out="run")
    next(records)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    next(records)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert Run(tmp_path / "run").epochs == 2


def test_a_model_on_another_disk_stays_there(pairs, tiny, tmp_path):
    out, big = tmp_path / "run", tmp_path / "big"
    records = train(pairs, tiny.updated({"run.epochs": 3}), out=out)
    next(records)
    records.close()
    big.mkdir()
    (out / "last").rename(big / "last")
    (out / "last").symlink_to(big / "last")
    assert len(list(train(pairs, tiny.updated({"run.epochs": 3}), out=out, resume=True))) == 2
    assert (out / "last").is_symlink()
    assert [path.name for path in big.iterdir()] == ["last"]
    list(train(pairs, tiny.updated({"run.epochs": 1}), out=out, overwrite=True))
    assert not (out / "last").is_symlink()


def test_a_checkpoint_is_written_whole_however_often_somebody_interrupts(pairs, tiny, tmp_path, monkeypatch):
    save = files.save_state

    def interrupted(*given):
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        return save(*given)

    config = tiny.updated({"run.epochs": 2})
    records = train(pairs, config, out=tmp_path / "run")
    next(records)
    with monkeypatch.context() as patch:
        patch.setattr(files, "save_state", interrupted)
        with pytest.raises(KeyboardInterrupt):
            records.close()
    assert [path.name for path in Run(tmp_path / "run").checkpoints] == ["000002-000000"]
    assert [record.epoch for record in train(pairs, config, out=tmp_path / "run", resume=True)] == [2]


def test_how_a_model_was_chosen_does_not_hang_on_its_folders_name(pairs, tiny, tmp_path):
    for protocol, words in (("validation", "chosen on 9 sketches"), ("released", "CHOSEN ON THE TEST SET")):
        out = tmp_path / protocol
        list(train(pairs, tiny.updated({"run.protocol": protocol, "run.epochs": 1}), out=out))
        shutil.copytree(out / "last", out / "model-v1")
        shutil.copytree(out / "best", out / "moved" / "last")
        assert "of the last epoch" in load_run(out / "model-v1").origin
        assert words in load_run(out / "moved" / "last").origin
    save_file(load_file(out / "last" / "model.safetensors"), out / "last" / "model.safetensors")
    with pytest.raises(RunError, match="last/model.safetensors does not say how its weights were chosen"):
        load_run(out, "last")
