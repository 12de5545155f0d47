"""EUPS: its triplets, what it distils and how photos grow, against loops and closed forms."""

import math

import pytest
import torch
from tools.batches import batch_of, images
from torch.nn import functional as F

from sbirlib.methods import EUPS
from sbirlib.methods.eups import grown, neighbours


@pytest.fixture
def model():
    torch.manual_seed(0)
    return EUPS("sbir_mini", image_size=48, embed_dim=8, pool="mean", share_encoders=True).eval()


def units(*shape, seed):
    return F.normalize(images(*shape, seed=seed) - 0.5, dim=-1)


def student_rows(count, kinds=2, seed=0):
    """Rows as `encode` gives them: sketches and photos with both features, the teacher's photos."""
    return {
        "sketch": units(count, 2, 2, 8, seed=seed),
        "photo": units(count, 1 + kinds, 2, 8, seed=seed + 1),
        "taught": units(count, kinds, 8, seed=seed + 2),
    }


def batch_with(ids, unlabelled_ids):
    batch = batch_of([torch.zeros(len(ids))] * 4, ids, seed=7)
    return batch._replace(unlabelled_ids=torch.tensor(unlabelled_ids))


def test_the_triplets_are_loops_over_rows_with_one_negative_of_another_photo(model):
    ids = [0, 1, 2, 0, 3]
    rows, batch = student_rows(5), batch_with(ids, [0, 1, 2, 3, 4])
    totals = dict.fromkeys(("cross", "intra_sketch", "intra_photo"), 0.0)
    (sketch, sister), (augmented, photo) = (rows[name][:, :2, 0].unbind(1) for name in ("sketch", "photo"))
    for row in range(5):
        others = [other for other in range(5) if ids[other] != ids[row]]
        n = others[int(batch.numbers[row, 1] * len(others))]
        for name, anchor, near, far in (
            ("cross", sketch[row], photo[row], photo[n]),
            ("intra_sketch", sketch[row], sister[row], sketch[n]),
            ("intra_photo", photo[row], augmented[row], photo[n]),
        ):
            totals[name] += max(0.0, 0.3 + (anchor - near).norm().item() - (anchor - far).norm().item()) / 5
    terms = model.compare(rows, batch)
    assert {name: terms[name].item() for name in totals} == pytest.approx(totals, abs=1e-5)
    assert sum(total > 0 for total in totals.values()) == 3
    assert terms["total"].item() == pytest.approx(sum(terms[name].item() for name in model.terms[1:]))


def test_the_divergences_are_loops_over_photos_other_than_the_own_one(model):
    ids, extra, tau = [0, 1, 0, 2], [4, 4, 5, 6], 0.1
    rows = student_rows(4)
    taught = [*rows["taught"][:, 0], *rows["taught"][:, 1]]
    learnt = [*rows["photo"][:, 1, 1], *rows["photo"][:, 2, 1]]
    names = [*ids, *(f"unlabelled {number}" for number in extra)]

    def q(row, items, own):
        shares = [
            0.0 if name == own else math.exp(-(row - item).norm().item() / tau)
            for name, item in zip(names, items, strict=True)
        ]
        return [share / sum(shares) for share in shares]

    def kl(k, row):
        pairs = zip(q(taught[k], taught, names[k]), q(row, learnt, names[k]), strict=True)
        return sum(goal * math.log(goal / found) for goal, found in pairs if goal)

    terms = model.compare(rows, batch_with(ids, extra))
    sketches = rows["sketch"][:, 0, 1]
    for name, expected in (
        ("distil_sketch", [kl(k, sketches[k]) for k in range(4)]),
        ("distil_photo", [kl(k, learnt[k]) for k in range(4)]),
        ("distil_unlabelled", [kl(k, learnt[k]) for k in range(4, 8)]),
    ):
        assert terms[name].item() == pytest.approx(sum(expected) / 4, rel=1e-4)


def test_a_student_that_sees_the_same_distances_has_nothing_to_distil(model):
    rows = student_rows(6)
    turn = torch.linalg.qr(images(8, 8, seed=3))[0]
    rows["photo"][:, 1:, 1] = rows["taught"] @ turn
    rows["sketch"][:, 0, 1] = rows["photo"][:, 1, 1]
    batch = batch_with(range(6), [0, 1, 2, 3, 4, 5])
    kinds = [name for name in model.terms if name.startswith("distil")]
    assert max(model.compare(rows, batch)[name].item() for name in kinds) < 1e-5
    rows["taught"] = rows["taught"].flip(0)
    assert min(model.compare(rows, batch)[name].item() for name in kinds) > 0.1


def test_without_others_or_unlabelled_photos_nothing_is_learnt_from_them(model):
    rows = {name: value.requires_grad_() for name, value in student_rows(3, kinds=1).items()}
    terms = model.compare(rows, batch_with([5, 5, 5], [0, 0, 0]))
    assert {name: term.item() for name, term in terms.items()} == dict.fromkeys(model.terms, 0.0)
    terms = model.compare(rows, batch_with([5, 6, 5], [0, 0, 0]))
    terms["total"].backward()
    assert terms["distil_unlabelled"] == 0 < terms["distil_photo"]
    assert rows["photo"].grad.isfinite().all()
    assert rows["taught"].grad is None
    assert neighbours(rows["taught"][:, 0], rows["taught"][:, 0], torch.eye(3) > 0, 0.1).exp().trace() == 0


def test_the_teacher_tells_every_photo_from_the_others_and_none_from_itself(model):
    model.stage = "teacher"
    corners = torch.eye(8)
    # Photo 7 has no sketch and is there three times; the views of each photo are alike.
    photos = torch.stack([corners[:3], corners[[7, 7, 7]]], dim=1)
    rows = {"photo": torch.cat([photos, photos], dim=1)}
    for seed in range(100):
        numbers = batch_of([torch.zeros(3)] * 4, seed=seed).numbers
        batch = batch_with([0, 1, 2], [7, 7, 7])._replace(numbers=numbers)
        assert model.compare(rows, batch)["intra_photo"] == 0
    half = {"photo": torch.cat([photos, photos.flip(1)], dim=1)}
    terms = model.compare(half, batch)
    assert 0.3 < terms["intra_photo"] == terms["total"] <= 0.3 + math.sqrt(2)
    assert [name for name, term in terms.items() if term] == ["total", "intra_photo"]


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_light_or_dark_parts_grow_by_a_square(side):
    light, dark = torch.tensor([0.9]), torch.tensor([0.1])
    dot = torch.zeros(1, 3, 12, 12)
    dot[..., 6, 6] = 1
    assert grown(dot, side, light).sum() == 3 * side**2
    assert torch.equal(grown(1 - dot, side, dark), 1 - grown(dot, side, light))
    assert grown(dot, side, dark).sum() == (3 if side == 1 else 0)
    even = torch.full((1, 3, 12, 12), 0.25)
    assert torch.equal(grown(grown(even, side, light), side, dark), even)
    both = grown(images(2, 3, 12, 12), side, torch.cat([light, dark]))
    assert ((both - images(2, 3, 12, 12))[0] >= 0).all()
    assert ((both - images(2, 3, 12, 12))[1] <= 0).all()
