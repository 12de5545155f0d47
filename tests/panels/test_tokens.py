import numpy as np
import pytest
import torch
from tools.panels import picture_changes

from sbirlib import ARNet, Config
from sbirlib.analysis.attention import attention_maps, global_attention, patch_attention, rollout
from sbirlib.config.config import DataConfig
from sbirlib.data.loading import load_split
from sbirlib.data.transforms import to_float
from sbirlib.panels.model import ROLLOUT, AttentionExplorer


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ARNet.from_config(Config.preset("mini_full").updated({"model.image_size": 48})).eval()


@pytest.fixture(scope="module")
def data(pairs):
    return load_split(pairs.split("test"), DataConfig(root=str(pairs.root)), 48)


@pytest.fixture
def drawn(monkeypatch):
    """What the explorers hand to the figure that shows maps: every call's maps, titles and options."""
    calls = []
    original = AttentionExplorer.figure.__globals__["token_overlay"]

    def note(image, maps, titles, **options):
        calls.append((maps, titles, options))
        return original(image, maps, titles, **options)

    monkeypatch.setitem(AttentionExplorer.figure.__globals__, "token_overlay", note)
    return calls


def test_attention_explorer_shows_the_layer_head_and_query_that_are_asked_for(model, data, drawn):
    panel = AttentionExplorer(model, data)
    attention = attention_maps(model.sketch_encoder.backbone, to_float(data.sketches[:1], "cpu"))
    expected = global_attention(attention, uses_cls=True)[1, 0]
    maps, titles, options = drawn[-1]
    assert titles == ["mean of heads", "head 1", "head 2", "head 3", "head 4"]
    np.testing.assert_allclose(maps[0], expected.mean(dim=0), rtol=1e-5)
    np.testing.assert_allclose(np.stack(maps[1:]), expected, rtol=1e-5)
    assert options["query"] is None
    assert "what the global token attends to" in options["heading"]

    assert picture_changes(panel, panel.layer, "1")
    assert picture_changes(panel, panel.head, "3")
    assert picture_changes(panel, panel.query, 7)
    maps, titles, options = drawn[-1]
    assert titles == ["head 3"]
    assert options["query"] == (1, 2)
    np.testing.assert_allclose(maps[0], patch_attention(attention, 6)[0, 0, 2], rtol=1e-5)

    assert picture_changes(panel, panel.layer, ROLLOUT)
    np.testing.assert_allclose(drawn[-1][0][0], patch_attention(rollout(attention), 6)[0, 0, 0], rtol=1e-5)


def test_attention_explorer_takes_a_click_for_a_query(model, data):
    panel = AttentionExplorer(model, data)
    panel.pick(239.9, 0)
    assert panel.query.value == 4  # the last patch of the first row
    panel.pick(61, 130)
    assert panel.query.value == 1 + 2 * 4 + 1
    panel.pick(-3, 400)
    assert panel.query.value == 13


def test_attention_explorer_keeps_the_image_in_range_of_its_domain(model, data):
    panel = AttentionExplorer(model, data)
    panel.image.value = 15
    assert picture_changes(panel, panel.domain, "photo")
    assert panel.image.max == len(data.photos) - 1 == panel.image.value
