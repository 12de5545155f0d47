"""What a method may ask for beside pairs: another sketch of the same photo, and photos without a sketch."""

import shutil

import pytest
import torch
from PIL import Image

from sbirlib.config.config import Config
from sbirlib.data.batches import Epoch, find_sisters
from sbirlib.data.loading import load_data
from sbirlib.data.pairs import PairFolder
from sbirlib.data.splits import PairError
from sbirlib.errors import InputError


@pytest.mark.parametrize("count", [1, 2, 9, 60])
def test_a_sister_is_another_sketch_of_the_same_photo(count):
    random, seen = torch.Generator().manual_seed(count), set()
    ids = torch.randint(0, 5, (count,), generator=random)
    for _ in range(40):
        found = find_sisters(ids, torch.rand(count, generator=random)).tolist()
        for row, sister in enumerate(found):
            others = [other for other in range(count) if ids[other] == ids[row] and other != row]
            assert sister in others or (sister == row and not others)
            seen.add((row, sister))
    # Each of the others comes up, not only a neighbour.
    assert len(seen) > 0.9 * sum(max(1, int((ids == photo).sum()) - 1) for photo in ids)


def config_of(root, **changes):
    values = {"data.root": str(root), "data.second_view": "A0", "data.first_view": "A0"}
    return Config.preset("mini").updated(
        values | {"model.image_size": 32, "data.val_fraction": 0.0} | changes
    )


def test_the_second_view_of_a_sketch_may_be_one_of_its_sister(pairs):
    config = config_of(pairs.root)
    data = load_data(pairs, config)[0]
    plan, rows = Epoch(data, config.data, seed=0, epoch=1, sisters=1), torch.arange(8)
    batch, same = plan.batch(rows, "cpu"), Epoch(data, config.data, seed=0, epoch=1).batch(rows, "cpu")
    for row in rows.tolist():
        sisters = [i for i in range(len(data.sketches)) if data.photo_index[i] == data.photo_index[row]]
        shown = [i for i in sisters if torch.equal(data.sketches[i] / 255, batch.sketch_second[row])]
        assert shown
        assert len(sisters) == 1 or row not in shown
        assert torch.equal(same.sketch_second[row], batch.sketch[row])


@pytest.fixture
def unpaired(pairs, tmp_path):
    """A folder with three photos more than sketches know of, and another folder of two photos."""
    root = shutil.copytree(pairs.root, tmp_path / "data")
    (tmp_path / "more").mkdir()
    places = [
        *(root / "trainB" / f"spare{n}.png" for n in "123"),
        *(tmp_path / f"more/{n}.jpg" for n in "45"),
    ]
    for shade, place in enumerate(places):
        Image.new("RGB", (40, 30), (40 * shade, 0, 0)).save(place)
    return root


def test_photos_without_a_sketch_come_one_for_each_row(unpaired, tmp_path):
    config = config_of(unpaired, **{"data.unlabelled": str(tmp_path / "more"), "data.fit": "stretch"})
    data, _, left_out = load_data(PairFolder(unpaired), config, True)
    assert (len(data.unlabelled.photos), len(data.photos), left_out) == (5, 16, 0)
    plan = Epoch(data, config.data, seed=0, epoch=1)
    batch, rows = plan.batch(plan.rows(0, 10), "cpu"), torch.tensor([7, 3])
    reds = (255 * batch.unlabelled[:, 0].amax(dim=(1, 2)) / 40).round().int().tolist()
    assert sorted(reds[:5]) == sorted(reds[5:]) == [0, 1, 2, 3, 4]
    again = plan.batch(plan.order[rows], "cpu")
    for name in ("unlabelled", "unlabelled_second", "unlabelled_ids"):
        assert torch.equal(getattr(again, name), getattr(batch, name)[rows])
    assert [data.unlabelled.photos[i, 0].max() for i in batch.unlabelled_ids] == [40 * red for red in reds]
    turned = config.updated({"data.second_view": "A1", "data.rotation": 45.0}).data
    for wanted in (True, False):
        plan = Epoch(data, turned, seed=0, epoch=1, second_views=wanted)
        second = plan.batch(plan.rows(0, 10), "cpu").unlabelled_second
        # Red photos have no green: only what is turned lets white paper in at the corners.
        assert second[:, 1].max() == 1 if wanted else len(second) == 0
    assert batch.unlabelled[:, 1].max() == 0
    later = Epoch(data, config.data, seed=0, epoch=2).batch(plan.rows(0, 10), "cpu")
    assert not torch.equal(later.unlabelled, batch.unlabelled)
    # Who does not want them has them left out, and says so.
    with pytest.raises(PairError, match="photo without a sketch"):
        load_data(PairFolder(unpaired), config)


def test_photos_without_a_sketch_that_cannot_be_read_are_named(unpaired, tmp_path):
    (tmp_path / "more" / "broken.png").write_text("no picture")
    config = config_of(unpaired, **{"data.unlabelled": str(tmp_path / "more")})
    with pytest.raises(PairError, match=r"broken\.png"):
        load_data(PairFolder(unpaired), config, True)
    data, _, left_out = load_data(PairFolder(unpaired), config.updated({"data.on_fault": "skip"}), True)
    assert (len(data.unlabelled.photos), left_out) == (5, 1)
    missing = config.updated({"data.unlabelled": str(tmp_path / "nowhere")})
    with pytest.raises(InputError, match="nowhere: no such folder"):
        load_data(PairFolder(unpaired), missing, True)


def test_without_any_there_are_none(pairs):
    config = config_of(pairs.root)
    data = load_data(pairs, config, True)[0]
    assert data.unlabelled is None
    assert len(Epoch(data, config.data, seed=0, epoch=1).batch(torch.arange(3), "cpu").unlabelled) == 0
