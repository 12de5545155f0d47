"""The table of all methods: what they share, its baselines, and what stands beside them."""

import csv
import itertools
import shutil

import numpy as np
import pytest
import torch
from tools.summaries import shown
from torch.nn import functional as F

from sbirlib import PairFolder
from sbirlib.config.config import Config
from sbirlib.data import edge_map, load_split, to_float
from sbirlib.data.folders import RECORD
from sbirlib.errors import ConfigError
from sbirlib.experiments import ablation
from sbirlib.experiments.ablation import ablate
from sbirlib.experiments.finished import compare, read_rows, summary
from sbirlib.experiments.grids import Variant, grid, vary
from sbirlib.experiments.published import results
from sbirlib.layers import Backbone
from sbirlib.layers.chance import drawing
from sbirlib.methods import CARDS, METHODS, BSiamese, Needs, Stage, build
from sbirlib.retrieval import true_ranks

SHARED = ("backbone", "pretrained", "image_size", "embed_dim", "stride", "freeze", "keep_statistics")
RANDOM = "frozen, random weights"
pytestmark = pytest.mark.filterwarnings("ignore:method (eups|semi_sup) wants photos without a sketch")


@pytest.fixture
def base(tiny, pairs):
    return tiny.updated({"run.epochs": 1, "data.root": str(pairs.root)})


@pytest.mark.parametrize("edge_maps", [False, True], ids=["photos", "edge maps"])
@pytest.mark.parametrize("preset", ["mini", "mini_full", "lite"])
def test_methods_share_data_backbone_optimiser_and_number_of_passes(
    preset, edge_maps, clothes, tmp_path, monkeypatch
):
    # Some methods look at edge maps only.
    monkeypatch.setattr(BSiamese, "needs", Needs(edges=True))
    shutil.copytree(clothes, tmp_path / "data")
    base = Config.preset(preset).updated({"data.root": str(tmp_path / "data")})
    if edge_maps:
        (tmp_path / "data" / RECORD).write_text('{"edge_maps": true}')
        base = base.updated({"model.photo_edges": False})
    *trained, frozen = grid("methods", base)
    # With `lite`, B-Siamese is the plain triplet.
    assert [variant.name for variant in trained] == [*METHODS, *(["plain triplet"] * (preset != "lite"))]
    assert frozen == Variant("frozen" if base.model.pretrained else RANDOM, {}, trained=False)
    configs = {variant.name: base.updated(variant.changes) for variant in trained}
    passes = {name: build(config, fetch=False).passes for name, config in configs.items()}
    assert configs["arnet"] == base
    for name, config in configs.items():
        assert (config.data, config.optim) == (base.data, base.optim)
        assert [getattr(config.model, field) for field in SHARED] == [
            getattr(base.model, field) for field in SHARED
        ]
        needs = METHODS[config.method].needs
        needs.check(config.method, PairFolder(config.data.root), config)
        assert config.model.photo_edges == (not edge_maps if needs.edges else base.model.photo_edges)
        off = config.run.epochs * passes[name] - base.run.epochs * passes["arnet"]
        assert abs(off) <= passes[name] / 2
    plain = configs.get("plain triplet", configs["b_siamese"])
    assert plain.method == "b_siamese"
    for field in ("pool", "share_encoders"):
        assert getattr(plain.model, field) == getattr(base.model, field)
    # What the preset has chosen stays; and nothing is trained twice.
    assert configs["b_siamese"].model.pool == ("grid" if preset == "lite" else "mean")
    assert len({repr(config) for config in configs.values()}) == len(configs)


def test_methods_and_baselines_are_trained_scored_and_compared(base, tmp_path):
    base = base.updated({"model.pool": "grid", "model.cells": 2})
    names = ("arnet", "b_siamese", "plain triplet", RANDOM)
    variants = [variant for variant in grid("methods", base) if variant.name in names]
    assert [variant.name for variant in variants] == list(names)
    list(ablate(base, variants, (0, 1), out=tmp_path))
    rows = read_rows(tmp_path)
    found = [(row.variant, row.seed) for row in rows]
    assert found == [*itertools.product(names[:3], (0, 1)), (RANDOM, -1)]
    text = summary(tmp_path)
    assert [shown(text, name)[0] for name in names] == ["2", "2", "2", "1"]
    assert shown(text, RANDOM)[-2] == "-"  # no minutes: nothing trained it
    mean = {name: np.mean([row.score["acc@1"] for row in rows if row.variant == name]) for name in names}
    for one, two in itertools.permutations(names, 2):
        assert compare(tmp_path, one, two).points == pytest.approx(mean[two] - mean[one])
    with (tmp_path / "results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert all(float(row["ms_query"]) > 0 for row in table)
    assert [float(row["seconds"]) > 0 for row in table] == [True] * 6 + [False]


def test_frozen_features_are_those_of_the_configuration(base, pairs, tmp_path):
    config = base.updated({"model.pool": "grid", "model.cells": 2})
    [row] = ablate(config, [Variant("frozen", {}, trained=False)], (3,), out=tmp_path)
    with drawing(config.run.seed):
        backbone = Backbone("sbir_mini", image_size=48, pool="grid", cells=2).eval()
    data = load_split(pairs.split("test"), config.data, 48)
    with torch.no_grad():
        sketches, photos = (
            F.normalize(backbone(images).cls, dim=-1)
            for images in (to_float(data.sketches, "cpu"), edge_map(to_float(data.photos, "cpu")))
        )
    assert row.ranks == true_ranks((sketches @ photos.T).numpy(), data.photo_index.numpy()).tolist()
    assert "backbone sbir_mini, frozen, from scratch: nothing was trained" in row.score["protocol"]
    assert (row.seed, row.score["seconds"]) == (-1, 0)


def test_what_a_table_calls_a_method_is_a_method_or_one_to_come():
    known = {name.removesuffix(" with mstr") for name in results().kit.dropna()}
    assert known >= set(METHODS)


def test_a_reconstruction_is_called_one(base, tmp_path, monkeypatch):
    card = CARDS["b_siamese"]
    paper = card.paper._replace(source="a reconstruction: no code")
    monkeypatch.setitem(CARDS, "b_siamese", card._replace(paper=paper))
    list(ablate(base, [Variant("b_siamese", {"method": "b_siamese"})], (0,), out=tmp_path))
    assert "b_siamese: a reconstruction: no code" in summary(tmp_path).splitlines()


def test_what_would_stop_one_method_half_way_is_found_first(base, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "train", None)
    both = vary(["method=arnet,b_siamese"])
    chunks = base.updated({"model.backbone": "test_resnet", "model.image_size": 64, "optim.chunk": 4})
    with pytest.raises(ConfigError, match=r"test_resnet has BatchNorm, whose statistics optim.chunk = 4"):
        next(ablate(chunks, both, (0,), out=tmp_path))
    stages = [Stage("teacher", 0.4, []), Stage("student", 0.6, [])]
    monkeypatch.setattr(BSiamese, "stages", lambda self: stages)
    with pytest.raises(ConfigError, match=r"run.epochs = 1 leaves none for the method's stage 'teacher'"):
        next(ablate(base, both, (0,), out=tmp_path))


def test_a_method_that_needs_what_the_folder_lacks_is_left_out(base, clothes, tmp_path):
    shutil.copytree(clothes, tmp_path / "own", ignore=shutil.ignore_patterns("miniclothes.json"))
    base = base.updated({"data.root": str(tmp_path / "own")})
    with pytest.warns(UserWarning, match="is left out: it needs the strokes of each sketch") as warned:
        names = [variant.name for variant in grid("methods", base)]
    without = [name for name in METHODS if not METHODS[name].needs.strokes]
    assert {str(warning.message).split()[0] for warning in warned} == {*METHODS} - {*without}
    assert names == [*without, "plain triplet", RANDOM]


def test_a_method_that_needs_whole_batches_is_left_out_of_chunks(base):
    with pytest.warns(UserWarning, match="is left out: it needs whole batches") as warned:
        names = [variant.name for variant in grid("methods", base.updated({"optim.chunk": 2}))]
    whole = ["cmhm", "style_me_up", "adpt_sbir", "semi_sup"]
    assert [str(one.message).split()[0] for one in warned] == whole
    assert set(names).isdisjoint(whole)
    assert "eups" in names
