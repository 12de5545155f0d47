"""Searching 10,000 to 1,000,000 vectors: the kit's exact search beside the indexes of Milvus Lite.

`PYTHONPATH=tests python -m tools.vector_search` prints it as Markdown; `--sizes` and `--indexes` do less.

Vectors are drawn, not embedded: unit vectors of 128 dimensions around 200 random centres, with noise as
long as those are, and queries drawn in the same way. Every search is in a process of its own, which opens
what another one wrote: its memory is what is resident after the queries, less what was before. CPU time is
that of all threads; on a busy machine it says more than the clock.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from torch.nn import functional as F

from sbirlib.methods.base import Method
from sbirlib.retrieval import Gallery, MilvusGallery

SIZE, CENTRES, QUERIES, K = 128, 200, 100, 10
EXACT = "the kit, exact"
# Of these indexes, Milvus Lite builds what the names say; parameters for building, and for searching.
INDEXES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "FLAT": ({}, {}),
    "HNSW": ({"M": 16, "efConstruction": 200}, {"ef": 64}),
    "HNSW_SQ": ({"M": 16, "efConstruction": 200, "sq_type": "SQ8"}, {"ef": 64}),
    "IVF_FLAT": ({"nlist": 1024}, {"nprobe": 16}),
    "IVF_SQ8": ({"nlist": 1024}, {"nprobe": 16}),
}


class Found(NamedTuple):
    """What a process measured: rows found (queries, K), seconds and CPU seconds of each query, bytes."""

    rows: list[list[int]]
    seconds: list[float]
    cpu: list[float]
    resident: int


class Drawn(torch.nn.Module):
    """Stands for a method that embeds any sketch as the row that is next."""

    name, vectors, image_size, fit, score = "drawn", True, 8, "pad", Method.score

    def __init__(self) -> None:
        super().__init__()
        self.photo_encoder, self.rows = torch.nn.Linear(1, 1), iter(vectors(QUERIES + 1, seed=1).split(1))
        self.photo_encoder.requires_grad_(False).weight.zero_()
        self.photo_encoder.bias.zero_()

    def embed_sketches(self, images: torch.Tensor) -> torch.Tensor:
        return next(self.rows)


def vectors(count: int, seed: int) -> torch.Tensor:
    """(count, SIZE) unit vectors around centres that are always the same."""
    centres = F.normalize(torch.randn(CENTRES, SIZE, generator=torch.Generator().manual_seed(0)), dim=1)
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, SIZE, generator=random) / SIZE**0.5
    return F.normalize(noise.add_(centres[torch.randint(CENTRES, (count,), generator=random)]), dim=1)


def search(place: Path, index: str) -> Found:
    """Opens what `store` wrote and searches it with all queries."""
    model, blank = Drawn(), torch.ones(3, 8, 8)
    process = psutil.Process()
    before = process.memory_info().rss
    if index == EXACT:
        gallery = Gallery.load(place / "gallery", model)
    else:
        gallery = MilvusGallery(model, str(place / "photos.db"))
        how = {"metric_type": "IP", "params": INDEXES[index][1]}
        gallery.client.search = partial(gallery.client.search, search_params=how)
    gallery.search(blank, K)  # reads what is read once
    rows, seconds, cpu = [], [], []
    for _ in range(QUERIES):
        start, used = time.perf_counter(), time.process_time()
        hits = gallery.search(blank, K)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
        rows.append([int(hit.path.name) for hit in hits])
    return Found(rows, seconds, cpu, process.memory_info().rss - before)


def store(place: Path, count: int, index: str) -> float:
    """Writes the vectors into a gallery file, or into Milvus Lite; the CPU seconds it took."""
    rows, names = vectors(count, seed=2), [f"{row}" for row in range(count)]
    gallery, start = Gallery(Drawn(), names, rows), time.process_time()
    if index == EXACT:
        gallery.save(place / "gallery")
    else:
        gallery.to_milvus(str(place / "photos.db"))
        there = MilvusGallery(gallery.model, str(place / "photos.db"))
        if index != "FLAT":
            there.client.release_collection("photos")
            there.client.drop_index("photos", "embedding")
            # Nested: of what pymilvus sends, Milvus Lite reads these alone.
            how = {"index_type": index, "metric_type": "IP", "params": {"params": INDEXES[index][0]}}
            there.client.create_index("photos", there.client.prepare_index_params("embedding", **how))
            there.client.load_collection("photos")
            assert there.client.describe_index("photos", "embedding")["index_type"] == index
        # The index is built when it is first opened, or in the background.
        there.search(torch.ones(3, 8, 8), K)
    return time.process_time() - start


def in_process(work: Callable[..., Any], *values: Any) -> Any:
    """What `work` returns in a process of its own."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(work, values)


def print_table(sizes: list[int], indexes: list[str]) -> None:
    """Prints the measurements as a Markdown table, a row as soon as it is there."""
    print("| vectors | search | Recall@10 | median | 95th perc. | CPU | resident | on disk | CPU to write |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for count in sizes:
        truth: list[list[int]] = []
        for index in (EXACT, *indexes):
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder)
                wrote = in_process(store, place, count, index)
                found = in_process(search, place, index)
                disk = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
            truth = truth or found.rows
            pairs = zip(truth, found.rows, strict=True)
            recall = np.mean([len({*true} & {*rows}) / K for true, rows in pairs])
            median, slow = 1000 * np.percentile(found.seconds, [50, 95])
            cells = [f"{count:,}", index, f"{100 * recall:.1f} %", f"{median:.1f} ms", f"{slow:.1f} ms"]
            cells += [f"{1000 * np.median(found.cpu):.1f} ms"]
            cells += [f"{found.resident / 2**20:,.0f} MiB", f"{disk / 2**20:,.0f} MiB", f"{wrote:,.0f} s"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--indexes", nargs="*", default=[*INDEXES], choices=[*INDEXES])
    print_table(**vars(parser.parse_args()))
