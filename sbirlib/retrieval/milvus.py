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
from sbirlib.retrieval.search import Hit, embed_query, owner

BATCH = 1000  # rows in a message, of which servers take some tens of megabytes
MOST = 16_384  # rows that Milvus finds at most


class MilvusGallery:
    """Photos that `Gallery.to_milvus` has put into a collection, to be searched with sketches.

    `uri` is a file such as ./photos.db, or a server's address such as http://host:19530, to which the
    variable MILVUS_TOKEN, if it is set, gives access; `params` are those of the index for searching, such as
    {"ef": 200}. Raises InputError if there is no such collection, if another model has embedded it, and if
    the method does not compare photos as a vector index does.
    """

    def __init__(
        self, model: Method, uri: str, collection: str = "photos", *, params: dict[str, Any] | None = None
    ) -> None:
        if "://" not in uri and not Path(uri).exists():
            raise InputError(f"{uri}: no such file; `Gallery.to_milvus` makes one")
        self.model, self.uri, self.collection, self.params = model, uri, collection, params or {}
        self.client, self.left_out = connect(model, uri), list[Path]()
        with _told(uri):
            if not self.client.has_collection(collection):
                there = ", ".join(self.client.list_collections()) or "none"
                raise InputError(f"{uri}: no collection {collection!r}; there are: {there}")
            _check_owner(self.client, model, uri, collection)
            self.client.load_collection(collection)

    def __len__(self) -> int:
        with _told(self.uri):
            [found] = self.client.query(self.collection, output_fields=["count(*)"])
        return int(found["count(*)"])

    def search(self, sketch: str | Path | Tensor, k: int = 10) -> list[Hit]:
        """As `Gallery.search`, and with the same result if the index is exact (FLAT)."""
        if k > MOST:
            raise InputError(f"k = {k}: Milvus finds at most {MOST} photos")
        query, fields = embed_query(self.model, sketch, k), ["row", "embedding"]
        # Milvus adds up in single precision, so that the last of nearly equal photos are left to chance: some
        # more are asked for, and scored as the method does.
        most, how = min(2 * k + 16, MOST), {"metric_type": "IP", "params": self.params}
        with _told(self.uri):
            [found] = self.client.search(
                self.collection, query.tolist(), limit=most, output_fields=fields, search_params=how
            )
        rows = torch.tensor([hit["entity"]["embedding"] for hit in found]).reshape(len(found), -1)
        scores = self.model.score(query, rows)[0].tolist()
        ranked = sorted(
            (-score, hit["entity"]["row"], hit["path"]) for score, hit in zip(scores, found, strict=True)
        )
        return [Hit(rank, Path(path), -score) for rank, (score, _, path) in enumerate(ranked[:k], start=1)]


def insert(
    model: Method, paths: Sequence[Path], rows: Tensor, uri: str, collection: str, index: str,
    params: dict[str, Any],
) -> None:  # fmt: skip
    """What `Gallery.to_milvus` does."""
    for path in paths:
        check_utf8(path)
    client = connect(model, uri)
    with _told(uri):
        if client.has_collection(collection):
            _check_owner(client, model, uri, collection)
        else:
            _create(client, model, rows.shape[1], collection, index, params)
        with tqdm(total=len(rows), desc="photos to Milvus", disable=None, leave=False) as bar:
            for start in range(0, len(rows), BATCH):
                part = range(start, min(start + BATCH, len(rows)))
                data = [{"path": str(paths[i]), "row": i, "embedding": rows[i].numpy()} for i in part]
                client.upsert(collection, data)
                bar.update(len(data))
        client.flush(collection)
        client.close()


def connect(model: Method, uri: str) -> Any:
    """A MilvusClient. Raises InputError if there is no connection, or `model` has no use for it."""
    if not model.vectors:
        why = "does not compare photos by the inner product of unit rows, as a vector index does"
        raise InputError(f"{model.name} {why}; search a folder or a gallery file")
    try:
        from pymilvus import MilvusClient
    except ImportError:
        raise InputError("Milvus needs more packages: pip install 'sbirlib[scale]'") from None
    with _told(uri):
        return MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", ""))


def _create(
    client: Any, model: Method, size: int, collection: str, index: str, params: dict[str, Any]
) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False)
    # The longest path that Linux takes.
    schema.add_field("path", DataType.VARCHAR, is_primary=True, max_length=4096)
    schema.add_field("row", DataType.INT64)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=size)
    indexes = client.prepare_index_params()
    # Nested: of what pymilvus sends, Milvus Lite reads these alone.
    indexes.add_index("embedding", index_type=index, metric_type="IP", params={"params": params})
    client.create_collection(
        collection, schema=schema, index_params=indexes, properties=owner(model), consistency_level="Strong"
    )


def _check_owner(client: Any, model: Method, uri: str, collection: str) -> None:
    found = client.describe_collection(collection).get("properties", {})
    if any(found.get(name) != value for name, value in owner(model).items()):
        other = f"{uri}: the photos of collection {collection!r} were embedded by another model"
        raise InputError(f"{other}; choose another collection, or drop this one and put the photos in again")


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Says in one line what Milvus says."""
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        raise InputError(f"{uri}: {error.message}") from None
