"""Run folders and galleries of version 0.1.0, from before there were several methods, are still read.

`tests/fixtures/run-0.1.0.tar.xz` was written by that version: one epoch of three on the drawing of the
fixture `clothes`, its weights then replaced by a pattern that compresses well, a gallery, and embeddings.
"""

import json
import tarfile
from pathlib import Path

import pytest
import torch

from sbirlib import Gallery, evaluate, load_run, train
from sbirlib.data.splits import PairError
from sbirlib.runs.folder import Run, describe

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "run-0.1.0.tar.xz"


@pytest.fixture
def older(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_its_model_embeds_as_it_did(older):
    expected = json.loads((older / "embeddings.json").read_text())
    picture = (torch.arange(3 * 48 * 48).reshape(1, 3, 48, 48) % 17) / 16
    for which in ("best", "last"):
        model = load_run(older / "run", which)
        assert model.config.method == "arnet"
        with torch.no_grad():
            for name, embed in (("sketch", model.embed_sketches), ("photo", model.embed_photos)):
                assert embed(picture)[0].tolist() == pytest.approx(expected[name], abs=1e-5)


def test_its_gallery_is_searched_by_its_model_alone(older, pairs, run):
    model = load_run(older / "run")
    gallery = Gallery.load(older / "gallery.safetensors", model)
    assert len(gallery.search(pairs.split("test").sketches[0].path, k=3)) == 3
    with pytest.raises(PairError, match="embedded by another model"):
        Gallery.load(older / "gallery.safetensors", load_run(run))


def test_it_is_described_and_scored(older, pairs):
    assert "1 of 3 epochs" in describe(older / "run")
    assert "goes on with" in describe(older / "run")
    assert len(evaluate(load_run(older / "run"), pairs).ranks) == 16


def test_it_goes_on_from_its_checkpoint(older, pairs):
    config = Run(older / "run").saved_config()
    records = list(train(pairs, config, out=older / "run", resume=True))
    assert [record.epoch for record in records] == [2, 3]
    assert Run(older / "run").history()["epoch"] == [1, 2, 3]
    assert "method: arnet" in (older / "run" / "last" / "config.yaml").read_text()
