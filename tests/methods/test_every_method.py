"""Every method with every kind of backbone, through everything that a run goes through."""

import itertools
import re
import shutil
from pathlib import Path

import pytest
import torch
from tools.round_trip import assert_alike, trained, view
from tools.steps import EXACT, gradients, launch

from sbirlib import Gallery, PairFolder, load_run, train
from sbirlib.config.methods import GROUPS
from sbirlib.data import load_split, to_float
from sbirlib.errors import ConfigError
from sbirlib.methods import METHODS, build
from sbirlib.miniclothes.dataset import draw_miniclothes
from sbirlib.retrieval import embed_split, score_all
from sbirlib.runs.folder import Run, describe
from sbirlib.training.setup import check_exactness, stage_ends

# A plain ViT without and with CLS, a CNN with BatchNorm; and the pictures that they see.
BACKBONES = {"sbir_mini": 48, "test_vit": 64, "test_resnet": 64}
# Maps of small pictures have few cells.
OWN = {
    "sketch_aa": {"sketch_aa.levels": (1, 2)},
    "part_sbir": {"part_sbir.regions": 2},
    "on_the_fly": {"on_the_fly.steps": 3},
    "nt_sbir": {"nt_sbir.entropy": 0.1},  # untrained, all sets of strokes fare nearly alike
}
STEPS = 2  # of an epoch: nine sketches that are learnt from, four in a batch
SHARED = {"shared": True, "separate": False}


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Photos with one sketch and with two; beside them is a folder of photos with none."""
    root = tmp_path_factory.mktemp("few") / "MiniClothes"
    draw_miniclothes(root, photos=(8, 4), sketches=(11, 4), size=48)
    shutil.copytree(root / "testB", root.parent / "unlabelled")
    return PairFolder(root)


@pytest.fixture
def config_of(tiny, few):
    """A tiny configuration of a method: one epoch, or if it has stages one more than these."""

    def make(method, backbone="sbir_mini", **model):
        data = {"data.root": str(few.root), "data.unlabelled": str(few.root.parent / "unlabelled")}
        config = tiny.updated({"method": method, **data, **OWN.get(method, {})})
        model |= {"backbone": backbone, "image_size": BACKBONES[backbone]}
        # Without chance, where a test does not ask for it.
        still = {name: 0.0 for name in config.flat() if name.endswith(".dropout")}
        config = config.updated(
            {f"model.{name}": value for name, value in model.items()}
            | still
            | {
                "model.photo_edges": METHODS[method].needs.edges,
                "optim.batch_size": 4,
                "run.precision": "fp32",
                "run.device": "cpu",
            }
        )
        stages = len(build(config).stages())
        return config.updated({"run.epochs": 1 if stages == 1 else stages + 1})

    return make


@pytest.mark.parametrize("share", SHARED.values(), ids=SHARED)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_every_method(few, config_of, tmp_path, monkeypatch, method, backbone, share):
    config = config_of(method, backbone, share_encoders=share)
    # Git is asked at every start, which takes a while.
    monkeypatch.setattr("sbirlib.runs.records.code_state", lambda: "not asked for")
    records, expected = trained(monkeypatch, few, config, tmp_path / "whole")
    assert len(records) == config.run.epochs
    assert all(set(record.losses) == set(METHODS[method].terms) for record in records)
    assert records[-1].losses["total"] != 0  # below 0 where it is a reward

    # Stopped in the middle of the first epoch of each stage, and moved.
    run, done = tmp_path / "run", 0
    for begin in (0, *stage_ends(build(config).stages(), config.run.epochs)[:-1]):
        stop_after = STEPS * begin + 1 - done
        trained(monkeypatch, few, config, run, stop_after=stop_after, resume=done > 0)
        done += stop_after
        assert f"{begin + 1:06d}-000001" in [place.name for place in Run(run).checkpoints]
        run = run.rename(tmp_path / f"moved{begin}")
    _, live = trained(monkeypatch, few, config, run, resume=True)
    first, second = expected.state_dict(), live.state_dict()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []

    loaded, saved = load_run(run, "last"), tmp_path / "photos.safetensors"
    assert type(loaded) is METHODS[method]
    assert_alike(view(loaded, few, saved), view(live, few, saved))
    assert_finds_what_scores_best(loaded, few, Gallery.load(saved, loaded), config)
    text = describe(run)
    assert f"method {method}" in text
    others = {group for groups in GROUPS.values() for group in groups} - set(GROUPS[method])
    assert not re.search(rf"^  ({'|'.join(others)})\.", text, re.MULTILINE)


def assert_finds_what_scores_best(model, pairs, gallery, config):
    """A search shows the photo that scoring puts first."""
    data = load_split(pairs.split("test"), config.data, model.image_size)
    scores = score_all(model.score, *embed_split(model, data))
    assert scores.isfinite().all()
    paths = [photo.path for photo in data.split.photos]
    for row, sketch in enumerate(to_float(data.sketches, "cpu")):
        [hit] = gallery.search(sketch, k=1)
        assert hit.similarity == pytest.approx(scores[row].max().item(), abs=1e-4)
        assert scores[row, paths.index(hit.path)] >= scores[row].max() - 1e-4


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_chunks_take_the_step_of_a_batch_or_are_refused(few, config_of, tmp_path, method, backbone):
    norm = "BatchNorm" if backbone == "test_resnet" else ""
    config = config_of(method, backbone, keep_statistics=bool(norm))
    model, rows = build(config), torch.arange(7)
    why = f"{backbone} has BatchNorm, whose statistics optim.chunk = 1" if norm else ""
    if why := model.indivisible or why:
        chunks = config_of(method, backbone).updated({"optim.chunk": 1})
        with pytest.raises(ConfigError, match=why):
            train(few, chunks, out=tmp_path / "run")
    for stage in () if model.indivisible else model.stages():
        whole, cached = (gradients(config, few, rows, chunk, stage=stage.name) for chunk in (0, 3))
        torch.testing.assert_close(cached[0], whole[0], atol=1e-5, rtol=1e-5)
        assert whole[1].any()
        assert (cached[1] - whole[1]).norm() <= 1e-5 * whole[1].norm()


def test_two_processes_take_the_step_of_one_or_are_refused(pairs, config_of, tmp_path):
    configs, words = {}, []
    for method, share in itertools.product(METHODS, SHARED.values()):
        config = config_of(method, share_encoders=share).updated({"data.root": str(pairs.root)})
        model = build(config)
        if model.indivisible or len(model.stages()) > 1:
            why = model.indivisible or f"method {method} trains different weights in turn"
            with pytest.raises(ConfigError, match=why):
                check_exactness(model, config, processes=2)
            continue
        check_exactness(build(config), config, processes=2)
        name = f"{method}-{share}"
        configs[name] = config.updated(EXACT if method == "arnet" else {})
        configs[name].to_yaml(tmp_path / f"{name}.yaml")
        words += [str(tmp_path / f"{name}.yaml"), "0", str(tmp_path / f"{name}.pt")]
    launch(2, str(Path(__file__).parents[1] / "tools" / "one_step.py"), *words)
    for name, config in configs.items():
        found = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        terms, whole = gradients(config, pairs, torch.arange(16), 0)
        torch.testing.assert_close(found["terms"], terms, atol=1e-5, rtol=1e-5)
        assert (found["gradient"] - whole).norm() <= 1e-5 * whole.norm(), name
