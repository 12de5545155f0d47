import math

import pytest
import torch

from sbirlib import ARNet, Config, load_run
from sbirlib.attention import recycling_variance, similarity_variance, token_similarity
from sbirlib.fields import InputError
from sbirlib.views import load_split, to_float


def test_similarity_equals_a_plain_loop():
    tokens = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    matrix, variance = token_similarity(tokens), similarity_variance(tokens)
    for image in range(2):
        rows = tokens[image].tolist()
        cosines = [sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
                   for a in rows for b in rows]
        assert matrix[image].flatten().tolist() == pytest.approx(cosines, abs=1e-6)
        mean = sum(cosines) / 25
        assert variance[image].item() == pytest.approx(sum((c - mean) ** 2 for c in cosines) / 25, abs=1e-6)


def test_variance_in_closed_form():
    # All alike: every entry is 1. Half one way, half another: half of the entries are 1, half 0.
    assert similarity_variance(torch.ones(1, 6, 3)).item() == pytest.approx(0, abs=1e-12)
    halves = torch.eye(2).repeat_interleave(3, dim=0)[None]
    assert similarity_variance(halves).item() == pytest.approx(0.25)


def test_before_and_after_are_of_the_same_tokens(pairs):
    torch.manual_seed(0)
    changes = {"model.image_size": 48, "mstr.scales": (2, 1)}
    model = ARNet.from_config(Config.preset("mini_full").updated(changes))
    found = recycling_variance(model, pairs.root)
    assert list(found) == ["sketch", "photo"]
    photos = to_float(load_split(pairs.split("test"), Config().data, 48).photos, "cpu")
    with torch.no_grad():
        encoded = model.photo_encoder(photos)
    assert found["photo"].before == pytest.approx(similarity_variance(encoded.patches).mean().item(), rel=1e-4)
    # Cells of scale 2 come first: 4 of them, then 16 of scale 1.
    assert found["photo"].after == pytest.approx(similarity_variance(encoded.cells[:, 4:]).mean().item(), rel=1e-4)
    assert found["photo"].after != pytest.approx(found["photo"].before, rel=1e-2)


def test_a_model_without_recycling_is_refused(run, pairs):
    with pytest.raises(InputError, match="no cells of scale 1"):
        recycling_variance(load_run(run), pairs.root)
