import pytest
import torch
from tools.batches import epoch_batches

from sbirlib.config.config import DataConfig
from sbirlib.data.drawings import REDRAWS, redraw
from sbirlib.data.loading import load_split


@pytest.fixture(scope="module")
def sketches(pairs):
    return load_split(pairs.split("train"), DataConfig(root=str(pairs.root)), 64).sketches.float() / 255


@pytest.fixture
def numbers(sketches):
    return torch.rand(len(sketches), REDRAWS, generator=torch.Generator().manual_seed(0))


def share_of_ink(after, before):
    return (1 - after).sum(dim=(1, 2, 3)) / (1 - before).sum(dim=(1, 2, 3))


def test_no_strength_leaves_the_sketches_alone(sketches, numbers):
    assert redraw(sketches, numbers, 0) is sketches


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_every_row_is_redrawn_by_its_own_numbers_whatever_the_batch(sketches, numbers, strength):
    whole = redraw(sketches, numbers, strength)
    assert torch.equal(whole, redraw(sketches, numbers, strength))
    backwards = redraw(sketches.flip(0), numbers.flip(0), strength).flip(0)
    torch.testing.assert_close(backwards, whole, atol=1e-3, rtol=0)
    alone = torch.cat([redraw(sketches[i : i + 1], numbers[i : i + 1], strength) for i in range(8)])
    torch.testing.assert_close(alone, whole[:8], atol=1e-3, rtol=0)
    other = redraw(sketches, 1 - numbers, strength)
    assert ((other - whole).abs().amax(dim=(1, 2, 3)) > 0.1).all()


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
def test_it_stays_a_drawing_on_white_paper(sketches, numbers, strength):
    drawn = redraw(sketches, numbers, strength)
    assert drawn.shape == sketches.shape
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    # White paper stays white, and thin lines are still there.
    assert (drawn > 0.9).float().mean() > 0.5
    share = share_of_ink(drawn, sketches)
    assert share.min() > 0.3
    assert 0.7 < share.median() < 1.8


def test_small_strengths_change_little_and_large_ones_more(sketches, numbers):
    changes = [(redraw(sketches, numbers, s) - sketches).abs().mean() for s in (0.001, 0.1, 0.4, 1.0)]
    assert changes == sorted(changes)
    assert changes[0] < 0.01 < changes[-1]


def test_nothing_is_drawn_on_empty_paper(numbers):
    assert torch.equal(redraw(torch.ones(2, 1, 48, 48), numbers[:2], 1.0), torch.ones(2, 1, 48, 48))


def test_straight_lines_stay_whole_up_to_a_fifth_of_their_ink():
    page = torch.ones(64, 1, 96, 96)
    page[..., 24:72, 46:49] = 0
    numbers = torch.rand(64, REDRAWS, generator=torch.Generator().manual_seed(1))
    numbers[:, 10:13] = 0.5  # neither width nor darkness changes
    share = share_of_ink(redraw(page, numbers, 1.0), page)
    assert share.min() > 0.45  # a fifth of it gone, of a line that is shorter and thinner in turn
    assert share.max() < 1.8


def test_wider_and_thinner_lines(sketches, numbers):
    plain, wide, thin = (numbers.clone() for _ in range(3))
    for given, width in ((plain, 0.5), (wide, 1.0), (thin, 0.0)):
        given[:, 10], given[:, 11:13] = width, 0.5
    plain, wide, thin = (share_of_ink(redraw(sketches, n, 0.6), sketches) for n in (plain, wide, thin))
    assert (wide > 1.1 * plain).all()
    assert (thin < 0.95 * plain).all()


def test_one_channel_says_it_all(sketches, numbers):
    grey = sketches[:, :1]
    single, triple = (redraw(images, numbers, 0.7) for images in (grey, grey.expand(-1, 3, -1, -1)))
    assert single.shape == grey.shape
    torch.testing.assert_close(single.expand(-1, 3, -1, -1), triple, atol=1e-5, rtol=0)


def test_first_views_are_redrawn_and_nothing_else_changes(pairs):
    loaded = load_split(pairs.split("train"), DataConfig(root=str(pairs.root)), 32)

    def first(**changes):
        options = {"seed": 0, "epoch": 1, "batch_size": 8, "device": "cpu"}
        return epoch_batches(loaded, DataConfig(first_view="A2", **changes), **options)[0]

    plain, redrawn, again = first(), first(redraw=0.5), first(redraw=0.5)
    assert torch.equal(redrawn.sketch, again.sketch)
    assert not torch.equal(redrawn.sketch, plain.sketch)
    for name in ("photo", "sketch_second", "photo_second", "photo_ids", "numbers"):
        assert torch.equal(getattr(redrawn, name), getattr(plain, name))
