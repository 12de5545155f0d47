"""Pictures to embeddings, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from sbirlib.data.transforms import to_float


@torch.inference_mode()
def embed(
    encode: Callable[[Tensor], Tensor],
    pixels: Tensor,
    *,
    device: torch.device | str = "cpu",
    batch: int = 128,
    what: str = "embedding",
) -> Tensor:
    """(n, 3, s, s) uint8 -> (n, e) float32 on the CPU, `batch` images at a time."""
    # No bar for a single batch: a notebook keeps a place for each, and shows no more than fifty a cell.
    starts = tqdm(range(0, len(pixels), batch), desc=what, disable=len(pixels) <= batch or None, leave=False)
    return torch.cat([encode(to_float(pixels[i : i + batch], device)).float().cpu() for i in starts])
