"""Attributes of photos: the table they are read from, and a loss that brings what is alike together."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
from tools.batches import batch_of, images, loss_of

from sbirlib import ARNet, PairFolder, load_run, train
from sbirlib.config.methods import LossConfig
from sbirlib.data.pairs import read_split
from sbirlib.data.splits import PairError
from sbirlib.layers.losses import alike_loss
from sbirlib.runs.atomic import RunError


@pytest.fixture
def folder(clothes, tmp_path):
    """MiniClothes, whose table may be changed."""
    return Path(shutil.copytree(clothes, tmp_path / "clothes"))


@pytest.fixture
def config(tiny):
    return tiny.updated({"loss.attributes": 3.0})


def weights(out):
    return load_run(out).state_dict()


def losses(out):
    with (out / "history.csv").open(newline="") as file:
        return [float(row["loss_attributes"]) for row in csv.DictReader(file)]


def changed(root, change):
    """The table of a folder, its lines changed."""
    path = root / "attributes.csv"
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n")


def test_what_differs_in_fewer_attributes_is_wanted_more():
    labels = torch.tensor([[1, 3, 5], [1, 3, 6], [2, 4, 7]])
    first, second = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    rows, itself = torch.cat([first, second]), torch.eye(6, dtype=torch.bool)
    wanted = torch.tensor([[0.0, -2, -6], [-2, 0, -6], [-6, -6, 0]]).exp().repeat(2, 2)[~itself].view(6, 5)
    near = (torch.cosine_similarity(rows[:, None], rows[None], dim=-1) / 0.5)[~itself].view(6, 5)
    expected = -(wanted / wanted.sum(dim=1, keepdim=True) * near.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(alike_loss(first, second, labels, temperature=0.5), expected)


def test_what_nobody_knows_is_like_nothing():
    rows, known = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0)), [[2, 3], [2, 5], [4, 5]]
    unknown, own = (alike_loss(*rows, torch.tensor([*known, last])) for last in ([0, 0], [6, 7]))
    # Two views of it are alike where it is known, and as far from each other as from all else where not.
    assert unknown.isfinite()
    assert unknown != own
    torch.testing.assert_close(
        alike_loss(*rows[:, :1], torch.tensor([[0, 0]])), alike_loss(*rows[:, :1], torch.tensor([[1, 1]]))
    )


def test_without_a_weight_no_table_is_read(folder, tiny, tmp_path):
    changed(folder, list.clear)
    assert len(list(train(folder, tiny, out=tmp_path / "run"))) == 2
    assert losses(tmp_path / "run") == [0, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"model.share_encoders": True},
        {"model.share_encoders": False, "optim.chunk": 3, "data.val_fraction": 0.0, "run.keep": "last"},
        {"data.sketches": "from_photos", "run.epochs": 20},
    ],
    ids=["shared", "two, in chunks", "from photos"],
)
def test_every_way_of_training_learns_from_them(folder, config, tmp_path, changes):
    out = tmp_path / "run"
    longer = config.updated({"run.epochs": 6, **changes})
    list(train(folder, longer, out=out))
    found = losses(out)
    assert sum(found[-3:]) < sum(found[:3])
    (folder / "attributes.csv").unlink()
    assert weights(out)  # needs no table, and has no weights of its own
    assert weights(out).keys() == ARNet.from_config(longer).state_dict().keys()


def test_the_loss_is_one_more_term():
    model = ARNet("sbir_mini", image_size=48, embed_dim=16, pool="mean", loss=LossConfig(attributes=2.0))
    batch = batch_of(images(4, 3, 3, 48, 48))
    model.labels = torch.tensor([[1, 3], [2, 3], [1, 4]])
    terms = model.eval().compare(rows := model.encode(batch), batch)
    assert terms["attributes"] == alike_loss(rows["sketch"], rows["photo"], model.labels)
    model.loss = LossConfig()
    torch.testing.assert_close(loss_of(model, batch) + 2 * terms["attributes"], terms["total"])


def test_a_run_goes_on_exactly_with_the_same_table_and_with_no_other(folder, config, tmp_path):
    config = config.updated({"run.keep": "last"})
    list(train(folder, config, out=tmp_path / "whole"))
    begun = train(folder, config, out=tmp_path / "run")
    next(begun)
    begun.close()
    table = folder / "attributes.csv"
    before = table.read_text()
    changed(folder, lambda lines: lines.__setitem__(3, lines[3] + "-other"))
    with pytest.raises(RunError, match="cannot be resumed: its data had sha256"):
        train(folder, config, out=tmp_path / "run", resume=True)
    head, *rows = before.splitlines()
    table.write_text("\n".join([head, *reversed(rows)]))  # the order of the rows says nothing
    list(train(folder, config, out=tmp_path / "run", resume=True))
    expected = weights(tmp_path / "whole")
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "run").items())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (list.clear, "No columns to parse"),
        (lambda lines: lines.__setitem__(0, "id,family,sleeve,belt"), "'photo'.* are in the columns"),
        (
            lambda lines: lines.__setitem__(slice(None), [line[:5] for line in lines]),
            "row 1: names no attributes",
        ),
        (lambda lines: lines.__delitem__(slice(1, None)), "column photo: not once in it: '00001' \\(16 such"),
        (lambda lines: lines.pop(4), "column photo: not once in it: '00004' \\(1 such"),
        (lambda lines: lines.append(lines[4]), "column photo: not once in it: '00004' \\(1 such"),
        (lambda lines: lines.__setitem__(4, lines[4] + ",more"), "Expected 6 fields in line 5, saw 7"),
    ],
    ids=[
        "empty",
        "no photos",
        "no attributes",
        "no rows",
        "a photo less",
        "a photo twice",
        "a cell too many",
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_cause(folder, config, tmp_path, change, why):
    changed(folder, change)
    with pytest.raises(PairError, match=f"attributes.csv.*{why}"):
        train(folder, config, out=tmp_path / "run")


def test_a_missing_table_is_named(folder, config, tmp_path):
    (folder / "attributes.csv").unlink()
    with pytest.raises(PairError, match=r"attributes\.csv.*loss\.attributes above 0 reads it"):
        train(folder, config, out=tmp_path / "run")


def test_photos_without_a_sketch_need_no_row(folder):
    sketches = sorted((folder / "trainA").glob("00003*"))
    for path in sketches:
        path.unlink()
    changed(folder, lambda lines: lines.pop(3))
    split = read_split("train", folder / "trainA", folder / "trainB").described(folder / "attributes.csv")
    assert {photo.id: photo.attributes for photo in split.photos}["00003"] == (0, 0, 0, 0, 0)
    assert PairFolder(folder).split("train").photos[0].attributes == ()
