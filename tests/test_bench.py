"""Every part of the benchmark on tiny settings: that rows are what they say, never how fast this machine is."""

import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from sbirlib import ARNet, Config, bench, bench_costs, bench_panels, bench_released, bench_train
from sbirlib.__main__ import main
from sbirlib.bench_released import PairDataset, PictureDataset, ReleasedEvaluation, ReleasedRecipe, four_passes
from sbirlib.bench_train import Setup, flops
from sbirlib.fields import InputError
from sbirlib.measure import TABLE_HEAD, Ceilings, Row, Spread, alone, ceilings, in_turn
from sbirlib.retrieval import score_split
from sbirlib.train import Trainer
from sbirlib.views import Epoch, Views, load_split

LIMITS = Ceilings(fp32=1e12, bf16=2e12, memory=1e11)
TINY = {"model.backbone": "sbir_mini", "model.image_size": 48, "model.embed_dim": 16, "optim.batch_size": 8,
        "mstr.scales": (1, 2), "mstr.dropout": 0.0, "run.epochs": 2, "optim.warmup": 0, "data.val_fraction": 0.25,
        "run.device": "cpu"}


@pytest.fixture
def setup(pairs, monkeypatch):
    monkeypatch.setattr(bench_train, "ENOUGH", 0.0)
    return Setup(pairs, LIMITS, "cpu", repeats=1, batches=(8,), changes=TINY)


@pytest.fixture
def in_process(monkeypatch):
    """Measures in this process: a new one takes seconds to start."""
    monkeypatch.setattr(bench_costs, "_alone", lambda measure, *values: measure(*values))


def sound(rows, *units):
    """The rows of a part, each with a number where there is one to have."""
    rows = list(rows)
    assert {row.unit for row in rows} == set(units)
    for row in rows:
        assert 0 < row.kit.low <= row.kit.median <= row.kit.high
        assert row.released is None or 0 < row.released.low <= row.released.median <= row.released.high
        assert row.as_line().count("|") == TABLE_HEAD.splitlines()[0].count("|")
    return rows


@pytest.mark.parametrize(("better", "ratio"), [("higher", 2.0), ("lower", 0.5)])
def test_a_ratio_above_one_is_in_favour_of_the_kit(better, ratio):
    row = Row("step", "unit", better, Spread.of([1, 6, 9]), Spread.of([3]), share_of_ceiling=0.456)
    assert row.ratio == ratio
    assert row.as_line() == f"| step | unit | 6 (1-9) | 3 | released recipe | {ratio:.2f} | 46 % |"
    assert row.as_dict() == {"part": "step", "unit": "unit", "kit": 6, "released": 3, "ratio": ratio,
                             "share_of_ceiling": 0.456, "against": "released recipe", "kit_range": [1, 9],
                             "released_range": [3, 3]}


def test_what_was_not_reached_is_said_and_null():
    row = Row("accuracy", "min", "lower", Spread.of([2.5]), Spread.of([math.inf]))
    assert row.ratio is None
    assert row.as_line() == "| accuracy | min | 2.5 | not reached | released recipe |  |  |"
    written = json.loads(bench.as_json({"gpu": None}, [row]))
    assert written["machine"] == {"gpu": None}
    assert (written["rows"][0]["kit"], written["rows"][0]["released"]) == (2.5, None)
    assert Row("panels", "ms", "lower", Spread.of([1234.5])).as_line() == "| panels | ms | 1234 |  |  |  |  |"


def test_measurements_take_turns_after_one_to_warm_up():
    calls, numbers = [], iter(range(100))

    def way(name):
        return lambda: calls.append(name) or float(next(numbers))

    first, second = in_turn(way("a"), way("b"), 3)
    assert "".join(calls) == "abababab"
    assert (first, second) == (Spread(4, 2, 6), Spread(5, 3, 7))
    assert alone(way("c"), 1) == Spread(9, 9, 9)


def test_ceilings_are_those_of_both_formats_and_of_memory():
    found = ceilings("cpu", side=32, repeats=1)
    assert all(0 < value < 1e16 for value in found)


def test_products_and_attention_are_counted_forwards_and_back():
    first, second = torch.randn(3, 5), torch.randn(5, 7)
    assert flops(lambda: first @ second) == 2 * 3 * 5 * 7
    images, heads, tokens, width = 2, 3, 6, 4
    q, k, v = (torch.randn(images, heads, tokens, width, requires_grad=True) for _ in range(3))
    product = 2 * images * heads * tokens * tokens * width
    assert flops(lambda: F.scaled_dot_product_attention(q, k, v)) == 2 * product
    # Back: the four products of the two gradients, and the scores once more.
    assert flops(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward()) == (2 + 5) * product


@pytest.mark.parametrize("preset", ["mini", "mini_full"])
def test_the_released_step_has_the_loss_of_the_kit_in_fp32(preset, setup, pairs, tmp_path):
    config = setup.config(preset).updated({"run.precision": "fp32"})
    trainer = Trainer(pairs, config, tmp_path)
    trainer.model.train()
    plan = Epoch(trainer.data, config.data, seed=0, epoch=1)
    recipe = ReleasedRecipe(config, trainer.steps, torch.device("cpu"))
    for step in range(2):
        trainer._step(plan, step)
        loss = recipe.step(plan.views(plan.rows(step, trainer.batch_size), "cpu"))
        # The second step starts from weights that both have moved.
        torch.testing.assert_close(torch.stack(loss).detach(), trainer.progress.terms[step], rtol=0, atol=1e-5)
    assert (loss.recyc_sketch > 0) == (preset == "mini_full")


def test_each_view_has_a_pass_of_its_own(setup):
    config = setup.config("mini_full")
    torch.manual_seed(0)
    model, sizes = ARNet.from_config(config), []
    for encoder in (model.sketch_encoder, model.photo_encoder):
        encoder.embed.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    views = [torch.rand(3, 3, 48, 48) for _ in range(4)]
    four_passes(model, Views(*views, torch.arange(3)))
    assert sizes == [3, 3, 3, 3]


@pytest.mark.parametrize("preset", ["mini", "basic"])
def test_the_released_loader_decodes_four_times_an_item(preset, setup, pairs, monkeypatch):
    decoded, decode = [], bench_released.decode
    monkeypatch.setattr(bench_released, "decode", lambda path: decoded.append(path) or decode(path))
    split, config = pairs.split("train"), setup.config(preset)
    data = PairDataset(split, config)
    *views, row = data[3]
    sketch, photo = split.sketches[3].path, split.photos[split.photo_index[3]].path
    assert decoded == [sketch, sketch, photo, photo]
    assert row == split.photo_index[3]
    assert len(data) == len(split.sketches)
    for view in views:
        assert view.shape == (3, 48, 48)
        assert 0 <= view.min() < view.max() <= 1
    assert not torch.equal(views[0], views[1])
    # The same kind of view as the kit makes: both show the same sketch.
    loaded = load_split(split, config.data, 48)
    assert F.mse_loss(PictureDataset([sketch], config)[0], loaded.sketches[3] / 255) < 0.01
    with pytest.raises(ValueError, match="unknown view 'A3'"):
        bench_released.view_of("A3", config.data, 48)


def test_released_workers_give_whole_batches(setup, pairs):
    config = setup.config("mini")
    loader = bench_released.pair_loader(pairs.split("train"), config)
    batches = list(loader)
    assert len(batches) == len(loader) == 4
    assert all(value.shape == (8, 3, 48, 48) for value in batches[0][:4])
    assert loader.num_workers >= 2
    rows = torch.cat([batch[4] for batch in batches]).tolist()
    assert sorted(rows) == sorted(pairs.split("train").photo_index.tolist())


def test_released_scores_are_those_of_the_kit(setup, pairs):
    config = setup.config("mini")
    torch.manual_seed(0)
    model, split = ARNet.from_config(config), pairs.split("test")
    data = load_split(split, config.data, 48)
    # PIL and torch do not shrink a picture to the last bit alike.
    ours, theirs = score_split(model, data), ReleasedEvaluation(split, config)(model)
    assert theirs.gallery == ours.gallery == 8
    assert abs(ours.ranks - theirs.ranks).mean() < 1
    assert model.training


def test_input(setup):
    rows = sound(bench_train.input_rows(setup), "views/s")
    assert [row.part for row in rows] == ["input, ViT-B/16 (basic) at 48 px", "input, mini at 48 px"]


def test_step(setup):
    rows = sound(bench_train.step_rows(setup), "views/s", "GFLOP/s")
    assert len(rows) == 9
    speed, operations, whole = rows[:3]
    assert speed.part == "step, ViT-B/16 (basic) at 48 px, batch 8"
    assert operations.part.rpartition(" ")[2] in ("fp32", "bf16")
    limit = LIMITS.bf16 if operations.part.endswith("bf16") else LIMITS.fp32
    assert operations.share_of_ceiling == pytest.approx(1e9 * operations.kit.median / limit)
    assert whole.against == "views ready"


def test_attention(setup):
    row, = sound(bench_train.attention_rows(setup), "ms")
    kernels = {row.part.rpartition(", ")[2], row.against}
    assert kernels == {"plain kernel", "fused kernel"}


def test_evaluation(setup):
    rows = sound(bench_train.evaluation_rows(setup), "images/s", "s")
    assert [row.part.rpartition(", ")[2] for row in rows] == ["24 images", "after an epoch", "24 images"]


def test_accuracy(setup, capsys):
    minutes, epochs = sound(bench_train.accuracy_rows(setup, target=-1), "min", "epochs")
    assert (epochs.kit.median, epochs.released.median) == (1, 1)
    assert minutes.ratio == pytest.approx(minutes.released.median / minutes.kit.median)
    minutes, epochs = bench_train.accuracy_rows(setup, target=100)
    assert "not reached | not reached" in minutes.as_line()
    said = capsys.readouterr().err
    assert "kit: epoch 2, validation Acc@1" in said
    assert "released recipe: epoch 2, validation Acc@1" in said


def test_import(setup, monkeypatch):
    commands = []
    monkeypatch.setattr("subprocess.run", lambda words, **options: commands.append((words[1:], options["check"])))
    rows = sound(bench_costs.import_rows(setup), "s")
    assert {row.against for row in rows} == {"import torch, timm"}
    assert (["-c", "import sbirlib"], True) in commands
    assert (["-m", "sbirlib", "--help"], True) in commands


def test_memory(setup, in_process, monkeypatch):
    held = iter(range(0, 10**9, 2**20))
    monkeypatch.setattr(bench_costs, "_held", lambda device: next(held))
    rows = sound(bench_costs.memory_rows(setup), "MiB", "s")
    assert [row.against for row in rows] == ["released recipe"] * 2 + ["whole batch"] * 2
    # As many pairs as are not held out, where 512 are asked for.
    assert rows[2].part.endswith("a step of 23 pairs in chunks")
    assert rows[0].kit == Spread(1, 1, 1)


def test_a_step_in_chunks_takes_less_memory_in_a_process_of_its_own(setup):
    config = setup.config("mini_full").updated({"optim.batch_size": 20})
    whole, chunked = (bench_costs._alone(bench_costs.step_memory, config.updated({"optim.chunk": chunk}))
                      for chunk in (0, 4))
    assert whole.batch == chunked.batch == 20
    assert 0 < chunked.memory < whole.memory


def test_costs(setup, in_process):
    rows = sound(bench_costs.cost_rows(setup), "min/epoch", "MiB")
    assert len(rows) == 2 * (4 + 3)
    assert [row.part for row in rows[-2:]] == ["costs, mini_full, half the photos and their sketches"] * 2
    assert {row.against for row in rows[-6:]} == {"mini_full as it is"}
    assert len(setup.pairs.split("train").photos) == 16


def test_panels_by_the_command(run, pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_panels, "UPDATES", 2)
    monkeypatch.setattr(bench, "ceilings", lambda device: LIMITS)
    monkeypatch.setitem(sys.modules, "sbirlib.bench_search", SimpleNamespace(
        search_rows=lambda limits: [Row("search, 1000", "ms", "lower", Spread.of([1]), None, limits.memory / 1e12)]))
    out = tmp_path / "rows.json"
    words = ["bench", "--part", "search", "panels", "--run", str(run), "--root", str(pairs.root), "--json", str(out)]
    assert main([*words, "--device", "cpu"]) == 0
    written, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert {"cpu", "cores", "threads", "gpu", "torch", "python", "precision", "fp32_gflops", "bf16_gflops",
            "memory_gbs"} <= set(written["machine"])
    assert written["machine"]["fp32_gflops"] == 1000
    search, *rows = written["rows"]
    assert search["share_of_ceiling"] == 0.1
    assert {row["part"].split(":")[0].removeprefix("panels, ") for row in rows} == {
        "PairBrowser", "ViewExplorer", "InfoNCEPanel", "RetrievalBrowser", "AttentionExplorer",
        "TokenDiscardExplorer", "DrawPanel", "RunComparer"}
    assert all(0 < median["kit"] <= slow["kit"] for median, slow in zip(rows[::2], rows[1::2], strict=True))
    assert TABLE_HEAD in printed
    assert "| panels, AttentionExplorer: query patch | ms |" in printed


def test_all_parts_but_the_panels_need_no_run(pairs, monkeypatch, capsys):
    monkeypatch.setattr(bench, "ceilings", lambda device: LIMITS)
    called = []
    monkeypatch.setattr(bench, "PARTS", {name: lambda setup, name=name: iter(called.append(name) or ())
                                         for name in bench.PARTS})
    assert main(["bench", "--root", str(pairs.root)]) == 0
    assert called == ["input", "step", "attention", "evaluation", "search", "accuracy", "import", "memory", "costs"]


@pytest.mark.parametrize(("words", "message"), [
    (["--part", "input", "speed"], "unknown part 'speed'; known: input, step"),
    (["--part", "panels"], "name one with --run RUN"),
    (["--root", "nowhere"], "nowhere: no such folder"),
    (["--run", "nowhere"], "nowhere is not a run"),
    (["--json", "nowhere/rows.json"], "the folder nowhere does not exist"),
    (["--repeats", "0"], "--repeats 0"),
    (["--batches", "16", "1"], "--batches 16 1"),
])
def test_bad_input_is_said_before_anything_is_measured(words, message, pairs, monkeypatch, capsys):
    def refuse(device):
        raise AssertionError("something was measured")

    monkeypatch.setattr(bench, "ceilings", refuse)
    root = [] if "--root" in words else ["--root", str(pairs.root)]
    assert main(["bench", *root, *words]) == 2
    assert message in capsys.readouterr().err


def test_presets_are_measured_from_scratch(setup):
    config = setup._replace(changes={}).config("basic")
    assert not config.model.pretrained
    assert config.updated({"model.pretrained": True, "run.tracker": "tensorboard", "run.device": "auto",
                           "data.root": Config().data.root}) == Config.preset("basic")
    with pytest.raises(InputError, match="unknown preset"):
        setup.config("speed")
