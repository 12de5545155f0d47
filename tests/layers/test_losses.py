"""InfoNCE against a plain loop, closed forms, and the numbers of the released code."""

import json
import math
from pathlib import Path

import pytest
import torch
from golden.formula import uniform

from sbirlib.layers.losses import info_nce, other_photos

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden.json").read_text())["losses"]


def slow_info_nce(first, second, temperature, ids=None):
    """Row by row, in plain Python."""
    rows = [*first.tolist(), *second.tolist()]
    ids = [*ids, *ids] if ids is not None else list(range(len(rows)))
    count = len(rows)

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    total = 0.0
    for i in range(count):
        partner = (i + count // 2) % count
        scores = {
            j: cosine(rows[i], rows[j]) / temperature
            for j in range(count)
            if j == partner or (j != i and ids[j] != ids[i])
        }
        total += math.log(sum(math.exp(score) for score in scores.values())) - scores[partner]
    return total / count


@pytest.mark.parametrize(
    ("name", "second", "temperature"),
    [
        ("info_nce_f1_f2", "f2", 0.07),
        ("info_nce_f1_f3", "f3", 0.07),
        ("info_nce_f1_f1", "f1", 0.07),
        ("info_nce_f1_f3_t0.5", "f3", 0.5),
    ],
)
def test_golden_values(name, second, temperature):
    features = {f"f{i}": torch.tensor(uniform(i, 128).reshape(8, 16), dtype=torch.float32) for i in (1, 2)}
    features["f3"] = 0.7 * features["f1"] + 0.3 * features["f2"]
    loss = info_nce(features["f1"], features[second], temperature=temperature)
    assert loss.item() == pytest.approx(GOLDEN[name], abs=1e-5)


@pytest.mark.parametrize("ids", [None, [0, 1, 2, 3, 4], [0, 1, 0, 0, 4]])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_the_plain_loop(ids, temperature):
    first, second = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    photo_ids = None if ids is None else torch.tensor(ids)
    loss = info_nce(first, second, temperature=temperature, photo_ids=photo_ids)
    assert loss.item() == pytest.approx(slow_info_nce(first, second, temperature, ids), abs=1e-5)


def test_closed_forms():
    ones = torch.ones(6, 4)
    # All rows alike: the partner is one of 2b - 1 equal candidates.
    assert info_nce(ones, ones).item() == pytest.approx(math.log(11), abs=1e-5)
    # All pairs of one photo, masked: the partner is the only candidate left.
    assert info_nce(ones, ones, photo_ids=torch.zeros(6, dtype=torch.int64)).item() == pytest.approx(
        0, abs=1e-6
    )
    # Orthonormal rows: exp(1/t) for the partner against 2b - 2 rows with exp(0).
    eye = torch.eye(4)
    assert info_nce(eye, eye, temperature=0.5).item() == pytest.approx(
        math.log(math.exp(2) + 6) - 2, abs=1e-6
    )


def test_gradient_pulls_partners_together():
    first = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    second = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    before = info_nce(first, second)
    before.backward()
    assert info_nce(first.detach() - 0.1 * first.grad, second) < before


@pytest.mark.parametrize(("a", "b"), [((3, 4), (4, 4)), ((3, 4, 2), (3, 4, 2))])
def test_refuses_other_shapes(a, b):
    with pytest.raises(ValueError, match="expected two"):
        info_nce(torch.zeros(a), torch.zeros(b))


def test_another_photo_is_never_ones_own_and_every_other_is_chosen_evenly():
    ids = torch.tensor([0, 1, 2, 0, 3, 3])
    seen = torch.zeros(6, 6)
    for seed in range(500):
        numbers = torch.rand(6, generator=torch.Generator().manual_seed(seed))
        chosen, there = other_photos(ids, numbers)
        assert there.all()
        assert (ids[chosen] != ids).all()
        seen[torch.arange(6), chosen] += 1
    candidates = ids[:, None] != ids[None, :]
    share = seen / 500 * candidates.sum(dim=1, keepdim=True)
    assert (share[candidates] > 0.7).all()
    assert (share[candidates] < 1.3).all()


def test_another_photo_depends_on_a_rows_own_number_alone():
    ids, numbers = torch.tensor([0, 1, 2, 3]), torch.tensor([0.1, 0.5, 0.9, 0.99999994])
    chosen, _ = other_photos(ids, numbers)
    numbers[0] = 0.7
    again, _ = other_photos(ids, numbers)
    assert chosen[1:].tolist() == again[1:].tolist()
    assert chosen[3] == 2  # the last of its candidates, however near 1 the number is


def test_where_all_rows_show_one_photo_there_is_no_other():
    _, there = other_photos(torch.zeros(3, dtype=torch.int64), torch.rand(3))
    assert not there.any()
