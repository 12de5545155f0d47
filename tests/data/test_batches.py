import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image
from tools.batches import epoch_batches

from sbirlib.config.config import DataConfig
from sbirlib.data.batches import DRAWS, Epoch, draws, epoch_order
from sbirlib.data.loading import is_grey, load_images, load_split
from sbirlib.data.pairs import PairFolder
from sbirlib.data.splits import PairError
from sbirlib.data.transforms import make_view

HALF = torch.full((1, DRAWS), 0.5)


@pytest.fixture(scope="module")
def loaded(pairs):
    return load_split(pairs.split("train"), DataConfig(root=str(pairs.root)), 32)


def batches(loaded, config=None, **changes):
    options = {"seed": 0, "epoch": 1, "batch_size": 8, "device": "cpu"} | changes
    return epoch_batches(loaded, config or DataConfig(), **options)


def test_loads_what_the_files_hold(loaded, pairs):
    split = pairs.split("train")
    assert loaded.sketches.shape == (32, 3, 32, 32)
    assert loaded.photos.shape == (16, 3, 32, 32)
    assert loaded.sketches.dtype == torch.uint8
    for row, sketch in enumerate(split.sketches):
        assert split.photos[loaded.photo_index[row]].id == sketch.photo_id
    pixels, faults = load_images([split.photos[3].path], 32, "pad")
    assert faults == []
    assert torch.equal(pixels[0], loaded.photos[3])


def test_a_part_keeps_pictures_and_pairs_together(loaded):
    kept, held = loaded.split.holdout(0.25, seed=0)
    part = loaded.part(held)
    for row, sketch in enumerate(held.sketches):
        whole = loaded.split.sketches.index(sketch)
        assert torch.equal(part.sketches[row], loaded.sketches[whole])
        assert torch.equal(part.photos[part.photo_index[row]], loaded.photos[loaded.photo_index[whole]])
    assert len(loaded.part(kept).sketches) + len(part.sketches) == len(loaded.sketches)


def test_an_epoch_shows_every_sketch_once_and_its_own_photo(loaded):
    config = DataConfig(first_view="A0")
    seen = batches(loaded, config)
    assert len(seen) == 4
    order = epoch_order(0, 1, 32)
    assert sorted(order) == list(range(32))
    rows = torch.from_numpy(order)
    torch.testing.assert_close(torch.cat([b.sketch for b in seen]), loaded.sketches[rows].float() / 255)
    photos = loaded.photos[loaded.photo_index[rows]].float() / 255
    torch.testing.assert_close(torch.cat([b.photo for b in seen]), photos)
    assert torch.equal(torch.cat([b.photo_ids for b in seen]), loaded.photo_index[rows])


def test_views_repeat_for_a_seed_and_change_with_seed_and_epoch(loaded):
    first, again = batches(loaded)[1], batches(loaded)[1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for change in ({"seed": 1}, {"epoch": 2}):
        assert not torch.equal(batches(loaded, **change)[1].sketch_second, first.sketch_second)


def test_a_sketch_has_the_same_view_whatever_its_batch(loaded):
    small, large = (
        torch.cat([b.sketch_second for b in batches(loaded, batch_size=size)]) for size in (4, 16)
    )
    torch.testing.assert_close(small, large, atol=1e-6, rtol=0)


def test_views_of_another_size_show_the_same(loaded):
    splits = loaded._replace(unlabelled=loaded._replace(sketches=loaded.sketches[:0])).resized(24), loaded
    assert splits[0].unlabelled.sketches.shape == (0, 3, 24, 24)
    assert loaded.resized(loaded.photos.shape[-1]) is loaded
    plans = [Epoch(split, DataConfig(redraw=0.5), seed=0, epoch=1) for split in splits]
    small, large = (plan.batch(torch.arange(4), "cpu") for plan in plans)
    for name in ("photo", "sketch", "photo_second"):
        views, expected = getattr(small, name), getattr(large, name)
        assert views.shape == (4, 3, 24, 24)
        shrunk = torch.nn.functional.interpolate(expected, 24, mode="bilinear", antialias=True)
        assert (views - shrunk).abs().mean() < 0.05


def test_draws_of_a_row_do_not_depend_on_the_size_of_the_set():
    np.testing.assert_array_equal(draws(5, 2, 1, 10), draws(5, 2, 1, 1000)[:10])
    assert not np.array_equal(draws(5, 2, 1, 10), draws(5, 2, 2, 10))


def test_sketches_without_a_designer_are_by_nobody_else(loaded):
    named = [sketch.designer for sketch in loaded.split.sketches]
    nameless = [sketch._replace(designer="") for sketch in loaded.split.sketches[:3]]
    split = replace(loaded.split, sketches=(*nameless, *loaded.split.sketches[3:]))
    [batch] = batches(loaded._replace(split=split), batch_size=len(named))
    designers = dict(zip(batch.rows.tolist(), batch.designers.tolist(), strict=True))
    assert len({designers[row] for row in range(3)} - {designers[row] for row in range(3, len(named))}) == 3
    known = [(named[row], designers[row]) for row in range(3, len(named))]
    assert len(set(known)) == len({name for name, _ in known}) == len({number for _, number in known})


def test_a_batch_larger_than_the_set_is_the_set(loaded):
    assert [len(b.sketch) for b in batches(loaded, batch_size=1000)] == [32]


@pytest.mark.parametrize("kind", ["A0", "A1", "A2"])
def test_views_keep_shape_and_range(kind):
    images = torch.rand(6, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    numbers = torch.from_numpy(draws(0, 0, 1, 6))
    view = make_view(images, kind, numbers, DataConfig())
    assert view.shape == images.shape
    assert view.min() >= 0
    assert view.max() <= 1 + 1e-6


def test_neutral_draws_and_settings_leave_the_image_alone():
    images = torch.rand(1, 3, 20, 20)
    config = DataConfig(enlarge=1, flip=0, crop=1)
    for kind in ("A1", "A2"):
        torch.testing.assert_close(make_view(images, kind, HALF, config), images, atol=1e-5, rtol=0)


def test_a_sure_flip_mirrors():
    images = torch.rand(1, 3, 20, 20)
    config = DataConfig(enlarge=1, flip=1, crop=1)
    for kind in ("A1", "A2"):
        torch.testing.assert_close(make_view(images, kind, HALF, config), images.flip(-1), atol=1e-5, rtol=0)


def test_enlarge_cuts_the_border_away():
    images = torch.zeros(1, 3, 24, 24)
    images[..., 2:-2, 2:-2] = 1
    assert make_view(images, "A1", HALF, DataConfig(enlarge=1.5, flip=0)).min() == 1


@pytest.mark.parametrize("value", [0.2, 1.0])
def test_a_rotated_picture_is_filled_with_white(value):
    numbers = torch.tensor([[0.9, 1.0, *[0.5] * (DRAWS - 2)]])
    view = make_view(
        torch.full((1, 3, 40, 40), value), "A1", numbers, DataConfig(enlarge=1, rotation=45, flip=0)
    )
    corners = view[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(corners, torch.ones_like(corners))
    torch.testing.assert_close(view[..., 20, 20], torch.full((1, 3), value))


def test_rotation_turns_by_the_angle_it_says():
    images = torch.ones(1, 3, 41, 41)
    images[..., 20, 36] = 0  # a dot to the right of the centre
    numbers = torch.tensor([[0.9, 1.0, *[0.5] * (DRAWS - 2)]])
    turned = make_view(images, "A1", numbers, DataConfig(enlarge=1, rotation=90, flip=0))
    row, column = divmod(int(turned[0, 0].argmin()), 41)
    assert (abs(row - 20), column) == (16, 20)


def test_unknown_view_is_refused():
    with pytest.raises(ValueError, match="unknown view 'A9'"):
        make_view(torch.rand(1, 3, 8, 8), "A9", HALF, DataConfig())


def test_faults_stop_with_their_list_or_are_skipped_and_counted(tmp_path):
    for name in ("a", "b", "c"):
        for folder in ("trainA", "trainB"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", (16, 16)).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "trainB/b.png").write_text("no image")
    (tmp_path / "trainA/c.png").write_text("no image")
    split = PairFolder(tmp_path).split("train")
    with pytest.raises(PairError) as error:
        load_split(split, DataConfig(root=str(tmp_path)), 16)
    assert "4 files cannot be used" in str(error.value)
    assert all(name in str(error.value) for name in ("trainB/b.png", "trainA/c.png", "--data.on_fault skip"))
    usable = load_split(split, DataConfig(root=str(tmp_path), on_fault="skip"), 16)
    assert [sketch.photo_id for sketch in usable.split.sketches] == ["a"]
    assert usable.sketches.shape[0] == 1
    assert len(usable.split.left_out) == 4
    (tmp_path / "trainA/a.png").write_text("no image")
    with pytest.raises(PairError, match="no usable pair is left"):
        load_split(split, DataConfig(root=str(tmp_path), on_fault="skip"), 16)


def test_a_third_of_a_turn_of_the_hue_passes_red_to_green_to_blue():
    config = DataConfig(enlarge=1, flip=0, crop=1, jitter=0, hue=120)
    numbers = HALF.clone()
    numbers[0, 8] = 1.0
    red = torch.zeros(1, 3, 8, 8)
    red[:, 0] = 1
    turned = make_view(red, "A2", numbers, config)[0, :, 4, 4]
    torch.testing.assert_close(turned, torch.tensor([0.0, 1.0, 0.0]), atol=1e-5, rtol=0)
    grey = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(make_view(grey, "A2", numbers, config), grey, atol=1e-5, rtol=0)


def test_colours_change_as_step_by_step():
    images, numbers = torch.rand(6, 3, 16, 16), torch.rand(6, DRAWS)
    config = DataConfig(enlarge=1, flip=0, crop=1, jitter=0.4, hue=180)
    whole = numbers.clone()
    whole[:, 1:5] = torch.tensor([0.5, 0.5, 0.5, 0.5])
    axis = torch.full((3,), 3**-0.5, dtype=torch.float64)
    for image, row, found in zip(images, whole, make_view(images, "A2", whole, config), strict=True):
        *factors, turn = (2 * row[5:9].double() - 1).tolist()
        brightness, contrast, saturation = (1 + 0.4 * factor for factor in factors)
        angle, pixels = math.radians(180 * turn), rearrange(image.double(), "c h w -> (h w) c")
        # Rodrigues: a vector turned about an axis.
        pixels = (
            pixels * math.cos(angle)
            + torch.linalg.cross(axis.expand_as(pixels), pixels) * math.sin(angle)
            + axis * (pixels @ axis)[:, None] * (1 - math.cos(angle))
        )
        pixels = pixels * brightness
        pixels = pixels.mean() + contrast * (pixels - pixels.mean())
        grey = pixels.mean(dim=1, keepdim=True)
        expected = (grey + saturation * (pixels - grey)).clamp(0, 1)
        torch.testing.assert_close(rearrange(found, "c h w -> (h w) c").double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["A0", "A1", "A2"])
def test_grey_pictures_need_one_channel(kind):
    images, numbers = torch.rand(4, 1, 24, 24), torch.rand(4, DRAWS)
    config = DataConfig(hue=90)
    single, triple = (
        make_view(pictures, kind, numbers, config) for pictures in (images, images.expand(-1, 3, -1, -1))
    )
    assert single.shape == images.shape
    torch.testing.assert_close(single.expand(-1, 3, -1, -1), triple, atol=1e-6, rtol=0)


def test_coloured_strokes_keep_their_colour(loaded):
    assert loaded.grey
    assert loaded.part(loaded.split).grey
    red = loaded.sketches.clone()
    red[-1, 0] = 200
    assert not is_grey(red)
    plain, coloured = (
        batches(data, DataConfig(first_view="A0"))
        for data in (loaded, loaded._replace(sketches=red, grey=is_grey(red)))
    )
    assert all(torch.equal(batch.sketch[:, 0], batch.sketch[:, 2]) for batch in plain)
    assert any(not torch.equal(batch.sketch[:, 0], batch.sketch[:, 2]) for batch in coloured)
    assert plain[0].sketch.shape == coloured[0].sketch.shape == (8, 3, 32, 32)
