"""Every part of the benchmark on tiny settings: that rows are what they say, never how fast this machine is."""

import multiprocessing
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch
from timm.layers import Attention
from torch.nn import functional as F

from sbirlib import ARNet, Config
from sbirlib.bench import costs as bench_costs
from sbirlib.bench import recipe as bench_released
from sbirlib.bench import train as bench_train
from sbirlib.bench.measure import TABLE_HEAD, Ceilings, Failed, Spread
from sbirlib.bench.recipe import PairDataset, PictureDataset, ReleasedEvaluation, ReleasedRecipe, four_passes
from sbirlib.bench.train import Setup
from sbirlib.data.batches import Epoch, Views
from sbirlib.data.loading import load_split
from sbirlib.errors import InputError
from sbirlib.retrieval.scores import score_split
from sbirlib.training import setup as train_setup
from sbirlib.training.trainer import Trainer

LIMITS = Ceilings(fp32=1e12, bf16=2e12, memory=1e11)
TINY = {
    "model.backbone": "sbir_mini",
    "model.image_size": 48,
    "model.embed_dim": 16,
    "optim.batch_size": 8,
    "mstr.scales": (1, 2),
    "mstr.dropout": 0.0,
    "run.epochs": 2,
    "optim.warmup": 0,
    "data.val_fraction": 0.25,
    "run.device": "cpu",
}


@pytest.fixture
def setup(pairs, monkeypatch):
    monkeypatch.setattr(bench_train, "ENOUGH", 0.0)
    return Setup(pairs, lambda device: LIMITS, "cpu", repeats=1, batches=(8,), changes=TINY)


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
        assert row.beside is None or 0 < row.beside.low <= row.beside.median <= row.beside.high
        assert row.as_line().count("|") == TABLE_HEAD.splitlines()[0].count("|")
    return rows


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
        # The second step starts from weights that both have moved. Losses of 50 round at 4e-6.
        torch.testing.assert_close(
            torch.stack(loss).detach(), trainer.progress.terms[step], rtol=5e-7, atol=1e-5
        )
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


def test_processes_that_decode_end_with_the_measurement(setup, pairs):
    config, before = setup.config("mini"), multiprocessing.active_children()
    loader = bench_released.pair_loader(pairs.split("train"), config)
    anew = ReleasedEvaluation(pairs.split("test"), config)
    for _ in range(2):  # they can be started again
        with bench_released.decoding(loader, *anew.loaders):
            next(iter(loader)), anew(ARNet.from_config(config))
            assert len(multiprocessing.active_children()) == len(before) + 3 * bench_released.workers()
        assert multiprocessing.active_children() == before


def test_one_worker_for_each_core_that_may_be_used(monkeypatch):
    monkeypatch.setattr(bench_released, "cores", lambda: 5)
    assert bench_released.workers() == 5
    monkeypatch.setattr(bench_released, "cores", lambda: 1)
    assert bench_released.workers() == 2


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


def test_a_step_without_memory_for_the_recipe_still_has_the_rows_of_the_kit(setup, monkeypatch):
    def short(recipe, views):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ReleasedRecipe, "step", short)
    failed, *rows = bench_train.step_rows(setup._replace(batches=(8, 4)))
    assert failed == Failed(
        "step, ViT-B/16 (basic) at 48 px, batch 8, beside the released recipe",
        "memory does not suffice: CUDA out of memory",
    )
    assert [row.unit for row in rows if not isinstance(row, Failed)] == ["GFLOP/s", "views/s"] * 4


def test_a_batch_without_memory_for_the_kit_is_left_out_and_the_next_measured(setup, monkeypatch):
    step = Trainer._step

    def short(trainer, plan, number):
        if trainer.batch_size == 16:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        step(trainer, plan, number)

    monkeypatch.setattr(Trainer, "_step", short)
    found = list(bench_train.step_rows(setup._replace(batches=(16, 8))))
    assert [result.part for result in found if isinstance(result, Failed)] == [
        "step, ViT-B/16 (basic) at 48 px, batch 16, beside the released recipe",
        "step, ViT-B/16 (basic) at 48 px, batch 16",
    ]
    assert found[2].part == "step, ViT-B/16 (basic) at 48 px, batch 8"
    assert len(found) == 2 + 9


@pytest.mark.parametrize("bf16", [False, True])
def test_attention(bf16, setup, monkeypatch):
    seen = []
    monkeypatch.setattr(train_setup, "wants_bf16", lambda precision, device: bf16)
    monkeypatch.setattr(
        Attention,
        "forward",
        lambda layer, x, forward=Attention.forward: (
            seen.append((x.shape[0], torch.is_autocast_enabled("cpu"))) or forward(layer, x)
        ),
    )
    (row,) = sound(bench_train.attention_rows(setup._replace(pairs=None)), "ms")
    # Both views of a domain: an encoder sees no more at once.
    assert set(seen) == {(2 * 8, bf16)}
    _, images, precision, kernel = row.part.split(", ")
    assert (images, precision) == ("16 images", "bf16" if bf16 else "fp32")
    assert {kernel, row.against} == {"plain kernel", "fused kernel"}


def test_evaluation(setup):
    rows = sound(bench_train.evaluation_rows(setup), "images/s", "s")
    assert [row.part.rpartition(", ")[2] for row in rows] == ["24 images", "after an epoch", "24 images"]


def test_accuracy(setup, capsys):
    minutes, epochs = sound(bench_train.accuracy_rows(setup, target=-1), "min", "epochs")
    assert (epochs.kit.median, epochs.beside.median) == (1, 1)
    assert minutes.ratio == pytest.approx(minutes.beside.median / minutes.kit.median)
    minutes, epochs = bench_train.accuracy_rows(setup, target=100)
    assert "not reached | not reached" in minutes.as_line()
    said = capsys.readouterr().err
    assert "kit: epoch 2, validation Acc@1" in said
    assert "released recipe: epoch 2, validation Acc@1" in said


def test_import(setup, monkeypatch):
    commands = []
    monkeypatch.setattr(
        "subprocess.run", lambda words, **options: commands.append((words[1:], options["check"]))
    )
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


def test_a_measuring_process_that_is_killed_costs_its_own_rows_alone(setup, monkeypatch):
    def alone(measure, config):
        if config.optim.batch_size == 4:
            raise BrokenProcessPool
        return bench_costs.StepCost(min(config.optim.batch_size, 23), 7.0, 1.0)

    monkeypatch.setattr(bench_costs, "_alone", alone)
    found = list(bench_costs.memory_rows(setup._replace(batches=(4, 6))))
    assert found[1] == Failed(
        "memory, ViT-B/16 (basic) at 48 px, a step of 4 pairs",
        "the process that measured it was killed, as systems do when memory runs out",
    )
    assert [row.part.rpartition(" of ")[2] for row in found[2:]] == ["6 pairs", *["23 pairs in chunks"] * 2]


def test_a_step_in_chunks_takes_less_memory_in_a_process_of_its_own(setup):
    config = setup.config("mini_full").updated({"optim.batch_size": 20})
    whole, chunked = (
        bench_costs._alone(bench_costs.step_memory, config.updated({"optim.chunk": chunk}))
        for chunk in (0, 4)
    )
    assert whole.batch == chunked.batch == 20
    assert 0 < chunked.memory < whole.memory


def test_costs(setup, in_process):
    rows = sound(bench_costs.cost_rows(setup), "min/epoch", "MiB")
    assert len(rows) == 2 * (4 + 3)
    assert [row.part for row in rows[-2:]] == ["costs, mini_full, half the photos and their sketches"] * 2
    assert {row.against for row in rows[-6:]} == {"mini_full as it is"}
    assert len(setup.pairs.split("train").photos) == 16


def test_costs_without_those_of_mini_full_stand_alone(setup, monkeypatch):
    def alone(measure, config, share):
        if config == setup.config("mini_full") and share == 1:
            raise BrokenProcessPool
        return bench_costs.EpochCost(2.0, 30.0)

    monkeypatch.setattr(bench_costs, "_alone", alone)
    found = list(bench_costs.cost_rows(setup))
    (failed,) = (result for result in found if isinstance(result, Failed))
    assert failed.part == "costs, mini_full at 48 px, batch 8"
    assert [row.beside for row in found[-6:]] == [None] * 6
    assert len(found) == 1 + 2 * 6


@pytest.mark.parametrize(("share", "photos"), [(1.0, 16), (0.75, 12), (0.5, 8), (0.25, 4)])
def test_the_share_of_the_photos_is_what_is_trained_on(share, photos, pairs):
    split = bench_costs.reduced(pairs.split("train"), share, 0)
    assert (split.name, len(split.photos)) == ("train", photos)
    assert {sketch.photo_id for sketch in split.sketches} == {photo.id for photo in split.photos}


def test_presets_are_measured_from_scratch(setup):
    config = setup._replace(changes={}).config("basic")
    assert not config.model.pretrained
    assert config.updated(
        {
            "model.pretrained": True,
            "run.tracker": "tensorboard",
            "run.device": "auto",
            "data.root": Config().data.root,
        }
    ) == Config.preset("basic")
    with pytest.raises(InputError, match="unknown preset"):
        setup.config("speed")
