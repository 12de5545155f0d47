"""SketchAA: block means as a slow loop, how levels are combined, and what no level can see."""

from itertools import product

import pytest
import torch
from einops import rearrange
from tools.batches import batch_of, images, loss_of

from sbirlib import load_split
from sbirlib.analysis import discard_curve
from sbirlib.cli.app import main
from sbirlib.config.config import DataConfig
from sbirlib.config.methods import SketchAAConfig
from sbirlib.errors import ConfigError
from sbirlib.layers.backbone import block_means
from sbirlib.layers.weights import BackboneError
from sbirlib.methods import SketchAA
from sbirlib.methods.sketch_aa import Hierarchy
from sbirlib.retrieval.scores import score_split


def model_of(backbone="sbir_mini", **options):
    torch.manual_seed(0)
    config = {"image_size": 48, "embed_dim": 8, "pool": "mean", "share_encoders": True}
    return SketchAA(backbone, **config | options)


def hierarchy(**options):
    torch.manual_seed(0)
    return Hierarchy(6, 8, SketchAAConfig(**options))


@pytest.mark.parametrize(("side", "blocks"), [(4, 1), (4, 2), (6, 3), (4, 4), (5, 2), (7, 3)])
def test_block_means_are_a_loop_over_blocks(side, blocks):
    patches, expected = images(2, side * side, 6), torch.empty(2, blocks, blocks, 6)
    grid = rearrange(patches, "b (h w) d -> b h w d", h=side)
    for row, column in product(range(blocks), repeat=2):
        # From the token in which the block begins to the one in which it ends.
        rows, columns = (slice(k * side // blocks, -(-(k + 1) * side // blocks)) for k in (row, column))
        expected[:, row, column] = grid[:, rows, columns].mean(dim=(1, 2))
    torch.testing.assert_close(block_means(patches, blocks), expected.flatten(1, 2))


def test_the_first_level_is_the_mean_of_all_tokens_and_of_all_equal_blocks():
    patches = images(3, 36, 6)
    whole = block_means(patches, 1)[:, 0]
    torch.testing.assert_close(whole, patches.mean(dim=1))
    for blocks in (2, 3, 6):
        torch.testing.assert_close(block_means(patches, blocks).mean(dim=1), whole)


def test_inside_a_block_tokens_may_change_places():
    patches = images(3, 16, 6)
    blocks = rearrange(patches, "b (h p w q) d -> b h w (p q) d", h=2, p=2, w=2, q=2)
    turned = rearrange(blocks.flip(3), "b h w (p q) d -> b (h p w q) d", p=2, q=2)
    coarse, fine = hierarchy(levels=(1, 2)), hierarchy(levels=(1, 2, 4))
    torch.testing.assert_close(coarse(turned), coarse(patches))
    assert (fine(turned) - fine(patches)).abs().max() > 0.01
    # But which block a token is in does matter.
    assert (coarse(patches.flip(1)) - coarse(patches)).abs().max() > 0.01


def test_levels_are_combined_as_written_out():
    patches = images(3, 25, 6)
    layers = hierarchy(levels=(1, 2, 3))
    state, *finer = (
        layer(block_means(patches, side).flatten(1))
        for layer, side in zip(layers.layers, (1, 2, 3), strict=True)
    )
    for level in finer:
        step = layers.step
        reset, keep, new = (level @ step.weight_ih.T + step.bias_ih).chunk(3, dim=1)
        reset_by, keep_by, new_by = (state @ step.weight_hh.T + step.bias_hh).chunk(3, dim=1)
        new = torch.tanh(new + torch.sigmoid(reset + reset_by) * new_by)
        keep = torch.sigmoid(keep + keep_by)
        state = keep * state + (1 - keep) * new
    torch.testing.assert_close(layers(patches), state)


def test_the_triplet_is_a_loop_over_rows_with_a_negative_of_another_photo():
    model, ids = model_of(), torch.tensor([0, 1, 2, 0, 3])
    batch = batch_of([torch.zeros(5)] * 4, ids, seed=7)
    sketches, photos = (torch.nn.functional.normalize(images(5, 8, seed=s) - 0.5, dim=1) for s in (1, 2))
    total = 0.0
    for row in range(5):
        candidates = [other for other in range(5) if ids[other] != ids[row]]
        negative = candidates[int(batch.numbers[row, 1] * len(candidates))]
        near, far = ((sketches[row] - photos[place]).norm().item() for place in (row, negative))
        total += max(0.0, 0.3 + near - far)
    found = model.compare({"sketch": sketches, "photo": photos}, batch)["total"].item()
    assert found == pytest.approx(total / 5, abs=1e-4)
    alone = batch_of([torch.zeros(2)] * 4, [5, 5])
    assert model.compare({"sketch": sketches[:2], "photo": photos[:2]}, alone)["total"] == 0


@pytest.mark.parametrize("shared", [True, False], ids=["one encoder", "two encoders"])
def test_every_parameter_learns_from_unit_rows(shared):
    model, batch = model_of(share_encoders=shared), batch_of(images(4, 6, 3, 48, 48))
    assert all(torch.allclose(row.norm(dim=1), torch.ones(6)) for row in model.encode(batch).values())
    loss_of(model, batch).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_level_finer_than_the_grid_is_refused():
    words = r"sketch_aa\.levels = 8: the map of 'sbir_mini' has 4 x 4 tokens; choose 1 to 4"
    with pytest.raises(BackboneError, match=words):
        model_of(options=SketchAAConfig(levels=(1, 8, 2)))
    with pytest.raises(ConfigError, match=r"sketch_aa\.levels = \(\)"):
        SketchAAConfig(levels=())
    assert model_of("resnet18", stride=16, pool="grid", options=SketchAAConfig(levels=(1, 3))).embed_photos(
        images(2, 3, 48, 48)
    ).shape == (2, 8)


def test_the_list_of_methods_says_that_it_is_a_reconstruction(capsys):
    assert main(["methods"]) == 0
    [lines] = [part for part in capsys.readouterr().out.split("\n\n") if part.startswith("sketch_aa:")]
    assert "formulas from: a reconstruction" in lines


def test_without_recycling_there_is_none_to_leave_out(pairs):
    model = model_of().eval()
    data = load_split(pairs.split("test"), DataConfig(root=str(pairs.root)), 48)
    found = [
        discard_curve(model, data, rule="norm", recycle=recycle, fractions=(0.3, 1)).ranks.tolist()
        for recycle in (True, False)
    ]
    assert found[0] == found[1]
    assert found[0][1] == score_split(model, data).ranks.tolist()
