"""Galleries: photos embedded once, to be searched with sketches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sbirlib.data.images import faults_message, list_images, list_unread, list_visible, read_pixels
from sbirlib.data.loading import load_images
from sbirlib.data.splits import PairError
from sbirlib.data.transforms import fit_square
from sbirlib.errors import InputError, first_line
from sbirlib.methods.base import Method, fingerprint
from sbirlib.retrieval.rows import embed
from sbirlib.retrieval.scores import ram_budget
from sbirlib.retrieval.search import best_matches
from sbirlib.runs.atomic import replacing_file

BROKEN = "the model is broken (did training diverge?)"


class Hit(NamedTuple):
    """One search result: rank (1 = best), photo file, and its score: of unit rows the cosine, in [-1, 1]."""

    rank: int
    path: Path
    similarity: float


class Gallery:
    """Photos embedded once, to be searched with sketches.

    `embeddings` (g, ...) are rows as the model's `score` compares them, `paths` (g,) the photo files;
    `skipped` counts photos that could not be read. Raises InputError if an embedding is not a number.
    """

    def __init__(self, model: Method, paths: Sequence[Path], embeddings: Tensor, skipped: int = 0) -> None:
        if len(paths) != len(embeddings):
            raise ValueError(f"{len(paths)} photos but {len(embeddings)} embeddings")
        if not embeddings.isfinite().all():
            raise InputError(f"the photos' embeddings are not numbers: {BROKEN}")
        self.model, self.paths, self.embeddings, self.skipped = model, list(paths), embeddings, skipped

    @staticmethod
    def from_folder(model: Method, folder: str | Path, *, on_fault: str = "stop") -> Gallery:
        """Embeds every image of a folder and of the folders in it, but hidden ones.

        Raises PairError if there is none or files cannot be read.
        """
        folders = _with_subfolders(Path(folder))
        unread = [fault for place in folders for fault in list_unread(place)]
        if unread and on_fault == "stop":
            raise PairError(faults_message(folder, unread))
        photos = [photo for place in folders for photo in list_images(place)]
        gallery = Gallery.from_files(model, photos, root=folder, on_fault=on_fault)
        gallery.skipped += len(unread)
        return gallery

    @staticmethod
    def from_files(
        model: Method, paths: Sequence[Path], *, root: str | Path = "gallery", on_fault: str = "stop"
    ) -> Gallery:
        """Embeds these photo files; `root` names them in messages."""
        if not paths:
            raise PairError(f"{root}: no photos to search in")
        pixels, faults = load_images(paths, model.image_size, model.fit, ram_budget(model) * 2**30, "photos")
        if faults and on_fault == "stop":
            raise PairError(faults_message(root, faults))
        if not len(pixels):
            raise PairError(f"{root}: none of its {len(paths)} photos can be read")
        lost = {fault.path for fault in faults}
        device = next(model.parameters()).device
        embeddings = embed(model.eval().embed_photos, pixels, device=device, what="photos")
        kept = [path for path in paths if path not in lost]
        return Gallery(model, kept, embeddings, len(paths) - len(kept))

    def search(self, sketch: str | Path | Tensor, k: int = 10) -> list[Hit]:
        """The k photos that match a sketch best: a picture file, or (3, h, w) float in [0, 1].

        Exact; photos that match equally well come in the order of `paths`. Raises InputError for k < 1 and
        for a sketch whose embedding is not a number.
        """
        if not isinstance(sketch, Tensor):
            sketch = read_pixels(sketch).float() / 255
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            # Resized before it goes to the device: not every one can do that.
            square = fit_square(sketch[None], self.model.image_size, self.model.fit)
            query = self.model.eval().embed_sketches(square.to(device)).float().cpu()
        if not query.isfinite().all():
            raise InputError(f"the sketch's embedding is not a number: {BROKEN}")
        found = best_matches(self.model.score, query, self.embeddings, k)
        best = zip(found.rows[0].tolist(), found.scores[0].tolist(), strict=True)
        return [Hit(rank, self.paths[row], value) for rank, (row, value) in enumerate(best, start=1)]

    def save(self, path: str | Path) -> None:
        """Writes embeddings and file names to one safetensors file. Raises InputError if it cannot."""
        paths = json.dumps([str(photo) for photo in self.paths])
        metadata = {"paths": paths, "model": fingerprint(self.model.photo_encoder)}
        try:
            with replacing_file(path) as fresh:
                save_file({"embeddings": self.embeddings.contiguous()}, str(fresh), metadata)
        except (OSError, SafetensorError) as error:
            advice = "choose a folder that exists and has room"
            raise InputError(
                f"{path}: the gallery cannot be written ({first_line(error)}); {advice}"
            ) from None

    @staticmethod
    def load(path: str | Path, model: Method) -> Gallery:
        """Reads what `save` wrote; `model` must be the one that embedded it. Raises PairError."""
        try:
            with safe_open(str(path), "pt") as file:
                embeddings, metadata = file.get_tensor("embeddings"), file.metadata()
                paths, owner = [Path(photo) for photo in json.loads(metadata["paths"])], metadata["model"]
            if embeddings.dtype != torch.float32 or embeddings.ndim < 2 or len(embeddings) != len(paths):
                found = f"{embeddings.dtype} of shape {tuple(embeddings.shape)}"
                raise ValueError(f"{len(paths)} names for {found}")
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise PairError(f"{path}: not a saved gallery ({error})") from None
        if owner != fingerprint(model.photo_encoder):
            raise PairError(f"{path}: was embedded by another model; embed the photos again")
        return Gallery(model, paths, embeddings)


def _with_subfolders(folder: Path) -> list[Path]:
    """`folder` and all folders below it that are not hidden, each once, however links lead to it."""
    folders, seen = [folder], {folder.resolve()}
    for place in folders:  # which grows meanwhile
        below = {path.resolve(): path for path in list_visible(place) if path.is_dir()}
        folders += [path for real, path in below.items() if real not in seen]
        seen |= below.keys()
    return folders
