"""How early photos are found: ranks while sketches are drawn, m@A and m@B."""

import json

import numpy as np
import pytest

from sbirlib import PairFolder, evaluate, load_run, load_split
from sbirlib.cli.app import main
from sbirlib.data import PairError
from sbirlib.retrieval import drawn_measures
from sbirlib.retrieval.drawn import drawn_ranks


def test_a_photo_that_is_always_first_scores_100():
    scores = drawn_measures(np.ones((20, 7), dtype=np.int64), 12)
    assert scores["m@A"] == scores["m@B"] == 100


def test_a_rank_by_chance_scores_half_and_a_harmonic_number():
    # Each rank once at each step, in any order.
    random, gallery = np.random.default_rng(0), 40
    ranks = np.stack([random.permutation(gallery) + 1 for _ in range(5)])
    scores = drawn_measures(ranks, gallery)
    assert scores["m@A"] == pytest.approx(50)
    assert scores["m@B"] == pytest.approx(100 * sum(1 / rank for rank in range(1, gallery + 1)) / gallery)


def test_the_curves_are_loops_over_steps_and_sketches():
    ranks = np.random.default_rng(0).integers(1, 11, (4, 6))
    scores = drawn_measures(ranks, 10)
    for step, row in enumerate(ranks.tolist()):
        assert scores["percentile"][step] == pytest.approx(100 * sum((10 - rank) / 9 for rank in row) / 6)
        assert scores["reciprocal_rank"][step] == pytest.approx(100 * sum(1 / rank for rank in row) / 6)
    assert scores["m@A"] == pytest.approx(np.mean(scores["percentile"]))
    assert scores["m@B"] == pytest.approx(np.mean(scores["reciprocal_rank"]))


def test_any_method_is_scored_while_sketches_are_drawn(run, pairs, capsys, tmp_path):
    model, scores = load_run(run), evaluate(load_run(run), pairs, drawn=3)
    ranks = drawn_ranks(model, load_split(pairs.split("test"), model.config.data, model.image_size), 3)
    assert ranks.shape == (3, 16)
    # After the last stroke it is the sketch as it is in the folder.
    assert ranks[-1].tolist() == scores.ranks.tolist()
    assert ranks[0].tolist() != scores.ranks.tolist()
    plain, found = evaluate(load_run(run), pairs), drawn_measures(ranks, 8)
    assert scores.as_dict() == plain.as_dict() | {"drawn": found}
    line = f"while being drawn, in 3 steps: m@A {found['m@A']:.1f} %, m@B {found['m@B']:.1f} %"
    assert set(str(scores).splitlines()) - set(str(plain).splitlines()) == {line}
    words = ["evaluate", "--run", str(run), "--data.root", str(pairs.root), "--drawn", "3"]
    assert main([*words, "--json", str(tmp_path / "scores.json")]) == 0
    assert line in capsys.readouterr().out.splitlines()
    assert json.loads((tmp_path / "scores.json").read_text())["drawn"] == found


def test_without_strokes_it_is_refused(run, pairs, tmp_path):
    for side in ("testA", "testB"):
        (tmp_path / side).symlink_to(pairs.root / side)
    with pytest.raises(PairError, match="strokes"):
        evaluate(load_run(run), PairFolder(tmp_path), drawn=3)
