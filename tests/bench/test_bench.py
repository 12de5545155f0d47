"""Every part of the benchmark on tiny settings: rows are what they say, however fast this machine is."""

import itertools
import json
import subprocess
import sys
from typing import get_args

import pytest
import torch
from tools.batches import batch_of

from sbirlib.bench import run as bench
from sbirlib.bench.run import HEAD, Bench, BenchRow, ReleasedRecipe, four_passes
from sbirlib.cli.app import main
from sbirlib.cli.kit import BenchPart
from sbirlib.config.config import Config

TINY = {
    "model.backbone": "sbir_mini", "model.image_size": 48, "model.embed_dim": 16, "optim.batch_size": 8,
    "mstr.scales": (1, 2), "mstr.dropout": 0.0, "run.epochs": 2, "optim.warmup": 0, "data.val_fraction": 0.25,
}  # fmt: skip
ROW = BenchRow("step, mini", "views/s", "released recipe", 6.0, 1.0, 3.0, 0.5)


@pytest.fixture
def small(monkeypatch):
    """Presets that take no time, and one small row of each part."""
    full = Bench.config
    monkeypatch.setattr(Bench, "config", lambda self, preset: full(self, preset).updated(TINY))
    few = {part: rows[-1:] for part, rows in bench.PARTS.items()}
    monkeypatch.setattr(bench, "PARTS", few)


@pytest.fixture
def uncollected(monkeypatch):
    """Among all that the tests hold, collecting takes half a second a row."""
    monkeypatch.setattr(bench.gc, "collect", lambda: None)


@pytest.fixture
def once(monkeypatch):
    """Each way is measured once after it was warmed up, however short it is."""
    monkeypatch.setattr(bench.Timer, "blocked_autorange", lambda timer: timer.timeit(1))


@pytest.fixture
def stubbed(uncollected, monkeypatch):
    """Nothing is measured: every row is `ROW`."""
    monkeypatch.setattr(bench, "load_data", lambda pairs, config: None)
    for part in ("step", "import"):
        monkeypatch.setattr(Bench, f"_{part}", lambda self, part, *values: ROW)


def recipe_of(preset, pairs, **changes):
    return ReleasedRecipe(Bench((), pairs.root, device="cpu").config(preset).updated(changes))


def test_every_part_by_the_command(small, once, uncollected, pairs, tmp_path, monkeypatch, capsys):
    """All but `import`: a new process takes seconds to start."""
    out = tmp_path / "rows.json"
    words = ["--root", str(pairs.root), "--json", str(out)]
    parts = [part for part in get_args(BenchPart) if part != "import"]
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--part", *parts, *words, "--device", "cpu"]) == 0
    written, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert set(written["machine"]) == {"processor", "cores", "threads", "torch", "precision"}
    units = [(row["part"].partition(",")[0], row["unit"]) for row in written["rows"]]
    assert units == [("step", "views/s")]
    for row in written["rows"]:
        assert row["kit"] > 0
        assert row["kit_iqr"] >= 0
        assert f"| {row['part']} | {row['unit']} |" in printed
    assert HEAD in printed
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def test_import(monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "check_output", commands.append)
    rows = [Bench(("import",), repeats=1)._import("import", *words) for words in bench.PARTS["import"]]
    assert [(row.part, row.unit, row.against) for row in rows] == [
        ("import, import sbirlib", "s", "import torch, timm"),
        ("import, --help", "s", "import torch, timm"),
    ]
    for words in (["-c", "import sbirlib"], ["-m", "sbirlib", "--help"], ["-c", "import torch, timm"]):
        assert [sys.executable, *words] in commands


def test_the_command_line_does_not_import_the_benchmark():
    # In a fresh process: modules imported anew in this one would be others than the ones that tests hold.
    names = "'sbirlib.cli.kit' in sys.modules, 'sbirlib.bench' in sys.modules"
    code = f"import sys, sbirlib.cli.app; print({names})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "True False\n"


@pytest.mark.parametrize(("unit", "ratio"), [("views/s", 2.0), ("ms", 0.5)])
def test_a_ratio_above_one_is_in_favour_of_the_kit(unit, ratio):
    row = ROW._replace(unit=unit)
    assert row.ratio == ratio
    assert str(row) == f"| step, mini | {unit} | 6 | 1 | 3 | 0.5 | released recipe | {ratio:g} |"


def test_measurements_take_turns():
    calls = []
    ways = (lambda: calls.append("kit"), lambda: calls.append("other"))
    row = Bench((), repeats=3)._timed("part", "ms", 1e3, *ways, against="other")
    assert [name for name, _ in itertools.groupby(calls)] == ["kit", "other"] * 3
    assert row.kit > 0 < row.beside


def test_all_parts_are_measured_unless_some_are_named(stubbed, pairs, monkeypatch):
    called = []
    monkeypatch.setattr(Bench, "__call__", lambda self: called.extend(self.parts))
    assert main(["bench", "--root", str(pairs.root)]) == 0
    assert called == list(bench.PARTS) == list(get_args(BenchPart))


def test_importing_needs_no_data(stubbed):
    assert main(["bench", "--part", "import", "--root", "nowhere"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--part", "step", "--root", "nowhere"], "nowhere: no such folder"),
        (["--json", "nowhere/rows.json"], "--json nowhere/rows.json: name a file, in a folder that exists"),
        (["--json", "."], "--json .: name a file, in a folder that exists"),
    ],
)
def test_bad_input_is_said_before_anything_is_measured(words, message, pairs, capsys, monkeypatch):
    monkeypatch.setattr(Bench, "_timed", None)
    root = [] if "--root" in words else ["--root", str(pairs.root)]
    assert main(["bench", *root, *words]) == 2
    assert message in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_is_said_before_anything_is_measured(
    stubbed, pairs, tmp_path, capsys, monkeypatch
):
    monkeypatch.undo()
    monkeypatch.setattr(Bench, "_timed", None)
    root = tmp_path / "clothes"
    for side in "AB":
        (root / f"train{side}").mkdir(parents=True)
        (root / f"train{side}" / "1.png").write_bytes(b"not a picture")
    assert main(["bench", "--part", "step", "--root", str(root)]) == 2
    assert "1.png: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes differ"), torch.cuda.OutOfMemoryError("CUDA has no more"), KeyboardInterrupt()],
)
def test_an_error_is_raised_and_what_was_measured_stays(error, stubbed, tmp_path, monkeypatch):
    def imported(self, part, *words):
        if "--help" in words:
            raise error
        return ROW

    monkeypatch.setattr(Bench, "_import", imported)
    out = tmp_path / "rows.json"
    with pytest.raises(type(error)):
        Bench(("import",), json=out, device="cpu")()
    assert json.loads(out.read_text())["rows"] == [ROW._asdict() | {"ratio": 2.0}]


def test_presets_are_measured_from_scratch():
    config = Bench(()).config("basic")
    assert not config.model.pretrained
    assert config.updated(
        {"model.pretrained": True, "run.tracker": "tensorboard", "data.root": Config().data.root}
    ) == Config.preset("basic")


@pytest.mark.parametrize("preset", ["mini", "mini_full"])
def test_the_released_step_has_the_loss_of_the_kit_in_fp32(preset, small, pairs):
    recipe = recipe_of(preset, pairs, **{"run.precision": "fp32"})
    trainer, plan = recipe.trainer, recipe.trainer.plan(1)
    for step in range(2):
        batch = plan.batch(plan.rows(step, trainer.batch_size), "cpu")
        with torch.no_grad():
            kit = trainer.method.compare(trainer.method.encode(batch), batch)
        trainer.step(plan, step)
        # The second step starts from weights that both have moved. Losses of 50 round at 4e-6.
        for name, value in recipe.step(plan, step).items():
            torch.testing.assert_close(value.detach(), kit[name], rtol=5e-7, atol=1e-5)
    assert (kit["recyc_sketch"] > 0) == (preset == "mini_full")


def test_each_view_has_a_pass_of_its_own(small, pairs):
    model, sizes = recipe_of("mini_full", pairs).model, []
    for encoder in (model.sketch_encoder, model.photo_encoder):
        encoder.embed.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    batch = batch_of(torch.rand(4, 3, 3, 48, 48))
    rows = four_passes(model, batch)
    assert sizes == [3, 3, 3, 3]
    assert rows.keys() == model.encode(batch).keys()
