"""From pictures to rows, a batch at a time, and exact search for the photos that match a sketch best."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from sbirlib.data import LoadedSplit, fit_square, read_pixels, to_float
from sbirlib.errors import InputError
from sbirlib.methods.base import Method, fingerprint, hidden_layers

QUERIES, ROWS = 256, 8192  # in a block: what a method's `score` is given at a time
BROKEN = "the model is broken (did training diverge?)"

# The latest rows of each model, with what they were made by and of.
_kept: WeakKeyDictionary[Method, dict[str, tuple[tuple[str, str], Tensor]]] = WeakKeyDictionary()

Score = Callable[[Tensor, Tensor], Tensor]


class Hit(NamedTuple):
    """One search result: rank (1 = best), photo file, and its score: of unit rows the cosine, in [-1, 1]."""

    rank: int
    path: Path
    similarity: float


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


def embed_split(model: Method, data: LoadedSplit, *, batch: int = 128) -> Rows:
    """The rows of a loaded split, embedded where the model is, which is in eval mode meanwhile.

    A model in eval mode keeps the rows of the latest sketches and photos, and embeds these again only if its
    weights, settings or device have changed; hooks that change what a layer gives are not noticed.
    """
    device, was_training, found = next(model.parameters()).device, model.training, {}
    model.eval()
    plain = [{k: v for k, v in vars(m).items() if isinstance(v, int | float | str)} for m in model.modules()]
    halved, weights = torch.is_autocast_enabled(device.type), "" if was_training else fingerprint(model)
    state = f"{weights} {plain} {device} {halved}"
    # Where layers of the released code keep their dropout or see a whole batch, rows are not a picture's own.
    kept = {} if was_training or hidden_layers(model) or model.indivisible else _kept.setdefault(model, {})
    parts = {"sketches": (model.embed_sketches, data.sketches), "photos": (model.embed_photos, data.photos)}
    for what, (encode, pixels) in parts.items():
        key = state, hashlib.sha256(pixels.contiguous().numpy().data).hexdigest()
        if what not in kept or kept[what][0] != key:
            kept[what] = key, embed(encode, pixels, device=device, batch=batch, what=what)
        found[what] = kept[what][1].clone()
    model.train(was_training)
    return Rows(**found)


@torch.inference_mode()
def embed_query(model: Method, sketch: str | Path | Tensor, k: int) -> Tensor:
    """The row (1, ...) of a sketch to find k photos of. Raises InputError as `Gallery.search` does."""
    if k < 1:
        raise InputError(f"k = {k}: ask for at least one photo")
    if not isinstance(sketch, Tensor):
        sketch = read_pixels(sketch).float() / 255
    # Resized before it goes to the device: not every one can do that.
    square = fit_square(sketch[None], model.image_size, model.fit)
    query = model.eval().embed_sketches(square.to(next(model.parameters()).device)).float().cpu()
    if not query.isfinite().all():
        raise InputError(f"the sketch's embedding is not a number: {BROKEN}")
    return query


@torch.inference_mode()
def score_all(score: Score, queries: Tensor, gallery: Tensor) -> Tensor:
    """Scores (q, g) of rows (q, ...) and (g, ...), in blocks, so that `score` needs little memory."""
    # Rows are compared in full precision, whatever the encoders run in.
    with torch.autocast(queries.device.type, enabled=False):
        parts = gallery.split(ROWS)
        return torch.cat([torch.cat([score(q, g) for g in parts], dim=1) for q in queries.split(QUERIES)])


def true_ranks(similarity: np.ndarray, photo_index: np.ndarray) -> np.ndarray:
    """Rank of each query's photo: (q, g) similarities and (q,) rows -> (q,) int64, 1 = first.

    Ties count against the model: a photo as similar as the true one comes before it. Raises InputError if a
    similarity is not a number.
    """
    if np.isnan(similarity).any():
        raise InputError(f"similarities contain NaN: {BROKEN}")
    true = np.take_along_axis(similarity, photo_index[:, None], axis=1)
    return (similarity >= true).sum(axis=1)


def embedder(model: Method) -> dict[str, str]:
    """What decides how a photo is embedded: rows of another embedder cannot be searched."""
    views = ", ten crops" if getattr(getattr(model, "options", None), "ten_crops", False) else ""
    return {"model": fingerprint(model.photo_encoder), "view": f"{model.image_size} px, {model.fit}{views}"}
