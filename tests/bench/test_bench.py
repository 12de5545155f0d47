"""The benchmark on tiny settings: rows are what they say, however fast this machine is."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tools.batches import batch_of
from tools.speed_page import COMMANDS, FOLDER, markdown

from sbirlib.bench import run as bench
from sbirlib.bench.run import (
    HEAD,
    PRESETS,
    BenchRow,
    ceiling,
    flops_of,
    four_passes,
    measure,
    on_this_data,
    released_recipe,
    timed,
)
from sbirlib.cli.app import main
from sbirlib.config.config import Config
from sbirlib.data import PairFolder
from sbirlib.methods import ARNet
from sbirlib.training.files import RunFiles
from sbirlib.training.trainer import Trainer

TINY = {
    "model.backbone": "sbir_mini", "model.image_size": 48, "model.embed_dim": 16, "optim.batch_size": 8,
    "mstr.scales": (1, 2), "mstr.dropout": 0.0, "run.epochs": 2, "optim.warmup": 0, "data.val_fraction": 0.25,
}  # fmt: skip
ROW = BenchRow("mini", 8, "fp32", 6.0, 1.0, 3.0, 0.5, 100.0, 0.25)


@pytest.fixture
def small(monkeypatch):
    """Presets that take no time."""
    monkeypatch.setattr(bench, "on_this_data", lambda *words: tiny_form(on_this_data(*words)))


@pytest.fixture
def once(monkeypatch):
    """The ceiling is measured in no time, and no more rounds than must be."""
    monkeypatch.setattr(bench, "ceiling", lambda device, dtype: 1000.0)
    monkeypatch.setattr(bench, "MOST", bench.FEWEST)


def tiny_form(config):
    # Only CNNs have the stages that `lite` freezes and cuts.
    cnn = {"model.backbone": config.model.backbone, "model.image_size": 64} if config.model.freeze else {}
    return config.updated(TINY | cnn)


def small_config(preset, pairs):
    return tiny_form(on_this_data(preset, pairs.root, "cpu")).updated({"run.precision": "fp32"})


def trainer_of(config, folder):
    return Trainer(PairFolder(config.data.root), RunFiles(folder, config))


def test_every_preset_by_the_command(small, once, pairs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "rows.json"
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--root", str(pairs.root), "--json", str(out), "--device", "cpu"]) == 0
    written, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert set(written["machine"]) == {"processor", "instructions", "threads", "torch", "commit"}
    assert [row["preset"] for row in written["rows"]] == list(PRESETS)
    for row in written["rows"]:
        assert row["kit"] > 0 <= row["kit_iqr"]
        assert 0 < row["share"] < 1
        assert row["ceiling"] == 1000
        # Its two passes would be those of the kit.
        assert (row["released"] is None) == (row["preset"] == "lite")
        assert str(BenchRow(**row)) in printed
    assert written["rows"][2]["precision"] == "fp32"
    assert HEAD in printed
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def test_the_command_line_does_not_import_the_benchmark():
    # In a fresh process: modules imported anew in this one would be others than the ones that tests hold.
    names = "'sbirlib.cli.kit' in sys.modules, 'sbirlib.bench' in sys.modules"
    code = f"import sys, sbirlib.cli.app; print({names})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "True False\n"


def test_a_ratio_above_one_is_in_favour_of_the_kit():
    assert str(ROW) == "| mini | 8 | fp32 | 6 | 1 | 3 | 0.5 | 2 | 100 | 25 |"


def test_a_preset_that_the_recipe_cannot_train_says_so():
    row = ROW._replace(released=None, released_iqr=None)
    assert str(row) == "| mini | 8 | fp32 | 6 | 1 | no second views |  |  | 100 | 25 |"


def test_rows_have_a_cell_for_each_column():
    without = ROW._replace(released=None, released_iqr=None)
    assert {str(line).count("|") for line in (*HEAD.splitlines(), ROW, without)} == {11}


def test_measurements_take_turns(small, once, pairs, tmp_path, monkeypatch):
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Trainer, "step", lambda self, plan, step: calls.append("kit"))
    monkeypatch.setattr(bench, "released_recipe", lambda trainer: lambda plan, step: calls.append("released"))
    row = timed("mini", small_config("mini", pairs))
    # Once to choose the batch, and once to count what is computed.
    assert calls == ["kit", "released", "kit"] + ["kit", "released"] * bench.FEWEST
    assert row.kit > 0 < row.released


@pytest.mark.parametrize(("pair", "batch"), [(0.1, 8), (2.0, 4), (60.0, 2)])
def test_a_slow_machine_takes_a_smaller_batch(once, pairs, tmp_path, monkeypatch, pair, batch):
    clock = itertools.count()
    monkeypatch.chdir(tmp_path)
    # Between two looks at the clock both ways take so long, whatever the batch.
    monkeypatch.setattr(bench, "timer", lambda: pair * next(clock))
    monkeypatch.setattr(Trainer, "step", lambda self, plan, step: None)
    monkeypatch.setattr(bench, "released_recipe", lambda trainer: lambda plan, step: None)
    row = timed("mini", small_config("mini", pairs))
    assert row.batch == batch
    assert row.kit == pytest.approx(4 * batch / pair)


def test_rounds_end_with_the_time(once, pairs, tmp_path, monkeypatch):
    clock, steps = itertools.count(step=7), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "MOST", 100)
    monkeypatch.setattr(bench, "timer", lambda: next(clock))
    monkeypatch.setattr(Trainer, "step", lambda self, plan, step: steps.append(step))
    monkeypatch.setattr(bench, "released_recipe", lambda trainer: lambda plan, step: None)
    timed("mini", small_config("mini", pairs))
    assert len(steps) == 2 + bench.FEWEST


def test_a_step_is_counted_with_its_way_back(pairs, tmp_path):
    wide, deep = torch.nn.Conv2d(4, 6, 3, bias=False), torch.nn.Conv2d(6, 6, 3, groups=6, bias=False)
    images = torch.rand(2, 4, 8, 8)
    flops = flops_of(lambda plan, number: deep(wide(images)).sum().backward(), None)
    there = 2 * 2 * 6 * 6 * (6 * 4 * 9), 2 * 2 * 4 * 4 * (6 * 9)
    # Images need no gradient; each channel by itself takes a sixth.
    assert flops == 2 * there[0] + 3 * there[1]
    rows = torch.rand(1, 2, 5, 8, requires_grad=True)
    attended = flops_of(
        lambda plan, number: (
            torch.nn.functional.scaled_dot_product_attention(rows, rows, rows).sum().backward()
        ),
        None,
    )
    assert attended == 3 * 2 * (2 * 2 * 5 * 5 * 8)


def test_the_ceiling_is_that_of_all_threads(monkeypatch):
    class Once(bench.Timer):
        def blocked_autorange(self, min_run_time):
            assert self._task_spec.num_threads == torch.get_num_threads()
            return self.timeit(1)

    monkeypatch.setattr(bench, "Timer", Once)
    assert ceiling(torch.device("cpu"), torch.float32) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--root", "nowhere"], "nowhere: no such folder"),
        (["--json", "nowhere/rows.json"], "nowhere/rows.json: name a file, in a folder that exists"),
        (["--json", "."], ".: name a file, in a folder that exists"),
    ],
)
def test_bad_input_is_said_before_anything_is_measured(words, message, pairs, capsys, monkeypatch):
    monkeypatch.setattr(bench, "timed", None)
    root = [] if "--root" in words else ["--root", str(pairs.root)]
    assert main(["bench", *root, *words]) == 2
    assert message in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_is_said_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "timed", None)
    root = tmp_path / "clothes"
    for side in "AB":
        (root / f"train{side}").mkdir(parents=True)
        (root / f"train{side}" / "1.png").write_bytes(b"not a picture")
    assert main(["bench", "--root", str(root)]) == 2
    assert "1.png: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes differ"), torch.cuda.OutOfMemoryError("CUDA has no more"), KeyboardInterrupt()],
)
def test_an_error_is_raised_and_what_was_measured_stays(error, pairs, tmp_path, monkeypatch):
    def fails(preset, config):
        if preset != "mini":
            raise error
        return ROW

    monkeypatch.setattr(bench, "timed", fails)
    monkeypatch.setattr(bench, "load_data", lambda pairs, config: None)
    out = tmp_path / "rows.json"
    with pytest.raises(type(error)):
        measure(pairs.root, out, "cpu")
    assert json.loads(out.read_text())["rows"] == [ROW._asdict()]


def test_presets_are_measured_from_scratch(tmp_path):
    config = on_this_data("basic", tmp_path, "auto")
    assert not config.model.pretrained
    assert config.updated(
        {"model.pretrained": True, "run.tracker": "tensorboard", "data.root": Config().data.root}
    ) == Config.preset("basic")


@pytest.mark.parametrize("preset", ["mini", "mini_full"])
def test_the_released_step_has_the_loss_of_the_kit_in_fp32(preset, pairs, tmp_path):
    trainer = trainer_of(small_config(preset, pairs), tmp_path)
    plan, recipe = trainer.plan(1), released_recipe(trainer)
    for step in range(2):
        batch = plan.batch(plan.rows(step, trainer.batch_size), "cpu")
        with torch.no_grad():
            kit = trainer.method.compare(trainer.method.encode(batch), batch)
        trainer.step(plan, step)
        # The second step starts from weights that both have moved. Losses of 50 round at 4e-6.
        for name, value in recipe(plan, step).items():
            torch.testing.assert_close(value.detach(), kit[name], rtol=5e-7, atol=1e-5)
    assert (kit["recyc_sketch"] > 0) == (preset == "mini_full")


def test_each_view_has_a_pass_of_its_own(pairs):
    model, sizes = ARNet.from_config(small_config("mini_full", pairs)), []
    for encoder in (model.sketch_encoder, model.photo_encoder):
        encoder.embed.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    batch = batch_of(torch.rand(4, 3, 3, 48, 48))
    rows = four_passes(model, batch)
    assert sizes == [3, 3, 3, 3]
    assert rows.keys() == model.encode(batch).keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_shown_was_measured_of_a_commit_in_its_number_format(name):
    measured = json.loads((FOLDER / f"{name}.json").read_text())
    presets = [row["preset"] for row in measured["rows"]]
    assert presets == list(PRESETS)
    precision, instructions = {"bf16": ("bf16", "AVX512"), "avx2": ("fp32", "AVX2")}[name]
    assert {row["precision"] for row in measured["rows"] if row["preset"] != "lite"} == {precision}
    assert measured["machine"]["instructions"] == instructions
    assert len(measured["machine"]["commit"]) == 40  # and without changes since


def test_the_page_holds_what_the_script_makes_of_the_files():
    page = Path(__file__).parents[2] / "notebooks/reference/speed.md"
    assert markdown() in page.read_text(encoding="utf-8")


def test_a_processor_is_held_to_avx2():
    root = Path(__file__).parents[2]
    code = "import torch; print(torch.backends.cpu.get_cpu_capability(), torch.cpu.get_capabilities())"
    words = {"capture_output": True, "text": True, "check": True, "cwd": root}
    own = os.environ | {"PYTHONPATH": str(root / "tests/tools/avx2")}
    found = subprocess.run([sys.executable, "-c", code], env=own, **words).stdout
    assert re.fullmatch(r"(AVX2|DEFAULT|NO AVX) {}\n", found)
