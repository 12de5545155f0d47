import csv
import hashlib
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.utils import set_seed
from safetensors.torch import load_file, save_file
from tools.trainers import trainer_of

from sbirlib import ARNet, Config, PairFolder, evaluate, load_run, train
from sbirlib.config.config import OptimConfig
from sbirlib.data.splits import PairError
from sbirlib.errors import ConfigError
from sbirlib.layers.backbone import Backbone
from sbirlib.methods.base import fingerprint
from sbirlib.panels.training import load_or_train
from sbirlib.runs.atomic import RunError
from sbirlib.runs.folder import Run
from sbirlib.training.setup import lr_factor, make_optimizer
from sbirlib.training.trainer import Trainer, TrainingError


def test_a_run_holds_what_it_promises(run, tiny, pairs):
    for name in ("best", "last"):
        assert sorted(p.name for p in (run / name).iterdir()) == ["config.yaml", "model.safetensors"]
        assert Config.from_yaml(run / name / "config.yaml") == tiny.updated({"data.root": str(pairs.root)})
    with (run / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(math.isfinite(float(row[name])) for row in rows for name in ("loss_multi", "val_acc@1", "lr"))
    assert sorted(p.name for p in run.iterdir()) == [
        ".run.lock", "best", "history.csv", "last", "start.yaml", "state",
    ]  # fmt: skip


def test_records_report_the_epoch(pairs, tiny, tmp_path):
    first, second = train(pairs, tiny, out=tmp_path / "run")
    assert (first.epoch, second.epoch) == (1, 2)
    terms = ("multi", "inter", "intra_sketch", "intra_photo")
    assert first.losses["total"] == pytest.approx(sum(first.losses[term] for term in terms), rel=1e-5)
    assert set(first.validation) == {"acc@1", "acc@5", "acc@10", "mrr"}
    assert first.best
    assert first.views_per_second > 0
    assert second.lr < first.lr
    assert "val Acc@1" in str(first)


def test_same_seed_same_weights_other_seed_others(run, pairs, tiny, tmp_path):
    weights = load_file(run / "last" / "model.safetensors")
    list(train(pairs, tiny, out=tmp_path / "again"))
    again = load_file(tmp_path / "again" / "last" / "model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    list(train(pairs, tiny.updated({"run.seed": 1, "run.epochs": 1}), out=tmp_path / "other"))
    other = load_file(tmp_path / "other" / "last" / "model.safetensors")
    assert not all(torch.equal(weights[name], other[name]) for name in weights)


def test_training_learns_what_it_is_shown(pairs, tiny, tmp_path):
    config = tiny.updated(
        {"run.epochs": 30, "data.val_fraction": 0, "data.first_view": "A0", "optim.lr": 2e-3}
    )
    records = list(train(pairs, config, out=tmp_path / "run"))
    assert records[-1].losses["total"] < 0.5 * records[0].losses["total"]
    scores = evaluate(load_run(tmp_path / "run"), pairs, "train")
    assert scores.accuracy[1].percent > 4 * 100 / 16


def test_stopping_early_leaves_a_run(pairs, tiny, tmp_path):
    records = train(pairs, tiny.updated({"run.epochs": 50}), out=tmp_path / "run")
    next(records)
    records.close()
    assert load_run(tmp_path / "run").config.run.epochs == 50
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 2


def test_without_validation_the_last_epoch_is_kept(pairs, tiny, tmp_path):
    records = list(train(pairs, tiny.updated({"data.val_fraction": 0}), out=tmp_path / "run"))
    assert [record.best for record in records] == [False, False]
    assert records[0].validation == {}
    assert Run(tmp_path / "run").chosen == "last"
    assert "of the last epoch" in load_run(tmp_path / "run").origin


def test_where_the_learning_rate_ends_at_zero_the_last_epoch_is_kept(pairs, tiny, tmp_path):
    cosine = tiny.updated({"run.keep": "auto", "run.epochs": 4})
    records = list(train(pairs, cosine, out=tmp_path / "run"))
    assert {record.queries for record in records} == {9}  # searched all the same
    assert not (tmp_path / "run" / "best").exists()
    # By these the notebooks tell whether there is a run that they can take.
    notebooks = [path.read_text() for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb")]
    asked = set(re.findall(r'run / \\"([\w.]+)\\"\)\.is_', "".join(notebooks)))
    assert asked
    assert all((tmp_path / "run" / name).exists() for name in asked)
    assert torch.equal(*(next(load_run(tmp_path / "run", which).parameters()) for which in (None, "last")))
    assert "of the last epoch" in str(evaluate(load_run(tmp_path / "run"), pairs))
    for changes, best in (
        ({"optim.schedule": "constant"}, True),
        ({"run.protocol": "released"}, True),
        ({"optim.schedule": "constant", "run.keep": "last"}, False),
        ({"run.keep": "best"}, True),
    ):
        assert cosine.updated(changes).chooses_best is best


def test_of_equally_good_epochs_the_later_is_best(pairs, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "validate", lambda *_: {"acc@1": 100.0, "acc@5": 100.0, "mrr": 1.0})
    records = list(train(pairs, tiny.updated({"run.epochs": 3}), out=tmp_path / "run"))
    assert [record.best for record in records] == [True, True, True]
    best, last = (load_file(tmp_path / "run" / name / "model.safetensors") for name in ("best", "last"))
    assert all(torch.equal(best[name], last[name]) for name in best)


def test_best_is_the_epoch_with_the_highest_validation_score(pairs, tiny, tmp_path):
    records = list(train(pairs, tiny.updated({"run.epochs": 6, "run.eval_every": 2}), out=tmp_path / "run"))
    searched = [record for record in records if record.validation]
    assert [record.epoch for record in searched] == [2, 4, 6]
    scores = [(record.validation["acc@1"], record.validation["mrr"]) for record in searched]
    chosen = [record for record in records if record.best][-1]
    assert chosen is searched[scores.index(max(scores))]


def test_an_existing_run_is_not_lost(pairs, tiny, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    words = r"already holds best, last, state, history.csv, start.yaml, a run; .*--overwrite"
    with pytest.raises(FileExistsError, match=words):
        train(pairs, tiny, out=tmp_path / "run")
    assert load_run(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    list(train(pairs, tiny.updated({"run.epochs": 1}), out=tmp_path / "run", overwrite=True))
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 2
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_faults_are_found_before_training_starts(tiny, tmp_path):
    with pytest.raises(PairError, match="no such folder"):
        train(tmp_path / "nowhere", tiny, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["arnet", "b_siamese"])
def test_a_training_that_begins_with_smaller_images(pairs, tiny, tmp_path, monkeypatch, method):
    seen, forward = [], Backbone.forward

    def watched(backbone, images):
        if backbone.training:
            seen.append(images.shape[-1])
        return forward(backbone, images)

    changes = {"run.sizes": (0.5, 0.75), "run.epochs": 5, "model.backbone": "test_efficientnet"}
    config = tiny.updated({"method": method, "model.image_size": 64, "model.pool": "mean"} | changes)
    epochs = train(pairs, config, out=tmp_path / "run")
    monkeypatch.setattr(Backbone, "forward", watched)
    for number, record in enumerate(epochs):
        assert set(seen) == {32 if number < 2 else 48}
        assert math.isfinite(record.losses["total"])
        seen.clear()
    monkeypatch.undo()
    # What searches sees pictures in their whole size.
    assert load_run(tmp_path / "run").image_size == 64


def test_a_backbone_for_one_size_refuses_others_before_anything_is_written(pairs, tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"run.sizes = \(0.5,\): .* leave it empty, or choose a CNN"):
        train(pairs, tiny.updated({"run.sizes": (0.5,)}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="run.sizes"):
        tiny.updated({"run.sizes": (96,)})


def test_tensorboard_curves_are_written(pairs, tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    list(train(pairs, tiny.updated({"run.tracker": "tensorboard"}), out=tmp_path / "run"))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss_total")] == [1, 2]
    assert "val_acc@1" in events.Tags()["scalars"]


def test_bf16_trains(pairs, tiny, tmp_path):
    seen = []

    def look(module, inputs, output):
        if isinstance(module, torch.nn.Linear) and output.requires_grad:
            seen.append(output.dtype)

    hook = torch.nn.modules.module.register_module_forward_hook(look)
    try:
        # A second precision in the same process is not refused.
        for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
            seen.clear()
            config = tiny.updated({"run.epochs": 1, "run.precision": precision})
            [record] = train(pairs, config, out=tmp_path / precision)
            assert math.isfinite(record.losses["total"])
            assert set(seen) == {dtype}
    finally:
        hook.remove()


def test_a_run_stopped_before_its_first_search_can_be_loaded(pairs, tiny, tmp_path):
    records = train(pairs, tiny.updated({"run.eval_every": 2}), out=tmp_path / "run")
    assert next(records).best
    records.close()
    assert load_run(tmp_path / "run")


def test_what_cannot_teach_anything_is_refused(pairs, tiny, tmp_path):
    terms = ("multi", "inter", "intra_sketch", "intra_photo")
    with pytest.raises(ConfigError, match="all 0"):
        train(pairs, tiny.updated({f"loss.{term}": 0 for term in terms}), out=tmp_path / "run")
    for name in ("trainA/a_1", "trainA/a_2", "trainB/a", "trainB/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(pairs.split("train").photos[0].path, tmp_path / f"{name}.png")
    config = tiny.updated({"data.on_fault": "skip", "data.val_fraction": 0})
    with pytest.raises(PairError, match="only one photo has a sketch"):
        train(tmp_path, config, out=tmp_path / "run")


def test_skipped_files_are_counted_in_every_record(pairs, tiny, tmp_path):
    shutil.copytree(pairs.root, tmp_path / "data")
    (tmp_path / "data" / "trainA" / "stray_01.png").write_text("no image")
    records = list(train(tmp_path / "data", tiny.updated({"data.on_fault": "skip"}), out=tmp_path / "run"))
    assert [record.skipped for record in records] == [1, 1]
    assert "(1 files skipped)" in str(records[0])
    assert (tmp_path / "run" / "history.csv").read_text().splitlines()[0].endswith(",skipped")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_missing_gpu_is_named(pairs, tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"run\.device = 'cuda'"):
        train(pairs, tiny.updated({"run.device": "cuda"}), out=tmp_path / "run")


def test_a_loss_that_is_no_number_stops_training_and_keeps_the_last_good_weights(
    pairs, tiny, tmp_path, monkeypatch
):
    records = train(pairs, tiny.updated({"run.epochs": 3}), out=tmp_path / "run")
    next(records)
    compare = ARNet.compare
    monkeypatch.setattr(
        ARNet, "compare", lambda *given: {name: term * math.nan for name, term in compare(*given).items()}
    )
    with pytest.raises(TrainingError, match=r"epoch 2, step 1, with the sketches \d+_\d+\.png"):
        next(records)
    assert all(weight.isfinite().all() for weight in load_run(tmp_path / "run", "last").state_dict().values())


def test_a_gradient_that_is_no_number_stops_training_though_the_loss_was_one(pairs, tiny, tmp_path):
    out = tmp_path / "run"
    trainer = trainer_of(
        pairs, tiny.updated({"run.epochs": 3, "data.root": str(pairs.root), "run.save_minutes": 0}), out
    )
    records = trainer.epochs()
    next(records)
    next(trainer.model.parameters()).register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(
        TrainingError, match=r"the loss or its gradient is no longer a number in epoch 2, step 1,"
    ):
        next(records)
    for name in ("best", "last"):
        assert all(weight.isfinite().all() for weight in load_run(out, name).state_dict().values())
    newest = Run(out).checkpoints[-1]
    assert newest.name == "000002-000000"
    assert all(weight.isfinite().all() for weight in load_file(newest / "model.safetensors").values())


def test_a_run_that_was_stopped_early_is_taken_as_it_is_and_said_to_be(pairs, tiny, tmp_path, capsys):
    records = train(pairs, tiny.updated({"run.epochs": 9}), out=tmp_path / "run")
    next(records)
    records.close()
    (tmp_path / "run" / "best").rename(
        tmp_path / "run" / ".best.old"
    )  # as a process killed in between leaves it
    model = load_or_train(pairs, tiny, out=tmp_path / "run")
    assert model.config.run.epochs == 9
    assert "was stopped after epoch 1 of 9" in capsys.readouterr().out


def test_a_batch_is_not_split_where_its_images_see_each_other(pairs, tiny, tmp_path):
    for changes, message in (
        ({"model.backbone": "resnet18"}, "resnet18 has BatchNorm, whose statistics optim.chunk"),
        (
            {"mstr.enabled": True, "mstr.scales": (1,), "mstr.attention": "batch"},
            "lets the images of a batch see each other",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            train(pairs, tiny.updated({**changes, "optim.chunk": 4}), out=tmp_path / "run")


def test_warm_up_then_half_a_cosine():
    config = Config().updated({"optim.warmup": 2, "optim.schedule": "cosine", "run.epochs": 12})
    factor = lr_factor(config.optim, 5, 12)
    assert [factor(step) for step in range(3)] == pytest.approx([0.1, 0.2, 0.3])
    assert factor(10) == 1
    assert factor(35) == pytest.approx(0.5)
    assert factor(60) == pytest.approx(0, abs=1e-9)
    constant = config.updated({"optim.schedule": "constant"})
    assert lr_factor(constant.optim, 5, 12)(50) == 1


def test_adamw_spares_biases_and_norms():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    groups = make_optimizer(model, OptimConfig(name="adamw", weight_decay=0.1)).param_groups
    decayed = [p for group in groups if group["weight_decay"] for p in group["params"]]
    assert [p.shape for p in decayed] == [(3, 3)]


def test_gradients_are_clipped(pairs, tiny, tmp_path):
    trainer = trainer_of(pairs, tiny.updated({"optim.clip": 1e-3}), tmp_path)
    norms = []
    step = trainer.optimizer.step
    trainer.optimizer.step = lambda: (norms.append(_norm(trainer.model)), step())
    trainer._epoch()
    assert len(norms) == len(trainer.data.sketches) // 8
    assert max(norms) <= 1.001e-3


def _norm(model):
    return torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()


def test_the_model_in_a_run_is_the_model_that_was_trained(pairs, tiny, tmp_path):
    config = tiny.updated({"data.root": str(pairs.root), "run.epochs": 1, "run.precision": "fp32"})
    trainer = trainer_of(PairFolder(pairs.root), config, tmp_path / "run")
    list(trainer.epochs())
    loaded = load_run(tmp_path / "run", "last")
    images = torch.rand(2, 3, 48, 48)
    assert torch.equal(loaded.embed_photos(images), trainer.model.eval().embed_photos(images))


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("share", [False, True])
def test_shared_encoders_survive_saving(pairs, tiny, tmp_path, share, edges):
    config = tiny.updated({"model.share_encoders": share, "model.photo_edges": edges, "run.epochs": 1})
    list(train(pairs, config, out=tmp_path / "run"))
    model = load_run(tmp_path / "run")
    sketch, photo = (
        {id(p) for p in encoder.parameters()} for encoder in (model.sketch_encoder, model.photo_encoder)
    )
    assert sketch == photo if share else not sketch & photo


def test_what_is_not_a_run_is_refused(run, tmp_path):
    with pytest.raises(RunError, match="is not a run: no such folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(RunError, match="is not a run: last/ has no model.safetensors and no config.yaml"):
        load_run(tmp_path)
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run" / "best" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match="model.safetensors: is damaged"):
        load_run(tmp_path / "run")
    save_file({"other": torch.ones(1)}, weights)
    with pytest.raises(RunError, match="of another model"):
        load_run(tmp_path / "run")
    weights.write_bytes(whole)
    config = tmp_path / "run" / "best" / "config.yaml"
    config.write_text(yaml.safe_dump({"model": {"backbone": "sbir_mini", "depth": 3}}))
    with pytest.raises(RunError, match=r"config.yaml: unknown field 'model.depth'"):
        load_run(tmp_path / "run")
    assert load_run(tmp_path / "run", "last")


def test_a_run_records_where_its_weights_come_from(run, pairs, tiny, tmp_path):
    start = yaml.safe_load((run / "start.yaml").read_text())
    assert (start["backbone"], start["weights"]) == ("sbir_mini", "from scratch, seed 0")
    config = Config.from_yaml(run / "best" / "config.yaml")
    set_seed(config.run.seed)
    assert start["backbone_sha256"] == fingerprint(ARNet.from_config(config).photo_encoder.backbone)

    encoder = Backbone("sbir_mini", image_size=48).encoder
    torch.save(encoder.state_dict(), tmp_path / "weights.pth")
    from_file = tiny.updated({"model.weights": str(tmp_path / "weights.pth"), "run.epochs": 1})
    list(train(pairs, from_file, out=tmp_path / "run"))
    start = yaml.safe_load((tmp_path / "run" / "start.yaml").read_text())
    assert start["weights"] == f"file {tmp_path / 'weights.pth'}"
    assert start["weights_file_sha256"] == hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    assert start["backbone_sha256"] != fingerprint(ARNet.from_config(config).photo_encoder.backbone)
    # The run needs the file no more.
    (tmp_path / "weights.pth").unlink()
    assert load_run(tmp_path / "run").config.model.weights


def test_full_trains_its_transformers_and_saves_them(pairs, tiny, tmp_path):
    full = tiny.updated({"mstr.enabled": True, "mstr.scales": (1, 2, 4), "mstr.heads": 4, "run.epochs": 1})
    [record] = train(pairs, full, out=tmp_path / "run")
    assert record.losses["recyc_sketch"] > 0
    weights = load_file(tmp_path / "run" / "last" / "model.safetensors")
    trained = weights["photo_encoder.mstr.transformers.2.layers.0.linear1.weight"]
    set_seed(0)
    first = ARNet.from_config(full).photo_encoder.mstr.transformers[2].layers[0].linear1.weight
    assert not torch.allclose(trained, first)
    images = torch.rand(2, 3, 48, 48)
    assert torch.equal(
        load_run(tmp_path / "run").embed_photos(images), load_run(tmp_path / "run").embed_photos(images)
    )


def test_the_released_protocol_selects_on_test_and_says_so(pairs, tiny, tmp_path):
    config = tiny.updated({"run.protocol": "released", "run.precision": "fp32"})  # as evaluate computes
    records = list(train(pairs, config, out=tmp_path / "run"))
    assert {record.selected_on for record in records} == {"TEST SET"}
    assert "TEST Acc@1" in str(records[0])
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        assert {row["selected_on"] for row in csv.DictReader(file)} == {"TEST SET"}
    scores = evaluate(load_run(tmp_path / "run"), pairs)
    assert "CHOSEN ON THE TEST SET" in str(scores)
    assert scores.accuracy[1].percent == max(record.validation["acc@1"] for record in records)
    trainer = trainer_of(pairs, config, tmp_path)
    assert len(trainer.data.split.photos) == len(pairs.split("train").photos)


def test_released_behaviours_of_a_run_are_named_with_its_score(pairs, tiny, tmp_path):
    list(train(pairs, tiny.updated({"loss.mask_duplicates": False, "run.epochs": 1}), out=tmp_path / "run"))
    assert "as in the released code: loss.mask_duplicates" in str(evaluate(load_run(tmp_path / "run"), pairs))


def test_the_file_pattern_of_the_configuration_is_used_and_recorded(tiny, clothes, tmp_path):
    config = tiny.updated({"data.pattern": "one_character"})
    # MiniClothes numbers its sketches with two digits.
    with pytest.raises(PairError, match="one_character overlooks all"):
        train(PairFolder(clothes), config, out=tmp_path / "run")
