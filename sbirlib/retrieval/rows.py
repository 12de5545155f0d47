"""From pictures to rows that can be compared, a batch at a time."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from sbirlib.data.loading import LoadedSplit
from sbirlib.data.transforms import to_float
from sbirlib.methods.base import Method


class Rows(NamedTuple):
    """Rows of sketches (q, ...) and photos (g, ...), float32 on the CPU, as `Method.score` compares them."""

    sketches: Tensor
    photos: Tensor


@torch.inference_mode()
def embed(
    encode: Callable[[Tensor], Tensor], pixels: Tensor, *, device: torch.device | str = "cpu",
    batch: int = 128, what: str = "embedding",
) -> Tensor:  # fmt: skip
    """(n, 3, s, s) uint8 -> rows (n, ...) float32 on the CPU, `batch` images at a time."""
    # No progress bar for a single batch: a notebook shows no more than fifty in a cell.
    starts = tqdm(range(0, len(pixels), batch), desc=what, disable=len(pixels) <= batch or None, leave=False)
    return torch.cat([encode(to_float(pixels[i : i + batch], device)).float().cpu() for i in starts])


def embed_split(
    model: Method, data: LoadedSplit, *, device: torch.device | str | None = None, batch: int = 128
) -> Rows:
    """The rows of a loaded split, on `device` or where the model is, which is in eval mode meanwhile."""
    device = device or next(model.parameters()).device
    was_training = model.training
    model.eval()
    photos = embed(model.embed_photos, data.photos, device=device, batch=batch, what="photos")
    sketches = embed(model.embed_sketches, data.sketches, device=device, batch=batch, what="sketches")
    model.train(was_training)
    return Rows(sketches, photos)
