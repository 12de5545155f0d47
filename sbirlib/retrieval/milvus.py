"""Galleries in Milvus (https://milvus.io): a file, a server or a cluster, by the same calls."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from sbirlib.errors import InputError, check_utf8
from sbirlib.methods.base import Method
from sbirlib.retrieval.search import Hit, embed_query, embedder

BATCH = 1000  # rows in a message, of which servers take some tens of megabytes
MOST = 16_384  # rows that Milvus finds


@contextmanager
def _messages() -> Iterator[None]:
    """Raises InputError for what Milvus says."""
    try:
        from pymilvus import MilvusException
    except ImportError:
        raise InputError("Milvus needs more packages: pip install 'sbirlib[scale]'") from None
    try:
        yield
    except MilvusException as error:
        raise InputError(f"Milvus: {error.message}") from None


class MilvusGallery:
    """Photos that `Gallery.to_milvus` has put into a collection of Milvus, to be searched with sketches.

    `uri` is a file such as ./photos.db, or a server's address like http://host:19530, to which the variable
    MILVUS_TOKEN gives access. A collection that is not there is made for `new` numbers a photo. Raises
    InputError if it is not there or another model's, and for methods that do not compare by inner products.
    """

    left_out: tuple[Path, ...] = ()  # unlike a Gallery's, which has just been embedded

    @_messages()
    def __init__(self, model: Method, uri: str, collection: str = "photos", *, new: int = 0) -> None:
        from pymilvus import DataType, MilvusClient

        if not model.vectors:
            why = "does not compare photos by the inner product of unit rows, as a vector index does"
            raise InputError(f"{model.name} {why}; search a folder or a gallery file")
        if not (new or "://" in uri or Path(uri).exists()):
            raise InputError(f"{uri}: no such file; `Gallery.to_milvus` makes one")
        self.model, self.collection = model, collection
        self.client = MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", ""))
        if new and not self.client.has_collection(collection):
            schema = self.client.create_schema(auto_id=False)
            schema.add_field("path", DataType.VARCHAR, is_primary=True, max_length=4096)  # as in Linux
            schema.add_field("row", DataType.INT64)
            schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=new)
            index = self.client.prepare_index_params("embedding", index_type="FLAT", metric_type="IP")
            how = {"properties": embedder(model), "consistency_level": "Strong"}
            self.client.create_collection(collection, schema=schema, index_params=index, **how)
        found = self.client.describe_collection(collection).get("properties", {})
        if any(found.get(name) != value for name, value in embedder(model).items()):
            other = f"{uri}: the photos of collection {collection!r} were embedded by another model"
            raise InputError(f"{other}; choose another collection, or drop this one and fill it again")
        self.client.load_collection(collection)

    @_messages()
    def insert(self, paths: Sequence[Path], rows: Tensor) -> None:
        """Puts photos with rows (g, d) in, or in the place of those with the same paths."""
        for path in paths:
            check_utf8(path)
        for start in tqdm(range(0, len(rows), BATCH), desc="photos to Milvus", disable=None, leave=False):
            part = range(start, min(start + BATCH, len(rows)))
            data = [{"path": str(paths[i]), "row": i, "embedding": rows[i].numpy()} for i in part]
            self.client.upsert(self.collection, data)
        self.client.flush(self.collection)

    @_messages()
    def search(self, sketch: str | Path | Tensor, k: int = 10) -> list[Hit]:
        """As `Gallery.search`, and with the same result unless another index than ours has been built."""
        query = embed_query(self.model, sketch, k)
        # Milvus adds up in single precision, so that the last of nearly equal photos are left to chance: some
        # more are asked for, and scored as the method does.
        asked = {"limit": max(k, min(2 * k + 16, MOST)), "output_fields": ["row", "embedding"]}
        [found] = self.client.search(self.collection, query.tolist(), **asked)
        rows = torch.tensor([hit["entity"]["embedding"] for hit in found]).reshape(len(found), -1)
        scores = zip(self.model.score(query, rows)[0].tolist(), found, strict=True)
        best = sorted((-score, hit["entity"]["row"], hit["path"]) for score, hit in scores)[:k]
        return [Hit(rank, Path(path), -score) for rank, (score, _, path) in enumerate(best, start=1)]
