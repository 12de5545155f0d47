"""MSTR against the released code's numbers, a map written by hand, and what its docstring promises."""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden.formula import fill, uniform
from tools.batches import batch_of, loss_of

from sbirlib import ARNet, Config
from sbirlib.config.config import RELEASED
from sbirlib.layers.mstr import MSTR, MSTRError, contrast_map, pool
from sbirlib.layers.released import ReleasedMSTR, pool_strips, slipped_contrast_map
from sbirlib.methods.arnet import PAPER_MSTR
from sbirlib.methods.base import fingerprint

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "golden_mstr_released.npz")
RELEASED_MSTR = {
    name.partition(".")[2]: value for name, value in RELEASED.items() if name.startswith("mstr.")
}
UNREGISTERED = PAPER_MSTR | {"registered": False}
SMALL = {"scales": (1, 2), "heads": 4, "feedforward": 32, "channels": 8}


def fill_by_name(module, prefix):
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(fill(prefix + name, tuple(parameter.shape))))


def tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def released():
    mstr = ReleasedMSTR(768, (14, 14), **RELEASED_MSTR)
    for i, transformer in enumerate(mstr.transformers):
        fill_by_name(transformer.eval(), f"transformer_models.{i}.")
    fill_by_name(mstr.mix, "fc.")
    return mstr


@pytest.fixture(scope="module")
def golden_tokens():
    values = torch.tensor(uniform(7, 3 * 197 * 768).reshape(3, 197, 768), dtype=torch.float32)
    return values[:, 0], values[:, 1:]


def test_with_the_released_options_the_released_numbers_come_out(released, golden_tokens):
    with torch.inference_mode():
        fused, cells = released(*golden_tokens)
        np.testing.assert_allclose(fused, GOLDEN["final"], atol=2e-4)
        assert released.loss(cells).item() == pytest.approx(float(GOLDEN["decorrelation_loss"]), abs=1e-5)
        alone = torch.cat(
            [released(cls[None], patches[None]).fused for cls, patches in zip(*golden_tokens, strict=True)]
        )
    np.testing.assert_allclose(alone, GOLDEN["final_one_by_one"], atol=2e-4)
    assert np.abs(GOLDEN["final"] - GOLDEN["final_one_by_one"]).max() > 1e-3
    np.testing.assert_array_equal(released.contrast, GOLDEN["contrast_matrix"])
    np.testing.assert_array_equal(released.mix.weight.detach(), GOLDEN["fc_weight"])


def test_each_released_option_alone_changes_what_it_is_about(golden_tokens):
    """None of the options is a dead switch, and the default has none of them."""
    torch.manual_seed(0)
    default = MSTR(768, (14, 14)).eval()
    state = default.state_dict()

    def result(**options):
        mstr = ReleasedMSTR(768, (14, 14), **(PAPER_MSTR | options)).eval()
        if options.get("registered", True):
            mstr.load_state_dict(state)
        fused, cells = mstr(*golden_tokens)
        return fused, mstr.loss(cells)

    with torch.inference_mode():
        fused, loss = result()
        own_fused, own_cells = default(*golden_tokens)
        torch.testing.assert_close(own_fused, fused, atol=1e-5, rtol=0)
        torch.testing.assert_close(default.loss(own_cells), loss, atol=1e-6, rtol=0)
        for name in ("attention", "pooling"):
            assert not torch.allclose(result(**{name: RELEASED_MSTR[name]})[0], fused, atol=1e-4)
        for name in ("contrast", "similarity"):
            other_fused, other_loss = result(**{name: RELEASED_MSTR[name]})
            assert torch.equal(other_fused, fused)
            assert abs(other_loss - loss) > 1e-5


def test_an_image_does_not_depend_on_its_batch_or_on_a_second_pass():
    mstr = MSTR(64, (4, 4), **SMALL).eval()
    cls, patches = tokens(5, 64), tokens(5, 16, 64, seed=1)
    with torch.no_grad():
        together = mstr(cls, patches)
        for i in range(5):
            alone = mstr(cls[i : i + 1], patches[i : i + 1])
            torch.testing.assert_close(alone.fused[0], together.fused[i], atol=1e-5, rtol=0)
            torch.testing.assert_close(alone.cells[0], together.cells[i], atol=1e-5, rtol=0)
        assert torch.equal(mstr(cls, patches).fused, together.fused)


def test_attention_over_the_batch_does_depend_on_it():
    mstr = ReleasedMSTR(64, (4, 4), **SMALL, **(PAPER_MSTR | {"attention": "batch"})).eval()
    cls, patches = tokens(5, 64), tokens(5, 16, 64, seed=1)
    with torch.no_grad():
        difference = mstr(cls, patches).fused[:1] - mstr(cls[:1], patches[:1]).fused
    assert difference.abs().max() > 1e-3


def test_hand_written_contrast_map_of_a_4_by_4_grid():
    """Scales 1, 2, 4: sixteen patches, four squares, one whole."""
    square_of = [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]
    expected = torch.eye(21)
    for patch, square in enumerate(square_of):
        expected[patch, 16 + square] = expected[16 + square, patch] = 0.5
    expected[20, :20] = expected[:20, 20] = 0.5
    result = contrast_map((4, 4), (1, 2, 4))
    for row in range(21):
        assert result[row].tolist() == expected[row].tolist(), f"row {row}"


def test_cells_that_overlap_in_part_count_by_the_smaller_one():
    # On a 6 x 6 grid the middle 2-window of a row lies half in each 3-window above it.
    result = contrast_map((6, 6), (2, 3))
    assert result[1, 9:].tolist() == pytest.approx([0.25, 0.25, 0, 0])
    assert result[4, 9:].tolist() == pytest.approx([0.125] * 4)
    assert result[0, 9:].tolist() == pytest.approx([0.5, 0, 0, 0])


@pytest.mark.parametrize(
    ("grid", "scales"), [((14, 14), (1, 2, 7)), ((6, 6), (1, 2, 3)), ((4, 8), (2, 1, 4))]
)
def test_contrast_map_is_symmetric_with_ones_on_the_diagonal(grid, scales):
    result = contrast_map(grid, scales)
    assert torch.equal(result, result.T)
    assert torch.equal(result.diagonal(), torch.ones(len(result)))
    counts = [grid[0] * grid[1] // scale**2 for scale in scales]
    for block in (
        block for i, row in enumerate(result.split(counts)) for block in [row.split(counts, dim=1)[i]]
    ):
        assert torch.equal(block, torch.eye(len(block)))


def test_the_slips_of_the_released_map():
    slipped = slipped_contrast_map((14, 14), (1, 2, 7))
    assert (slipped != slipped.T).sum() == 110
    assert contrast_map((14, 14), (1, 2, 7), pool_strips).ne(slipped).sum() == 61


def test_the_map_is_a_buffer_that_is_not_saved():
    mstr = MSTR(64, (4, 4), **SMALL)
    assert "contrast" in dict(mstr.named_buffers())
    assert "contrast" not in mstr.state_dict()


def test_windows_are_squares_and_strips_are_not():
    places = torch.arange(16.0).reshape(1, 16, 1)
    squares = pool(places, (4, 4), 2)
    # The square of rows 0-1 and columns 0-1 has the patches 0, 1, 4, 5.
    assert squares.flatten().tolist() == [
        (0 + 1 + 4 + 5) / 4,
        (2 + 3 + 6 + 7) / 4,
        (8 + 9 + 12 + 13) / 4,
        (10 + 11 + 14 + 15) / 4,
    ]
    assert pool_strips(places, (4, 4), 2).flatten().tolist() == [1.5, 5.5, 9.5, 13.5]
    wide = pool(torch.arange(8.0).reshape(1, 8, 1), (2, 4), 2)
    assert wide.flatten().tolist() == [(0 + 1 + 4 + 5) / 4, (2 + 3 + 6 + 7) / 4]


def test_fusion_and_loss_by_hand():
    mstr = MSTR(64, (4, 4), **SMALL, weight=0.25).eval()
    cls, patches = tokens(2, 64), tokens(2, 16, 64, seed=1)
    fused, cells = mstr(cls, patches)
    assert cells.shape == (2, 16 + 4, 64)
    recycled = (cells * mstr.mix.weight[0][None, :, None]).sum(dim=1) + mstr.mix.bias
    torch.testing.assert_close(fused, 0.75 * cls + 0.25 * recycled)
    total = 0.0
    for image in cells:
        groups = image.reshape(20, 8, 8).mean(dim=2)
        for i in range(20):
            for j in range(20):
                cosine = torch.cosine_similarity(groups[i], groups[j], dim=0)
                total += (cosine - mstr.contrast[i, j]).item() ** 2
    assert mstr.loss(cells).item() == pytest.approx(total / (2 * 400), abs=1e-6)


def test_transformers_in_a_plain_list_are_hidden_from_torch():
    hidden = ReleasedMSTR(64, (4, 4), **SMALL, **UNREGISTERED)
    assert sum(p.numel() for p in hidden.parameters()) == 16 + 4 + 1
    assert list(hidden.state_dict()) == ["mix.weight", "mix.bias"]
    assert all(t.training for t in hidden.eval().transformers)
    cls, patches = tokens(2, 64), tokens(2, 16, 64)
    assert not torch.equal(hidden(cls, patches).fused, hidden(cls, patches).fused)
    assert next(hidden.double().transformers[0].parameters()).dtype == torch.float64


def test_the_paper_has_33_million_parameters_an_encoder_in_the_transformers():
    mstr = MSTR(768, (14, 14))
    assert sum(p.numel() for p in mstr.transformers.parameters()) == pytest.approx(33.1e6, rel=5e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scales": (1, 2, 7), "grid": (7, 7)}, r"2 does not divide the 7 x 7 grid.*scales that do: 1, 7"),
        ({"scales": (3,), "grid": (4, 8)}, r"3 does not divide the 4 x 8 grid.*scales that do: 1, 2, 4"),
        ({"scales": (), "grid": (4, 4)}, r"scales that do: 1, 2, 4"),
        ({"heads": 5}, r"mstr.heads = 5 does not divide the 64 channels"),
        ({"channels": 12}, r"mstr.channels = 12 does not divide the 64 channels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(options, words):
    with pytest.raises(MSTRError, match=words):
        MSTR(64, **{"grid": (4, 4), "scales": (1, 2)} | options)


@pytest.fixture(scope="module")
def small_full():
    """`full` with the smallest ViT of its family in the place of ViT-B."""
    torch.manual_seed(0)
    changes = {"model.pretrained": False, "model.backbone": "vit_tiny_patch16_224", "model.embed_dim": 32}
    return ARNet.from_config(Config.preset("full").updated(changes))


def test_every_parameter_of_full_gets_a_gradient_and_is_saved(small_full):
    views = torch.rand(4, 3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    loss_of(small_full, batch_of(views)).backward()
    parameters = dict(small_full.named_parameters())
    assert [name for name, p in parameters.items() if p.grad is None or not p.grad.any()] == []
    assert parameters.keys() == small_full.state_dict().keys()
    assert any(".mstr.transformers.2.layers.1." in name for name in parameters)


def test_an_embedding_of_full_does_not_depend_on_its_batch(small_full):
    images = torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        model = small_full.eval()
        together, alone = model.embed_sketches(images), model.embed_sketches(images[:1])
        torch.testing.assert_close(alone[0], together[0], atol=1e-5, rtol=0)
        assert torch.equal(model.embed_sketches(images), together)


def test_the_second_view_is_not_recycled(small_full):
    first, second = torch.rand(2, 1, 3, 224, 224)
    with torch.no_grad():
        encoder = small_full.eval().photo_encoder
        recycled, plain = encoder.two_views(first, second)
        rows = small_full.encode(batch_of([first, second, first, second]))
    assert recycled.cells.shape == (1, 196 + 49 + 4, 192)
    assert plain._fields == ("cls", "patches")
    torch.testing.assert_close(rows["recyc_photo"], encoder.mstr.loss(recycled.cells))


def test_bf16_computes_the_loss_in_full_precision():
    mstr = MSTR(64, (4, 4), **SMALL).eval()
    cells = tokens(2, 20, 64)
    with torch.autocast("cpu", torch.bfloat16):
        loss = mstr.loss(cells)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(mstr.loss(cells).item(), abs=1e-7)


def test_hidden_transformers_count_for_a_fingerprint():
    models = [ReleasedMSTR(64, (4, 4), **SMALL, **UNREGISTERED) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    assert fingerprint(models[0]) != fingerprint(models[1])
