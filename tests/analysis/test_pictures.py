import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox

from sbirlib import ARNet, Config
from sbirlib.analysis import pictures
from sbirlib.analysis.discard import discard_curve
from sbirlib.analysis.pictures import PICTURES
from sbirlib.config.config import DataConfig
from sbirlib.data.loading import load_split
from sbirlib.errors import InputError
from sbirlib.methods import METHODS, build
from sbirlib.retrieval.scores import score_split

CONFIG = Config.preset("mini_full").updated({"model.image_size": 48})


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ARNet.from_config(CONFIG).eval()


@pytest.fixture(scope="module")
def data(pairs):
    return load_split(pairs.split("test"), DataConfig(root=str(pairs.root)), 48)


def texts(figure: Figure) -> str:
    found = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title)]
    return "\n".join(found + [text.get_text() for legend in figure.legends for text in legend.get_texts()])


def test_the_map_counts_hits_and_shows_six_pairs(model, data):
    figure = pictures.embeddings(model, data)
    hits = int((score_split(model, data).ranks == 1).sum())
    assert f"photo found first ({hits})" in texts(figure)
    assert f"photo not found first ({16 - hits})" in texts(figure)
    assert sum(isinstance(artist, AnnotationBbox) for artist in figure.axes[0].artists) == 6


def test_failures_are_the_worst_ranks_and_can_be_leafed_through(model, data):
    ranks = score_split(model, data).ranks
    worst = np.argsort(-ranks, kind="stable")
    shown = texts(pictures.failures(model, data, rows=2))
    assert f"rank {ranks[worst[0]]}" in shown
    assert data.split.sketches[worst[0]].path.stem in shown
    assert data.split.sketches[worst[2]].path.stem not in shown
    assert data.split.sketches[worst[2]].path.stem in texts(pictures.failures(model, data, 2, rows=1))
    missed = int((ranks > 1).sum())
    framed = shown.split("\n").index(f"rank {ranks[worst[0]]} true")
    assert shown.split("\n")[framed - 1] == data.split.sketches[worst[0]].path.stem
    with pytest.raises(InputError, match=f"no failure beyond the first {missed}: {16 - missed} of 16"):
        pictures.failures(model, data, missed)


def test_titles_say_what_each_scale_brings(model, data):
    shown = texts(pictures.recycling(model, data, 3))
    brought = [int(part.split(":")[1].strip(" %")) for part in shown.split("\n") if part.startswith("scale ")]
    assert len(brought) == 3
    assert sum(brought) == pytest.approx(100, abs=2)


def test_one_curve_for_each_rule_that_the_model_allows(model, data):
    torch.manual_seed(0)
    plain = ARNet.from_config(CONFIG.updated({"mstr.enabled": False})).eval()
    rules = {"random", "attention", "norm", "recycling"}
    assert rules <= set(texts(pictures.discarding(model, data, fractions=(0.5, 1))).split("\n"))
    found = set(texts(pictures.discarding(plain, data, fractions=(0.5, 1))).split("\n"))
    assert found & rules == rules - {"recycling"}
    with pytest.raises(InputError, match="does not recycle tokens: train with MSTR"):
        pictures.similarity(plain, data)


def test_a_cnn_has_the_curves_of_the_other_rules(data):
    torch.manual_seed(0)
    cnn = ARNet("resnet18", image_size=48, embed_dim=8).eval()
    figure = pictures.discarding(cnn, data, fractions=(0.5, 1))
    assert set(figure.axes[0].get_legend_handles_labels()[1]) == {"random", "norm"}
    title = figure.axes[0].get_title(loc="left").replace("\n", " ")
    assert "left out: attention (no attention here: ResNet" in title
    assert "left out: recycling (this model does not recycle tokens" in title
    with pytest.raises(InputError, match="no attention here"):
        discard_curve(cnn, data, rule="attention", fractions=(1,))


@pytest.fixture(scope="module")
def siamese():
    torch.manual_seed(0)
    config = Config.preset("mini").updated({"method": "b_siamese", "model.image_size": 48})
    return build(config).eval()


@pytest.mark.parametrize("kind", list(PICTURES))
def test_a_method_of_another_kind_has_every_picture_but_those_of_recycling(kind, siamese, data):
    if kind in ("similarity", "recycling"):
        with pytest.raises(InputError, match="does not recycle tokens"):
            PICTURES[kind](siamese, data, 1)
    else:
        assert texts(PICTURES[kind](siamese, data, 1))


def test_rules_are_those_that_the_method_allows(siamese, data):
    shown = texts(pictures.discarding(siamese, data, fractions=(0.5, 1))).split("\n")
    assert {"random", "attention", "norm"} <= set(shown)
    assert "recycling" not in shown
    with pytest.raises(InputError, match="does not recycle tokens"):
        discard_curve(siamese, data, rule="recycling", fractions=(1,))
    # With all of its tokens every rule finds what the method itself finds.
    expected = score_split(siamese, data).ranks.tolist()
    for rule in ("norm", "attention", "random"):
        for where in ("input", "output"):
            curve = discard_curve(siamese, data, rule=rule, where=where, fractions=(0.2, 1))
            assert curve.ranks[-1].tolist() == expected
            assert curve.ranks[0].tolist() != expected


@pytest.mark.parametrize("kind", ["embeddings", "discarding"])
def test_a_method_without_unit_vectors_is_refused_where_they_are_needed(kind, siamese, data, monkeypatch):
    monkeypatch.setattr(METHODS["b_siamese"], "vectors", False)
    with pytest.raises(
        InputError, match="needs pictures as unit vectors, which method b_siamese does not make"
    ):
        PICTURES[kind](siamese, data, 0)
    assert texts(pictures.failures(siamese, data))


@pytest.mark.parametrize("kind", list(PICTURES))
def test_a_method_whose_rows_are_sets_of_regions_has_every_picture_or_the_reason_why_not(kind, data):
    torch.manual_seed(0)
    model = build(Config.preset("mini").updated({"method": "part_sbir", "model.image_size": 48})).eval()
    reasons = {"similarity": "does not recycle tokens", "recycling": "does not recycle tokens"}
    reasons |= dict.fromkeys(
        ("embeddings", "discarding"), "unit vectors, which method part_sbir does not make"
    )
    if kind in reasons:
        with pytest.raises(InputError, match=reasons[kind]):
            PICTURES[kind](model, data, 1)
    else:
        assert texts(PICTURES[kind](model, data, 1))
