import csv
import shutil

import pytest
import torch
from torch.nn import functional as F

from sbirlib.cli import main
from sbirlib.config.config import DataConfig
from sbirlib.data.batches import Epoch
from sbirlib.data.drawings import NUMBERS, pseudo_sketches, training_folder
from sbirlib.data.loading import load_data, load_split
from sbirlib.data.splits import PairError
from sbirlib.errors import ImageError
from sbirlib.retrieval.scores import evaluate
from sbirlib.runs.folder import Run, load_run
from sbirlib.training.trainer import train

SIDE = 64


def disc(radius, size=SIDE):
    """A photo (1, 3, size, size) of a blue disc on white."""
    across = torch.arange(size) - size / 2
    inside = across[:, None] ** 2 + across**2 < radius**2
    return torch.where(inside, torch.tensor([0.1, 0.2, 0.8])[:, None, None], torch.ones(3, 1, 1))[None]


@pytest.fixture
def shop(pairs, tmp_path):
    """A folder of 16 photos and nothing else."""
    return shutil.copytree(pairs.root / "trainB", tmp_path / "shop")


def test_a_photo_becomes_its_outline():
    drawn = pseudo_sketches(disc(20), torch.full((1, NUMBERS), 0.3))
    assert drawn.shape == (1, 1, SIDE, SIDE)
    ink = 1 - drawn[0, 0]
    across = torch.arange(SIDE) - SIDE / 2
    radius = (across[:, None] ** 2 + across**2).sqrt()
    assert ink[(radius - 20).abs() < 4].sum() > 0.95 * ink.sum()
    # A whole ring: in each of twelve directions there is ink.
    angle = torch.atan2(across[:, None].expand(SIDE, SIDE), across.expand(SIDE, SIDE))
    for place in torch.arange(12) / 12 * 2 * torch.pi - torch.pi:
        assert ink[(angle - place).abs() < 0.3].max() > 0.5
    assert pseudo_sketches(torch.full((1, 3, 32, 32), 0.7), torch.zeros(1, NUMBERS)).min() == 1


def test_the_dials_decide_how_much_is_drawn():
    torch.manual_seed(0)
    # Blots on grey, faint on the left and strong on the right.
    photo = 0.5 + F.interpolate(torch.rand(1, 3, 6, 6) - 0.5, SIDE, mode="bicubic") * torch.linspace(
        0, 0.6, SIDE
    )

    def ink(**dials):
        numbers = torch.tensor([[dials.get(name, 0.2) for name in ("faint", "short", "width", "soft")]])
        return float((1 - pseudo_sketches(photo, numbers)).sum())

    assert ink(faint=0) > 1.2 * ink(faint=1)
    assert ink(short=0) > ink(short=1)
    assert ink(width=0.99) > 1.5 * ink(width=0)
    # Edge maps are taken as they are.
    lines = 1 - F.pad(torch.ones(1, 3, 1, 40), (12, 12, 30, 33))
    drawn = pseudo_sketches(lines, torch.full((1, NUMBERS), 0.2), edge_maps=True)
    assert drawn[0, 0, 29:32, 14:50].amin(dim=0).max() < 0.5
    assert drawn[0, 0, :26].min() == 1


def test_a_row_depends_on_its_own_numbers_alone():
    photos, numbers = torch.rand(5, 3, 48, 48), torch.rand(5, NUMBERS)
    whole = pseudo_sketches(photos, numbers)
    for row in range(5):
        assert torch.equal(pseudo_sketches(photos[row : row + 1], numbers[row : row + 1])[0], whole[row])
    assert not torch.equal(whole, pseudo_sketches(photos, numbers.flip(0)))


def test_what_is_trained_on(pairs, shop):
    photos = pairs.split("train").photos
    alone = training_folder(shop, "digits", "from_photos").split("train")
    assert [sketch.photo_id for sketch in alone.sketches] == [photo.id for photo in photos]
    assert all(sketch.made for sketch in alone.sketches)
    from_pairs = training_folder(pairs.root, "digits", "from_photos")
    assert len(from_pairs.split("train").sketches) == 16
    assert from_pairs.split("test") == pairs.split("test")
    both = training_folder(pairs.root, "digits", "both").split("train")
    assert (len(both.sketches), len(both.real.sketches)) == (48, 32)
    assert not both.left_out
    assert training_folder(pairs.root, "digits", "pairs").split("train") == pairs.split("train")


def test_photos_without_sketches_in_the_folder_are_used(pairs, tmp_path):
    root = shutil.copytree(pairs.root, tmp_path / "data")
    for sketch in pairs.split("train").sketches[:8]:
        (root / "trainA" / sketch.path.name).unlink()
    assert training_folder(root, "digits", "pairs").split("train").left_out
    both = training_folder(root, "digits", "both").split("train")
    assert (len(both.left_out), len(both.sketches)) == (0, 24 + 16)


def test_folders_that_cannot_be_used(tmp_path, shop):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PairError, match=r"empty: no photos to train on \(.png"):
        training_folder(tmp_path / "empty", "digits", "from_photos")
    with pytest.raises(ImageError, match="nowhere: no such folder"):
        training_folder(tmp_path / "nowhere", "digits", "from_photos")
    with pytest.raises(PairError, match="photos without sketches are trained on with --data.sketches"):
        training_folder(shop, "digits", "pairs")
    with pytest.raises(PairError, match="has neither; photos without"):
        training_folder(shop, "digits", "both")


def test_held_out_photos_are_searched_by_real_sketches_if_there_are_any(pairs, shop, tiny):
    both, alone = (tiny.updated({"data.sketches": kind}) for kind in ("both", "from_photos"))
    data, held, _ = load_data(training_folder(pairs.root, "digits", "both"), both)
    assert not held.made.any()
    assert data.made.sum() == 12
    assert len(data.sketches) + len(held.sketches) == 32 + 12
    (data, held, _), again = (load_data(training_folder(shop, "digits", "from_photos"), alone) for _ in "ab")
    assert (len(data.sketches), len(held.sketches)) == (12, 4)
    assert torch.equal(held.sketches, again[1].sketches)
    # They are drawings, not the photos that they are made of.
    assert torch.equal(held.sketches[:, 0], held.sketches[:, 1])
    assert not torch.equal(held.sketches, held.photos[held.photo_index])


def test_every_epoch_draws_anew_and_nothing_else_changes(pairs):
    split = training_folder(pairs.root, "digits", "both").split("train")
    config = DataConfig(root=str(pairs.root), sketches="both")
    loaded, rows = load_split(split, config, 32), torch.tensor([3, 40, 47])
    first, same, later = (Epoch(loaded, config, seed=0, epoch=epoch) for epoch in (1, 1, 2))
    batch, whole = first.batch(rows, "cpu"), same.batch(torch.arange(48), "cpu")
    for row, place in enumerate(rows):
        assert torch.equal(batch.sketch[row], whole.sketch[place])
        assert torch.equal(batch.photo[row], whole.photo[place])
    real, made = batch.sketch[0], batch.sketch[1]
    assert torch.equal(real, later.batch(rows, "cpu").sketch[0])
    assert not torch.equal(made, later.batch(rows, "cpu").sketch[1])
    without = Epoch(load_split(pairs.split("train"), config, 32), config, seed=0, epoch=1)
    assert torch.equal(without.batch(rows[:1], "cpu").sketch[0], real)


@pytest.mark.parametrize("kind", ["from_photos", "both"])
def test_a_run_says_what_it_learnt_from(pairs, shop, tiny, tmp_path, kind, capsys):
    root, out = shop if kind == "from_photos" else pairs.root, tmp_path / "run"
    config = tiny.updated({"data.sketches": kind})
    records = train(root, config, out=out)
    record = next(records)
    records.close()
    searched = {"from_photos": "held-out photos, by sketches made of them", "both": "held-out photos"}[kind]
    assert record.selected_on == searched
    assert ("val (no real sketch) Acc@1" in str(record)) == (kind == "from_photos")
    (last,) = train(root, config, out=out, resume=True)
    whole = list(train(root, config, out=tmp_path / "whole"))
    assert last.losses == whole[-1].losses
    with (out / "history.csv").open() as file:
        assert {row["selected_on"] for row in csv.DictReader(file)} == {searched}
    said = {"from_photos": "trained without a real sketch", "both": "trained also on sketches made of photos"}
    assert said[kind] in evaluate(load_run(out), pairs).protocol
    assert main(["report", str(out)]) == 0
    assert searched in capsys.readouterr().out
    assert Run(out).saved()[0].data.sketches == kind
