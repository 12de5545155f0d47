"""EUPS in training: what each stage touches, stopping in either, chunks, photos without a sketch or none."""

import warnings

import pytest
import torch
from safetensors.torch import load_file
from tools.trainers import trainer_of

from sbirlib import load_run, train
from sbirlib.experiments.ablation import ablate
from sbirlib.experiments.finished import summary
from sbirlib.experiments.grids import Variant
from sbirlib.methods import EUPS
from sbirlib.runs.folder import describe
from sbirlib.training.signals import Stop
from sbirlib.training.steps import backward

PARTS = {
    "averages": ("sketch_encoder", "photo_encoder"),
    "learners": ("sketch_learner", "photo_learner"),
    "teacher": ("teacher",),
}


@pytest.fixture(scope="module")
def config(tiny, pairs):
    """Two epochs of three steps, one for each stage, with BatchNorm and photos without a sketch."""
    return tiny.updated(
        {
            "method": "eups",
            "model.backbone": "test_resnet",
            "model.image_size": 64,
            "data.unlabelled": str(pairs.root / "testB"),
            "optim.batch_size": 6,
            "run.device": "cpu",
            "run.precision": "fp32",
            "run.save_minutes": 0,
        }
    )


@pytest.fixture(scope="module")
def whole(config, pairs, tmp_path_factory):
    """The run that nobody interrupts, and its records."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, list(train(pairs, config, out=out))


def test_each_stage_leaves_the_others_weights_and_statistics_alone(config, pairs, tmp_path):
    trainer = trainer_of(pairs, config, tmp_path / "run")

    def state():
        return {name: value.clone() for name, value in trainer.method.state_dict().items()}

    def moved(before, after):
        changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        return {part for part, names in PARTS.items() if changed & set(names)}

    states = [state()]
    for _ in trainer.epochs():
        states.append(state())
    assert moved(states[0], states[1]) == {"teacher"}
    assert moved(states[1], states[2]) == {"averages", "learners"}
    assert any("running_mean" in name for name in states[0])


def test_the_terms_of_a_stage_are_those_of_its_photos_and_sketches(whole):
    out, (first, second) = whole
    assert first.losses["intra_photo"] == first.losses["total"] > 0
    assert all(first.losses[name] == 0 for name in EUPS.terms[3:] if name.startswith("distil"))
    assert all(second.losses[name] > 0 for name in EUPS.terms)
    assert "without_sketch: 8\n" in describe(out)
    # Of 18 pairs in an epoch: four views, then two of sketches, three of photos and two for the teacher.
    assert second.views_per_second * second.seconds == pytest.approx(18 * (0.4 * 4 + 0.6 * 7))


@pytest.mark.parametrize("steps", [2, 5])
def test_a_run_stopped_in_the_middle_of_either_stage_goes_on_exactly(
    whole, config, pairs, tmp_path, monkeypatch, steps
):
    stop, done, after_step = Stop(), [], EUPS.after_step

    def stopping(self):
        done.append(self.stage)
        after_step(self)
        if len(done) == steps:
            stop.ask(now=True)

    with monkeypatch.context() as patch:
        patch.setattr(EUPS, "after_step", stopping)
        records = list(train(pairs, config, out=tmp_path / "run", stop=stop))
    assert done == ["teacher"] * min(steps, 3) + ["student"] * (steps - 3)
    records += list(train(pairs, config, out=tmp_path / "run", resume=True))
    assert [record.losses for record in records] == [record.losses for record in whole[1]]
    one, two = (load_file(out / "last" / "model.safetensors") for out in (whole[0], tmp_path / "run"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_chunks_have_the_gradient_of_the_whole_batch(config, pairs, tmp_path, stage):
    trainer = trainer_of(pairs, config.updated({"model.keep_statistics": True}), tmp_path / "run")
    trainer.method.stage = stage
    trainer.method.train().requires_grad_(True)
    found = []
    for chunk in (0, 3):
        terms = backward(trainer.accelerator, trainer.model, trainer.plan(1), torch.arange(8), (0, 0), chunk)
        gradients = {name: weight.grad for name, weight in trainer.method.named_parameters()}
        found.append((terms, torch.cat([grad.flatten() for grad in gradients.values() if grad is not None])))
        trainer.model.zero_grad()
    learning = {name.split(".")[0] for name, grad in gradients.items() if grad is not None}
    assert learning == ({"teacher"} if stage == "teacher" else {"sketch_learner"})
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-4)
    assert (found[0][1] - found[1][1]).norm() <= 1e-4 * found[0][1].norm() > 0
    trainer.files.release()


def test_what_is_searched_with_is_the_average(whole):
    model, pictures = load_run(whole[0], "last"), torch.rand(3, 3, 64, 64)
    rows = model.embed_photos(pictures)
    torch.testing.assert_close(rows, torch.nn.functional.normalize(model.photo_encoder(pictures), dim=1))
    learner = torch.nn.functional.normalize(model.photo_learner(pictures), dim=1)
    assert (rows - learner).norm() > 1e-4


def test_a_run_without_unlabelled_photos_says_so(config, pairs, tmp_path):
    alone = config.updated({"data.unlabelled": "", "data.root": str(pairs.root)})
    with pytest.warns(UserWarning, match="method eups wants photos without a sketch: .* are left out"):
        [row] = ablate(alone, [Variant("alone", {})], (0,), out=tmp_path)
    assert row.score["unlabelled"] == 0
    assert "\nalone (no unlabelled) " in summary(tmp_path)
    assert "without_sketch: 0\n" in describe(tmp_path / "runs" / "alone@0")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        [row] = ablate(
            config.updated({"data.root": str(pairs.root)}), [Variant("with", {})], (0,), out=tmp_path
        )
    assert row.score["unlabelled"] == 8
    assert "\nwith  " in summary(tmp_path)
