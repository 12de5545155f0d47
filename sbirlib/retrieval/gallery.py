"""Galleries: photos embedded once, to be searched with sketches."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from sbirlib.data.images import Fault, faults_message, list_images, list_unread, list_visible
from sbirlib.data.loading import load_images
from sbirlib.data.splits import PairError
from sbirlib.data.transforms import fit_square, read_pixels
from sbirlib.errors import InputError, first_line
from sbirlib.methods.base import Method, fingerprint
from sbirlib.retrieval.search import embed, score_all
from sbirlib.runs.atomic import replacing_file

BATCH = 128  # photos that are decoded and embedded at a time
BROKEN = "the model is broken (did training diverge?)"


class Hit(NamedTuple):
    """One search result: rank (1 = best), photo file, and its score: of unit rows the cosine, in [-1, 1]."""

    rank: int
    path: Path
    similarity: float


class Stamp(NamedTuple):
    """A photo file as it was when it was embedded: a file that changes gets another size or time."""

    path: str
    size: int  # in bytes, -1 if it was not there
    time: int  # of the last change, in ns


class Gallery:
    """Photos embedded once, to be searched with sketches.

    `embeddings` (g, ...) are rows as the model's `score` compares them, `paths` (g,) the photo files, and
    `stamps` how these were when they were read; `left_out` are photos that could not be, `fresh` counts rows
    that did not come from a saved gallery. Raises InputError if an embedding is not a number.
    """

    def __init__(
        self, model: Method, paths: Sequence[str | Path | Stamp], embeddings: Tensor,
        left_out: Sequence[Path] = (), *, fresh: int | None = None,
    ) -> None:  # fmt: skip
        if len(paths) != len(embeddings):
            raise ValueError(f"{len(paths)} photos but {len(embeddings)} embeddings")
        if not embeddings.isfinite().all():
            raise InputError(f"the photos' embeddings are not numbers: {BROKEN}")
        self.stamps = [path if isinstance(path, Stamp) else _stamp(path) for path in paths]
        self.model, self.paths = model, [Path(stamp.path) for stamp in self.stamps]
        self.embeddings, self.left_out = embeddings, list(left_out)
        self.fresh = len(paths) if fresh is None else fresh

    @staticmethod
    def from_folder(
        model: Method, folder: str | Path, *, on_fault: str = "stop", kept: str | Path | None = None,
        tell: Callable[[int, int], None] | None = None,
    ) -> Gallery:  # fmt: skip
        """Embeds every image of a folder and of the folders in it, but hidden ones.

        Rows of photos that have not changed since come from `kept`, a file that `save` wrote, if it is there
        and of this model. `tell` is called with the number of photos done and their total. Raises PairError
        if there is no photo or files cannot be read.
        """
        photos, unread = photos_in(Path(folder))
        if unread and on_fault == "stop":
            raise PairError(faults_message(folder, unread))
        gallery = Gallery.from_files(model, photos, root=folder, on_fault=on_fault, kept=kept, tell=tell)
        gallery.left_out += [fault.path for fault in unread]
        return gallery

    @staticmethod
    def from_files(
        model: Method, paths: Sequence[Path], *, root: str | Path = "gallery", on_fault: str = "stop",
        kept: str | Path | None = None, tell: Callable[[int, int], None] | None = None,
    ) -> Gallery:  # fmt: skip
        """Embeds these photo files; `root` names them in messages, the rest is as for `from_folder`."""
        if not paths:
            raise PairError(f"{root}: no photos to search in")
        stamps = [_stamp(path) for path in paths]  # before they are read: a later change is noticed
        rows: dict[Stamp, Tensor] = {}
        with suppress(InputError):  # nothing is kept, or it is damaged or of another model
            saved = _read(kept or "", model)
            rows |= zip(saved.stamps, saved.embeddings, strict=True)
        new = [stamp for stamp in dict.fromkeys(stamps) if stamp not in rows]
        device, done = next(model.parameters()).device, len(paths) - len(new)
        faults: list[Fault] = []
        with tqdm(total=len(new), desc="photos", disable=None, leave=False) as bar:
            for start in range(0, len(new), BATCH):
                part = {Path(stamp.path): stamp for stamp in new[start : start + BATCH]}
                pixels, broken = load_images(list(part), model.image_size, model.fit, what="")
                faults += broken
                for fault in broken:
                    del part[fault.path]
                if part and (not faults or on_fault != "stop"):  # or only the list of faults is wanted
                    embeddings = embed(model.eval().embed_photos, pixels, device=device)
                    rows |= zip(part.values(), embeddings, strict=True)
                bar.update(len(part) + len(broken))
                if tell is not None:
                    tell(min(done + start + BATCH, len(paths)), len(paths))
        if faults and on_fault == "stop":
            raise PairError(faults_message(root, faults))
        stamps = [stamp for stamp in stamps if stamp in rows]
        if not stamps:
            raise PairError(f"{root}: none of its {len(paths)} photos can be read")
        embeddings, left_out = torch.stack([rows[stamp] for stamp in stamps]), [f.path for f in faults]
        return Gallery(model, stamps, embeddings, left_out, fresh=len(new) - len(faults))

    def search(self, sketch: str | Path | Tensor, k: int = 10) -> list[Hit]:
        """The k photos that match a sketch best: a picture file, or (3, h, w) float in [0, 1].

        Exact; photos that match equally well come in the order of `paths`. Raises InputError for k < 1 and
        for a sketch whose embedding is not a number.
        """
        if k < 1:
            raise InputError(f"k = {k}: ask for at least one photo")
        if not isinstance(sketch, Tensor):
            sketch = read_pixels(sketch).float() / 255
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            # Resized before it goes to the device: not every one can do that.
            square = fit_square(sketch[None], self.model.image_size, self.model.fit)
            query = self.model.eval().embed_sketches(square.to(device)).float().cpu()
        if not query.isfinite().all():
            raise InputError(f"the sketch's embedding is not a number: {BROKEN}")
        scores = score_all(self.model.score, query, self.embeddings)[0]
        best = scores.argsort(descending=True, stable=True)[:k].tolist()
        return [Hit(rank, self.paths[row], float(scores[row])) for rank, row in enumerate(best, start=1)]

    def save(self, path: str | Path) -> None:
        """Writes embeddings and file names to one safetensors file. Raises InputError if it cannot."""
        metadata = {"stamps": json.dumps(self.stamps), **_owner(self.model)}
        try:
            with replacing_file(path) as fresh:
                save_file({"embeddings": self.embeddings.contiguous()}, str(fresh), metadata)
        except (OSError, SafetensorError) as error:
            why = f"the gallery cannot be written ({first_line(error)})"
            raise InputError(f"{path}: {why}; choose a folder that exists and has room") from None

    @staticmethod
    def load(path: str | Path, model: Method) -> Gallery:
        """Reads what `save` wrote; `model` must be the one that embedded it.

        Raises PairError, also where photos have changed since or are gone; what has come since is not in it.
        """
        saved = _read(path, model)
        changed = [stamp.path for stamp in saved.stamps if stamp.size >= 0 and stamp != _stamp(stamp.path)]
        if changed:
            raise PairError(
                f"{path}: {len(changed)} photos have changed or gone since they were embedded, such as "
                f"{changed[0]}; embed the photos again (`from_folder` with `kept` embeds only these)"
            )
        return saved


def _read(path: str | Path, model: Method) -> Gallery:
    """The gallery in a file as it was saved. Raises PairError."""
    try:
        with safe_open(str(path), "pt") as file:
            embeddings, metadata = file.get_tensor("embeddings"), file.metadata()
        found = json.loads(metadata["stamps"])
        stamps = [Stamp(str(Path(name)), int(size), int(time)) for name, size, time in found]
        if embeddings.dtype != torch.float32 or embeddings.ndim < 2:
            raise ValueError(f"rows of {embeddings.dtype} in a shape of {tuple(embeddings.shape)}")
        gallery = Gallery(model, stamps, embeddings, fresh=0)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise PairError(f"{path}: not a saved gallery, or not one of this version ({error})") from None
    owner = _owner(model)
    if any(metadata.get(name) != value for name, value in owner.items()):
        raise PairError(f"{path}: was embedded by another model; embed the photos again")
    return gallery


def _owner(model: Method) -> dict[str, str]:
    """What decides how a photo is embedded."""
    views = ", ten crops" if getattr(getattr(model, "options", None), "ten_crops", False) else ""
    return {"model": fingerprint(model.photo_encoder), "view": f"{model.image_size} px, {model.fit}{views}"}


def _stamp(path: str | Path) -> Stamp:
    try:
        found = Path(path).stat()
    except OSError:
        return Stamp(str(path), -1, -1)
    return Stamp(str(path), found.st_size, found.st_mtime_ns)


def photos_in(folder: Path) -> tuple[list[Path], list[Fault]]:
    """The image files of a folder and of those below it that are not hidden, and what is only named so."""
    places, seen = [folder], {folder.resolve()}
    for place in places:  # which grows meanwhile, each folder once, however links lead to it
        below = {path.resolve(): path for path in list_visible(place) if path.is_dir()}
        places += [path for real, path in below.items() if real not in seen]
        seen |= below.keys()
    photos = [photo for place in places for photo in list_images(place)]
    return photos, [fault for place in places for fault in list_unread(place)]
