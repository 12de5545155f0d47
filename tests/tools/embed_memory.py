"""How much memory `embed` takes for more and more photos: `PYTHONPATH=tests python -m tools.embed_memory`.

The photos are links to one file, embedded by an untrained model as 2,048 numbers each.
"""

import multiprocessing
import os
import resource
import tempfile
from pathlib import Path

import psutil
from PIL import Image

from sbirlib import ARNet
from sbirlib.retrieval import embed_folder


def grown(model: ARNet, folder: Path) -> float:
    """MiB that this process has at its peak beyond what it has now."""
    before = psutil.Process().memory_info().rss
    embed_folder(model, folder, folder.with_suffix(".safetensors"))
    return (1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


if __name__ == "__main__":
    model = ARNet("sbir_mini", image_size=48, embed_dim=2048).eval()
    print("| photos | gallery file | more memory at the peak |\n|---|---|---|")
    for count in (2_048, 16_384):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, "photos")
            folder.mkdir()
            Image.new("RGB", (48, 48)).save(folder / "0.png")
            for name in range(1, count):
                os.link(folder / "0.png", folder / f"{name}.png")
            with multiprocessing.get_context("fork").Pool(1) as pool:
                peak = pool.apply(grown, (model, folder))
            size = folder.with_suffix(".safetensors").stat().st_size / 2**20
            print(f"| {count:,} | {size:.0f} MiB | {peak:.0f} MiB |", flush=True)
