"""Strokes that a model drops: sketches are searched without them, and noise among them is counted."""

import json
import shutil

import numpy as np
import pytest
import torch

from sbirlib import PairFolder, evaluate, load_run, load_split
from sbirlib.cli.app import main
from sbirlib.data import PairError, Recording
from sbirlib.methods import recording
from sbirlib.methods.recordings import disturbed, drawn
from sbirlib.panels.model import RetrievalBrowser
from sbirlib.retrieval import true_ranks
from sbirlib.retrieval.noise import cleaned, noise_measures
from sbirlib.retrieval.scores import score_split


@pytest.fixture
def model(run):
    return load_run(run)


@pytest.fixture
def test_split(pairs, tiny, model):
    return load_split(pairs.split("test"), tiny.data, model.image_size)


def every_second(drawing):
    return np.arange(len(drawing.strokes)) % 2 == 0


def test_foreign_strokes_come_among_those_of_a_sketch(pairs):
    first, second = (recording(sketch) for sketch in pairs.split("test").sketches[:2])
    both, numbers = disturbed(first, second, 5, np.random.default_rng(0))
    added = numbers >= len(first.strokes)
    assert added.sum() == 5
    assert added.argmax() < len(first.strokes)
    assert numbers[~added].tolist() == [*range(len(first.strokes))]
    known = first.strokes + second.strokes
    assert all(stroke is known[i] for stroke, i in zip(both.strokes, numbers, strict=True))
    assert len({*numbers}) == len(numbers)
    assert both.picture(~added).tobytes() == first.picture().tobytes() != both.picture().tobytes()
    many = disturbed(first, second, 9999, np.random.default_rng(0))[1]
    assert sorted(many) == [*range(len(known))]


def test_sketches_with_strokes_are_drawn_without_those_that_are_dropped(model, pairs, tiny, tmp_path):
    root = shutil.copytree(pairs.root, tmp_path / "some")
    sketch = PairFolder(root).split("test").sketches[0]
    shutil.copy(sketch.path, sketch.path.with_name(f"{sketch.photo_id}_0009.png"))
    data = load_split(PairFolder(root).split("test"), tiny.data, model.image_size)
    model.clean, model.cleans = every_second, True
    fewer = cleaned(model, data)
    changed = (fewer.sketches != data.sketches).flatten(1).any(dim=1)
    assert changed.sum() == 16
    [bare] = (~changed).nonzero()[0].tolist()
    assert data.split.sketches[bare].path.name.endswith("_0009.png")
    row = int(changed.nonzero()[3])
    drawing = recording(data.split.sketches[row])
    assert torch.equal(fewer.sketches[row], drawn(drawing, every_second(drawing), model.image_size, "pad")[0])


def test_noise_that_is_dropped_alone_does_no_harm(model, test_split):
    own = iter([recording(sketch) for sketch in test_split.split.sketches])

    def without_noise(drawing):
        known = {stroke.tobytes() for stroke in next(own).strokes}
        return np.array([stroke.tobytes() in known for stroke in drawing.strokes])

    model.clean = without_noise
    found, plain = (
        noise_measures(model, test_split, 4),
        evaluate(model, test_split.split.sketches[0].path.parents[1]),
    )
    assert found["acc@1_kept"] == plain.accuracy[1].percent
    assert (found["dropped_foreign"], found["dropped_own"]) == (100, 0)
    strokes = sum(len(recording(sketch).strokes) for sketch in test_split.split.sketches)
    assert found["dropped"] == pytest.approx(100 * 64 / (strokes + 64))


def test_noise_needs_another_photo(model, test_split):
    one = test_split._replace(photo_index=torch.zeros_like(test_split.photo_index))
    with pytest.raises(
        PairError, match=r"another photo's sketch are needed, but all sketches show one photo"
    ):
        noise_measures(model, one, 4)


def test_the_browser_shows_the_similarities_that_were_scored(model, test_split, monkeypatch):
    monkeypatch.setattr(type(model), "cleans", True)
    model.clean = every_second
    scores = score_split(model, test_split)
    similarity = RetrievalBrowser(model, test_split, scores).similarity
    assert true_ranks(similarity, test_split.photo_index.numpy()).tolist() == scores.ranks.tolist()
    assert (np.argsort(-similarity, axis=1, kind="stable") == scores.order).all()


def test_what_is_dropped_without_looking_is_dropped_by_chance(model, test_split):
    model.clean = every_second
    found = noise_measures(model, test_split, 4)
    assert found["dropped"] == pytest.approx(50, abs=2)
    assert found["dropped_foreign"] == pytest.approx(50, abs=20)
    assert found["dropped_own"] == pytest.approx(50, abs=4)


def test_any_method_is_scored_with_noise(run, pairs, model, capsys, tmp_path):
    scores, plain = evaluate(model, pairs, noise=4), evaluate(model, pairs)
    found = scores.own["noise"]
    assert scores.as_dict() == plain.as_dict() | {"noise": found}
    assert found["acc@1"] == found["acc@1_kept"]
    assert found["dropped"] == 0
    words = ["evaluate", "--run", str(run), "--data.root", str(pairs.root), "--noise", "4"]
    assert main([*words, "--json", str(tmp_path / "scores.json")]) == 0
    lines = set(capsys.readouterr().out.splitlines())
    assert set(str(scores).splitlines()) <= lines
    assert any(
        line.startswith(f"with 4 foreign strokes in each sketch: Acc@1 {found['acc@1']:.1f} %")
        for line in lines
    )
    assert json.loads((tmp_path / "scores.json").read_text())["noise"] == found


def test_noise_needs_strokes(pairs, model, tmp_path):
    for side in ("testA", "testB"):
        (tmp_path / side).symlink_to(pairs.root / side)
    with pytest.raises(PairError, match="strokes"):
        evaluate(model, PairFolder(tmp_path), noise=3)


def test_long_strokes_are_chosen_rather_than_short_ones():
    lines = [np.array([(0.0, 0.0), (size, 0.0)]) for size in (0.001, 0.1, 0.4, 8.0)]
    whole, counts = Recording(tuple(lines)), np.zeros(4)
    for seed in range(500):
        counts[disturbed(whole, whole, 1, np.random.default_rng(seed))[1].max() - 4] += 1
    # A dot counts for a little, and no stroke for more than a side.
    np.testing.assert_allclose(counts / 500, np.array([0.01, 0.1, 0.4, 1.0]) / 1.51, atol=0.06)
