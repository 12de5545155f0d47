"""What a model finds once it was shown a few pairs of each designer; any method on the same sketches."""

import json
import shutil

import numpy as np
import pytest
import torch

from sbirlib import PairFolder, evaluate, load_run, train
from sbirlib.cli.app import main
from sbirlib.data import PairError, load_split, to_float
from sbirlib.experiments.grids import grid
from sbirlib.methods import AdptSBIR
from sbirlib.miniclothes.dataset import draw_miniclothes
from sbirlib.retrieval import adapted_measures, true_ranks
from sbirlib.retrieval.adapted import adapted_ranks


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """21 test sketches, three by each of seven designers."""
    root = tmp_path_factory.mktemp("many") / "MiniClothes"
    return PairFolder(draw_miniclothes(root, photos=(12, 8), sketches=(24, 21), size=48))


@pytest.fixture(scope="module")
def model(many, tiny, tmp_path_factory):
    config = tiny.updated({"method": "adpt_sbir", "adpt_sbir.rate": 20.0, "data.root": str(many.root)})
    out = tmp_path_factory.mktemp("adapted") / "run"
    assert len(list(train(many, config, out=out))) == 2
    return load_run(out)


def test_each_designers_sketches_are_searched_by_a_model_of_their_own(model, many, tiny):
    data = load_split(many.split("test"), tiny.data, 48)
    ranks = adapted_ranks(model, data, 2)
    designers = [sketch.designer for sketch in data.split.sketches]
    for name in set(designers):
        rows = [row for row, designer in enumerate(designers) if designer == name]
        assert not ranks[rows[:2]].any()
        own = model.adapt(data, torch.tensor(rows[:2]))
        with torch.no_grad():
            queries = own.embed_sketches(to_float(data.sketches[rows[2:]], "cpu"))
            scores = own.score(queries, own.embed_photos(to_float(data.photos, "cpu")))
        assert (
            ranks[rows[2:]].tolist()
            == true_ranks(scores.numpy(), data.photo_index[rows[2:]].numpy()).tolist()
        )
    plain = evaluate(model, many).ranks
    assert (ranks != plain)[ranks > 0].any()


def test_shown_nothing_it_finds_what_it_found_before(model, many, tiny):
    data = load_split(many.split("test"), tiny.data, 48)
    assert adapted_ranks(model, data, 0).tolist() == evaluate(model, many).ranks.tolist()


def test_a_method_that_does_not_adapt_is_scored_on_the_same_sketches(run, model, many, tiny):
    data, plain = load_split(many.split("test"), tiny.data, 48), load_run(run)
    ranks, same = adapted_ranks(model, data, 1), adapted_ranks(plain, data, 1)
    left = ranks > 0
    assert (same > 0).tolist() == left.tolist()
    assert left.sum() == 14
    scores = evaluate(plain, many, adapted=1)
    assert same[left].tolist() == scores.ranks[left].tolist()
    assert scores.as_dict() == evaluate(plain, many).as_dict() | {
        "adapted": adapted_measures(scores.ranks, same)
    }


def test_the_shares_are_of_the_sketches_that_were_not_shown():
    found = adapted_measures(np.array([1, 1, 3, 7, 1]), np.array([0, 2, 1, 1, 1]))
    assert found == {"shown": 1, "queries": 4, "acc@1": [50.0, 75.0], "acc@5": [75.0, 100.0]}


def test_the_command_prints_and_writes_both(run, many, capsys, tmp_path):
    words = ["evaluate", "--run", str(run), "--data.root", str(many.root), "--adapted", "2"]
    assert main([*words, "--json", str(tmp_path / "scores.json")]) == 0
    found = json.loads((tmp_path / "scores.json").read_text())["adapted"]
    (first, then), (fifth, later) = found["acc@1"], found["acc@5"]
    text = f"Acc@1 {first:.1f}, then {then:.1f} %, Acc@5 {fifth:.1f}, then {later:.1f} %"
    assert f"adapting to designers by 14 pairs, 7 other sketches: {text}" in capsys.readouterr().out


def folder_of(many, out, keep):
    """The same pictures, but of the sketches only those of whom `keep` says so by designer and number."""
    for side in ("trainB", "testB"):
        shutil.copytree(many.root / side, out / side)
    for name in ("train", "test"):
        (out / f"{name}A").mkdir()
        seen = {}
        for sketch in many.split(name).sketches:
            number = seen[sketch.designer] = seen.get(sketch.designer, 0) + 1
            if keep(int(sketch.designer), number):
                shutil.copy(sketch.path, out / f"{name}A")
    return PairFolder(out)


WORDS = r"at least two designers with {} sketches each; the designer is the number after the last '_'"


@pytest.mark.parametrize("keep", [lambda who, _: who == 1, lambda who, number: who > 1 or number < 3])
def test_one_designer_or_too_few_sketches_are_refused(run, many, tmp_path, keep):
    with pytest.raises(PairError, match=WORDS.format(3)):
        evaluate(load_run(run), folder_of(many, tmp_path, keep), adapted=2)


def test_a_folder_by_one_designer_is_not_trained_on(many, tiny, tmp_path):
    pairs = folder_of(many, tmp_path / "one", lambda who, _: who == 1)
    config = tiny.updated({"method": "adpt_sbir", "data.root": str(pairs.root)})
    with pytest.raises(PairError, match="method adpt_sbir needs " + WORDS.format(2)):
        train(pairs, config, out=tmp_path / "run")
    base = tiny.updated({"data.root": str(pairs.root)})
    with pytest.warns(UserWarning, match="is left out") as warned:
        names = [variant.name for variant in grid("methods", base)]
    assert {"adpt_sbir", "style_me_up"}.isdisjoint(names)
    left_out = [str(one.message).split(" is left out")[0] for one in warned]
    assert {"adpt_sbir", "style_me_up"} <= set(left_out)
    assert AdptSBIR.needs.designers
