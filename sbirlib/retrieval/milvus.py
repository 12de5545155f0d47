"""Galleries in Milvus (https://milvus.io): an embedded file, a server or a cluster, by the same calls."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from sbirlib.errors import InputError, check_utf8
from sbirlib.methods.base import Method
from sbirlib.retrieval.search import Hit, embed_query, embedder

BATCH = 1000  # rows in a message, of which servers take some tens of megabytes
MOST = 16_384  # rows that Milvus finds


class MilvusGallery:
    """Photos that `Gallery.to_milvus` has put into a collection, to be searched with sketches.

    `uri` is a file such as ./photos.db, or a server's address such as http://host:19530, to which the
    variable MILVUS_TOKEN, if it is set, gives access; `params` are those of the index for searching, such as
    {"ef": 200}. Raises InputError if there is no such collection, if another model has embedded it, and if
    the method does not compare photos as a vector index does.
    """

    left_out: tuple[Path, ...] = ()  # unlike a Gallery's, which has just been embedded

    def __init__(
        self, model: Method, uri: str, collection: str = "photos", *, params: dict[str, Any] | None = None
    ) -> None:
        if "://" not in uri and not Path(uri).exists():
            raise InputError(f"{uri}: no such file; `Gallery.to_milvus` makes one")
        self.model, self.uri, self.collection, self.params = model, uri, collection, params or {}
        self.client = _connect(model, uri, collection)
        with _told(uri):
            if not self.client.has_collection(collection):
                there = ", ".join(self.client.list_collections()) or "none"
                raise InputError(f"{uri}: no collection {collection!r}; there are: {there}")
            self.client.load_collection(collection)

    def __len__(self) -> int:
        with _told(self.uri):
            [found] = self.client.query(self.collection, output_fields=["count(*)"])
        return int(found["count(*)"])

    def search(self, sketch: str | Path | Tensor, k: int = 10) -> list[Hit]:
        """As `Gallery.search`, and with the same result if the index is exact (FLAT)."""
        query = embed_query(self.model, sketch, k)
        # Milvus adds up in single precision, so that the last of nearly equal photos are left to chance: some
        # more are asked for, and scored as the method does.
        asked = {"limit": max(k, min(2 * k + 16, MOST)), "output_fields": ["row", "embedding"]}
        how = {"metric_type": "IP", "params": self.params}
        with _told(self.uri):
            [found] = self.client.search(self.collection, query.tolist(), search_params=how, **asked)
        rows = torch.tensor([hit["entity"]["embedding"] for hit in found]).reshape(len(found), -1)
        scores = zip(self.model.score(query, rows)[0].tolist(), found, strict=True)
        best = sorted((-score, hit["entity"]["row"], hit["path"]) for score, hit in scores)[:k]
        return [Hit(rank, Path(path), -score) for rank, (score, _, path) in enumerate(best, start=1)]


def insert(
    model: Method, paths: Sequence[Path], rows: Tensor, uri: str, collection: str, index: str,
    params: dict[str, Any],
) -> None:  # fmt: skip
    """What `Gallery.to_milvus` does."""
    for path in paths:
        check_utf8(path)
    client = _connect(model, uri, collection)
    with _told(uri), tqdm(total=len(rows), desc="photos to Milvus", disable=None, leave=False) as bar:
        if not client.has_collection(collection):
            _create(client, model, rows.shape[1], collection, index, params)
        for start in range(0, len(rows), BATCH):
            part = range(start, min(start + BATCH, len(rows)))
            data = [{"path": str(paths[i]), "row": i, "embedding": rows[i].numpy()} for i in part]
            client.upsert(collection, data)
            bar.update(len(data))
        client.flush(collection)
        client.close()


def _create(
    client: Any, model: Method, size: int, collection: str, index: str, params: dict[str, Any]
) -> None:
    from pymilvus import DataType

    schema, indexes = client.create_schema(auto_id=False), client.prepare_index_params()
    schema.add_field("path", DataType.VARCHAR, is_primary=True, max_length=4096)  # as Linux takes at most
    schema.add_field("row", DataType.INT64)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=size)
    # Nested: of what pymilvus sends, Milvus Lite reads these alone.
    indexes.add_index("embedding", index_type=index, metric_type="IP", params={"params": params})
    how = {"schema": schema, "index_params": indexes, "consistency_level": "Strong"}
    client.create_collection(collection, properties=embedder(model), **how)


def _connect(model: Method, uri: str, collection: str) -> Any:
    """A MilvusClient. Raises InputError if the collection is there, but of another model."""
    if not model.vectors:
        why = "does not compare photos by the inner product of unit rows, as a vector index does"
        raise InputError(f"{model.name} {why}; search a folder or a gallery file")
    try:
        from pymilvus import MilvusClient
    except ImportError:
        raise InputError("Milvus needs more packages: pip install 'sbirlib[scale]'") from None
    with _told(uri):
        client = MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", ""))
        there = client.has_collection(collection)
        found = client.describe_collection(collection).get("properties", {}) if there else embedder(model)
    if any(found.get(name) != value for name, value in embedder(model).items()):
        other = f"{uri}: the photos of collection {collection!r} were embedded by another model"
        raise InputError(f"{other}; choose another collection, or drop this one and put the photos in again")
    return client


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Says in one line what Milvus says."""
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        raise InputError(f"{uri}: {error.message}") from None
