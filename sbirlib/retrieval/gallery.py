"""Galleries: photos embedded once, to be searched with sketches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from sbirlib.data.images import Fault, faults_message, list_images, list_unread, list_visible
from sbirlib.data.loading import load_images
from sbirlib.data.splits import PairError
from sbirlib.errors import InputError
from sbirlib.methods.base import Method
from sbirlib.retrieval import milvus
from sbirlib.retrieval.saved import Kept, Stamp, read_gallery, stamp_of, write_gallery
from sbirlib.retrieval.search import BROKEN, ROWS, Hit, embed, embed_query, embedder, score_all

BATCH = 128  # photos that are decoded and embedded at a time


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
        _check(embeddings)
        self.stamps = [path if isinstance(path, Stamp) else stamp_of(path) for path in paths]
        self.model, self.paths = model, [Path(stamp.path) for stamp in self.stamps]
        self.embeddings, self.left_out = embeddings, list(left_out)
        self.fresh = len(paths) if fresh is None else fresh

    def __len__(self) -> int:
        return len(self.paths)

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
        stamps = [stamp_of(path) for path in paths]  # before they are read: a later change is noticed
        rows = Kept(Path(kept), embedder(model)).find(stamps) if kept else {}
        new = [stamp for stamp in dict.fromkeys(stamps) if stamp not in rows]
        done, faults = len(paths) - len(new), list[Fault]()
        with tqdm(total=len(new), desc="photos", disable=None, leave=False) as bar:
            for count, broken in embed_new(model, new, rows, stop=on_fault == "stop"):
                done, faults = done + count, faults + broken
                bar.update(count)
                if tell is not None:
                    tell(done, len(paths))
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
        query = embed_query(self.model, sketch, k)
        scores = score_all(self.model.score, query, self.embeddings)[0]
        # Those that score as the last of the k are sorted too: their order decides.
        near = (scores >= scores.topk(min(k, len(scores))).values[-1]).nonzero()[:, 0]
        best = near[scores[near].argsort(descending=True, stable=True)[:k]].tolist()
        return [Hit(rank, self.paths[row], float(scores[row])) for rank, row in enumerate(best, start=1)]

    def save(self, path: str | Path) -> None:
        """Writes embeddings and file names to one safetensors file. Raises InputError if it cannot."""
        write_gallery(Path(path), self.stamps, self.embeddings, embedder(self.model))

    def to_milvus(self, uri: str, collection: str = "photos", index: str = "FLAT", **params: Any) -> None:
        """Puts the photos into a collection of Milvus, where `MilvusGallery` searches them.

        `uri` is a file, made by Milvus Lite, or a server, as for `MilvusGallery`. A collection that is not
        there is made, with an index that is exact or, for instance, "HNSW", M=16, efConstruction=200. A photo
        takes the place of one with the same path; others stay. Raises InputError as `MilvusGallery` does.
        """
        milvus.insert(self.model, self.paths, self.embeddings, uri, collection, index, params)

    @staticmethod
    def load(path: str | Path, model: Method) -> Gallery:
        """Reads what `save` wrote; `model` must be the one that embedded it.

        Raises PairError, also where photos have changed since or are gone; what has come since is not in it.
        """
        stamps, rows = read_gallery(Path(path), embedder(model))
        changed = [stamp.path for stamp in stamps if stamp.size >= 0 and stamp != stamp_of(stamp.path)]
        if changed:
            raise PairError(
                f"{path}: {len(changed)} photos have changed or gone since they were embedded, such as "
                f"{changed[0]}; embed the photos again (the command `embed`, or `from_folder` with `kept`, "
                "embeds only these)"
            )
        return Gallery(model, stamps, rows, fresh=0)


def embed_new(
    model: Method, new: Sequence[Stamp], rows: dict[Stamp, Tensor], *, stop: bool = False
) -> Iterator[tuple[int, list[Fault]]]:
    """Adds the rows of new photos to `rows`, a batch at a time; yields its size and what could not be read.

    After a fault, only further faults are looked for if this is to `stop`. Raises InputError if an embedding
    is not a number.
    """
    device, wanted = next(model.parameters()).device, True
    for start in range(0, len(new), BATCH):
        part = {Path(stamp.path): stamp for stamp in new[start : start + BATCH]}
        pixels, broken = load_images(list(part), model.image_size, model.fit, what="")
        wanted = wanted and not (stop and broken)
        for fault in broken:
            del part[fault.path]
        if part and wanted:
            embeddings = embed(model.eval().embed_photos, pixels, device=device)
            _check(embeddings)
            rows |= zip(part.values(), embeddings, strict=True)
        yield len(part) + len(broken), broken


def _check(embeddings: Tensor) -> None:
    # Some at a time: the answer takes as much memory as what is asked of.
    if not all(part.isfinite().all() for part in embeddings.split(ROWS)):
        raise InputError(f"the photos' embeddings are not numbers: {BROKEN}")


def photos_in(folder: Path) -> tuple[list[Path], list[Fault]]:
    """The image files of a folder and of those below it that are not hidden, and what is only named so."""
    places, seen = [folder], {folder.resolve()}
    for place in places:  # which grows meanwhile, each folder once, however links lead to it
        below = {path.resolve(): path for path in list_visible(place) if path.is_dir()}
        places += [path for real, path in below.items() if real not in seen]
        seen |= below.keys()
    photos = [photo for place in places for photo in list_images(place)]
    return photos, [fault for place in places for fault in list_unread(place)]
