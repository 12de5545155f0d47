"""Edge maps: against a slow loop, and what they are blind to."""

import math

import pytest
import torch

from sbirlib.data.transforms import DARKEST, edge_map


def step(left: float, right: float) -> torch.Tensor:
    """A picture of two greys (1, 3, 8, 8) that meet in the middle."""
    return torch.tensor([left] * 4 + [right] * 4).expand(1, 3, 8, 8)


def test_every_pixel_is_that_of_a_plain_loop():
    image = 0.5 + 0.1 * torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(0))
    light = [[[math.log(value + DARKEST) for value in row] for row in channel] for channel in image.tolist()]

    def at(channel: int, y: int, x: int) -> float:
        return light[channel][min(max(y, 0), 5)][min(max(x, 0), 6)]

    drawn = edge_map(image[None])
    for y in range(6):
        for x in range(7):
            steepest = max(
                math.hypot(at(c, y, x + 1) - at(c, y, x - 1), at(c, y + 1, x) - at(c, y - 1, x))
                for c in range(3)
            )
            assert drawn[0, :, y, x].tolist() == pytest.approx([1 - min(steepest, 1)] * 3, abs=1e-5)


def test_lines_lie_on_the_border_of_two_greys_and_nowhere_else():
    drawn = edge_map(step(0.9, 0.5))
    assert (drawn[..., 3:5] < 0.6).all()
    assert (drawn[..., :3] == 1).all()
    assert (drawn[..., 5:] == 1).all()


def test_half_the_light_draws_nearly_the_same_line():
    bright, dark = (1 - edge_map(step(left, left / 2))[0, 0, 0, 3].item() for left in (0.8, 0.4))
    assert 0.8 * bright < dark < bright


def test_colours_of_equal_light_are_told_apart():
    picture = step(0.5, 0.5).clone()
    picture[:, 0, :, :4], picture[:, 1, :, :4] = 0.8, 0.2
    assert (edge_map(picture)[..., 3:5] < 0.5).all()


def test_plain_paper_stays_white_and_the_range_is_kept():
    assert (edge_map(torch.ones(2, 3, 5, 5)) == 1).all()
    noise = edge_map(torch.rand(1, 3, 9, 9))
    assert 0 <= noise.min() < noise.max() <= 1
