"""Galleries in Milvus, here in a file of Milvus Lite: what is found is what the exact search finds."""

import sys

import pytest
import torch

from sbirlib import ARNet, Gallery, load_run
from sbirlib.errors import InputError
from sbirlib.methods import METHODS
from sbirlib.retrieval import MilvusGallery


@pytest.fixture(scope="module")
def model(run):
    return load_run(run)


@pytest.fixture(scope="module")
def gallery(model, clothes):
    return Gallery.from_folder(model, clothes / "trainB")


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "photos.db")


def size(searched):
    [found] = searched.client.query(searched.collection, output_fields=["count(*)"])
    return found["count(*)"]


def test_milvus_finds_what_the_exact_search_finds(model, gallery, pairs, uri):
    gallery.to_milvus(uri)
    searched = MilvusGallery(model, uri)
    assert size(searched) == 16
    for sketch in pairs.split("test").sketches:
        for k in (1, 5, 99):
            assert searched.search(sketch.path, k) == gallery.search(sketch.path, k)
    with pytest.raises(InputError, match="k = 0"):
        searched.search(torch.rand(3, 30, 50), 0)


def test_more_rows_than_a_message_and_equal_ones(model, uri, monkeypatch):
    monkeypatch.setattr("sbirlib.retrieval.milvus.BATCH", 7)
    rows = torch.nn.functional.normalize(torch.randn(40, 16, generator=torch.Generator().manual_seed(0)))
    rows[[3, 12, 30, 31]] = rows[20].clone()
    gallery = Gallery(model, [f"{name}.png" for name in range(40, 0, -1)], rows)
    gallery.to_milvus(uri)
    monkeypatch.setattr(model, "embed_sketches", lambda images: rows[20:21])
    found = MilvusGallery(model, uri).search(torch.rand(3, 30, 50), 12)
    assert found == gallery.search(torch.rand(3, 30, 50), 12)
    assert [gallery.paths.index(hit.path) for hit in found[:5]] == [3, 12, 20, 30, 31]


def test_photos_are_replaced_and_never_doubled(model, gallery, pairs, uri):
    gallery.to_milvus(uri)
    gallery.to_milvus(uri)
    assert size(MilvusGallery(model, uri)) == 16
    first, *rest = gallery.paths
    turned = Gallery(model, [first, "new.png"], -gallery.embeddings[:2])
    turned.to_milvus(uri)
    searched = MilvusGallery(model, uri)
    assert size(searched) == 17
    all_now = Gallery(model, [*rest, *turned.paths], torch.cat([gallery.embeddings[1:], turned.embeddings]))
    sketch = pairs.split("test").sketches[0].path
    assert {*searched.search(sketch, 17)} == {*all_now.search(sketch, 17)}


def test_another_model_is_refused(model, gallery, uri):
    gallery.to_milvus(uri)
    other = ARNet("sbir_mini", image_size=48, embed_dim=16)
    with pytest.raises(InputError, match=r"photos\.db: the photos of collection 'photos' were .* another"):
        MilvusGallery(other, uri)
    with pytest.raises(InputError, match="choose another collection"):
        Gallery(other, gallery.paths, gallery.embeddings).to_milvus(uri)
    Gallery(other, gallery.paths[:3], gallery.embeddings[:3]).to_milvus(uri, "others")
    assert size(MilvusGallery(other, uri, "others")) == 3
    with pytest.raises(InputError, match="third"):
        MilvusGallery(other, uri, "third")


@pytest.mark.parametrize("name", sorted(name for name, method in METHODS.items() if not method.vectors))
def test_methods_that_compare_pair_by_pair_are_refused(name, uri):
    model = METHODS[name].__new__(METHODS[name])
    with pytest.raises(InputError, match=f"{name} does not compare photos by the inner product of unit rows"):
        MilvusGallery(model, "http://localhost:1")


def test_milvus_that_is_not_there(model, gallery, uri, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"photos\.db: no such file"):
        MilvusGallery(model, uri)
    with pytest.raises(InputError, match=r"Milvus: .*connect.*localhost:1"):
        MilvusGallery(model, "http://localhost:1")
    with pytest.raises(InputError, match=r"Milvus: .*none.*not exists"):
        gallery.to_milvus(str(tmp_path / "none" / "photos.db"))
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(InputError, match=r"pip install 'sbirlib\[scale\]'"):
        gallery.to_milvus(uri)


def test_names_that_are_not_utf8_are_refused(model, uri):
    with pytest.raises(InputError, match="its name is not UTF-8"):
        Gallery(model, ["\udcff.png"], torch.ones(1, 16)).to_milvus(uri)
