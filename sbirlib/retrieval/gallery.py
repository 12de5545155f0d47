"""Galleries: photos embedded once, to be searched with sketches."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm.auto import tqdm

from sbirlib.data import EXTENSIONS, Fault, PairError, load_images
from sbirlib.data.images import faults_message, list_images, list_unread, list_visible
from sbirlib.errors import InputError, first_line
from sbirlib.methods.base import Method
from sbirlib.retrieval.milvus import MilvusGallery
from sbirlib.retrieval.search import BROKEN, Hit, embed, embed_query, embedder, score_all
from sbirlib.runs.atomic import Owner, replacing_file

BATCH = 128  # photos that are decoded and embedded at a time
PART = 1024  # photos; a killed process has to embed no more of them again
HEADER = 4096  # bytes at the beginning of a file: more than what is said there takes


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
        self.stamps = [path if isinstance(path, Stamp) else _stamp_of(path) for path in paths]
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
        stamps = [_stamp_of(path) for path in paths]  # before they are read: a later change is noticed
        rows: dict[Stamp, Tensor] = {}
        with suppress(InputError):  # nothing is kept, or it is damaged or of another model
            rows |= zip(*_read_gallery(kept or "", embedder(model)), strict=True)
        new = [stamp for stamp in dict.fromkeys(stamps) if stamp not in rows]
        done, faults = len(paths) - len(new), list[Fault]()
        with tqdm(total=len(new), desc="photos", disable=None, leave=False) as bar:
            for count in _embed_new(model, new, rows, faults, stop=on_fault == "stop"):
                done += count
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
        scores = score_all(self.model.score, embed_query(self.model, sketch, k), self.embeddings)[0]
        best = scores.argsort(descending=True, stable=True)[:k].tolist()
        return [Hit(rank, self.paths[row], float(scores[row])) for rank, row in enumerate(best, start=1)]

    def save(self, path: str | Path) -> None:
        """Writes embeddings and file names to one safetensors file. Raises InputError if it cannot."""
        _write_gallery(path, [(self.stamps, self.embeddings)], embedder(self.model))

    def to_milvus(self, uri: str, collection: str = "photos") -> None:
        """Puts the photos into a collection of Milvus for `MilvusGallery`, whose errors it raises.

        A photo takes the place of one with the same path; others stay. The index is exact.
        """
        size = self.embeddings.shape[1:].numel()
        MilvusGallery(self.model, uri, collection, new=size).insert(self.paths, self.embeddings)

    @staticmethod
    def load(path: str | Path, model: Method) -> Gallery:
        """Reads what `save` wrote; `model` must be the one that embedded it.

        Raises PairError, also where photos have changed since or are gone; what has come since is not in it.
        """
        stamps, rows = _read_gallery(path, embedder(model))
        changed = [stamp.path for stamp in stamps if stamp.size >= 0 and stamp != _stamp_of(stamp.path)]
        if changed:
            why = f"{len(changed)} photos have changed or gone since they were embedded, such as {changed[0]}"
            way = "embed the photos again (`embed`, or `from_folder` with `kept`: only these)"
            raise PairError(f"{path}: {why}; {way}")
        return Gallery(model, stamps, rows, fresh=0)


class Embedded(NamedTuple):
    """The photos of a gallery file: how many there are, were embedded now, and were left out."""

    photos: int
    fresh: int
    left_out: int


def embed_folder(model: Method, folder: str | Path, out: str | Path, *, on_fault: str = "stop") -> Embedded:
    """Embeds a folder as `Gallery.from_folder` does, into the file `out`, which `Gallery.load` reads.

    Of n processes that a launcher has started, on one machine or on several with one file system, number p
    embeds parts p, p + n, ... of the photos into the folder `out`.parts; the first joins them. Whatever is
    killed, a later call, of any number of processes, embeds only photos that are new or have changed. Each
    holds the names of all photos, but the rows of one part only. Raises PairError if no photo can be read,
    and, once the others are embedded, with the list of those that cannot; RunError that says who is at it if
    the file is being written.
    """
    out = Path(out).resolve()  # a link stays one
    if out.suffix.lower() in EXTENSIONS:
        raise InputError(f"{out}: is named like a picture; name it {out.stem}.safetensors")
    place = Path(f"{out}.parts")
    with ExitStack() as held:
        if PartialState().is_main_process:
            # What a second one began at the same time, the first to end would remove.
            held.callback(Owner(place).release, begun=False)
        return _embed_parts(model, folder, out, place, on_fault)


def _embed_parts(model: Method, folder: str | Path, out: Path, place: Path, on_fault: str) -> Embedded:
    state, (found, unread) = PartialState(), photos_in(Path(folder))
    # Photos may come while processes look for them: all go by the list of the first.
    [photos] = broadcast_object_list([list(map(str, found))])
    mine, files, tried, faults = embedder(model), list[Path](), 0, list[Fault]()
    old, old_rows = list[Stamp](), torch.empty(0)
    with suppress(PairError):  # it is not there, or of another model
        old, old_rows = _read_gallery(out, mine)
    row_of = {stamp: row for row, stamp in enumerate(old)}
    starts = range(PART * state.process_index, len(photos), PART * state.num_processes)
    parts = {place / f"{start:09d}.safetensors": photos[start : start + PART] for start in starts}
    what, silent = f"photos, process 1 of {state.num_processes}", None if state.is_main_process else True
    with tqdm(total=sum(map(len, parts.values())), desc=what, disable=silent, leave=False) as bar:
        for file, names in parts.items():
            saved, stamps = dict[Stamp, Tensor](), [_stamp_of(name) for name in names]
            with suppress(PairError):
                saved |= zip(*_read_gallery(file, mine), strict=True)
            rows = saved | {stamp: old_rows[row_of[stamp]] for stamp in stamps if stamp in row_of}
            new = [stamp for stamp in stamps if stamp not in rows]
            tried += len(new)
            bar.update(len(stamps) - len(new))
            for count in _embed_new(model, new, rows, faults):
                bar.update(count)
            stamps = [stamp for stamp in stamps if stamp in rows]
            files += [file] if stamps else []
            if stamps and stamps != list(saved):
                part = Gallery(model, stamps, torch.stack([rows[stamp] for stamp in stamps]))
                place.mkdir(parents=True, exist_ok=True)
                _write_gallery(file, [(part.stamps, part.embeddings)], mine)
    files, faults, tried = sorted(gather_object(files)), gather_object(faults), sum(gather_object([tried]))
    done = Embedded(len(photos) - len(faults), tried - len(faults), len(faults + unread))
    if not state.is_main_process:
        return done
    if done.left_out and on_fault == "stop":
        raise PairError(faults_message(folder, faults + unread))
    if not done.photos:
        raise PairError(f"{folder}: no photos to search in, or none that can be read")
    whole = place / f"whole{out.suffix}"
    _write_gallery(whole, (_read_gallery(file, mine) for file in files), mine)
    whole.replace(out)
    shutil.rmtree(place, ignore_errors=True)
    return done


def _embed_new(
    model: Method, new: Sequence[Stamp], rows: dict[Stamp, Tensor], faults: list[Fault], *, stop: bool = False
) -> Iterator[int]:
    """Adds the rows of new photos to `rows`, what cannot be read to `faults`; yields how many at a time."""
    device = next(model.parameters()).device
    for start in range(0, len(new), BATCH):
        part = {Path(stamp.path): stamp for stamp in new[start : start + BATCH]}
        pixels, broken = load_images(list(part), model.image_size, model.fit, what="")
        faults += broken
        for fault in broken:
            del part[fault.path]
        if part and not (stop and faults):  # or only the list of faults is wanted
            rows |= zip(part.values(), embed(model.eval().embed_photos, pixels, device=device), strict=True)
        yield len(part) + len(broken)


def _write_gallery(
    path: str | Path, parts: Iterable[tuple[Sequence[Stamp], Tensor]], embedder: Mapping[str, str]
) -> None:
    """Writes photos and their rows (g, ...) to one file, a part at a time. Raises InputError if it cannot.

    safetensors itself writes only what is in memory; of text it takes too little, so that photos are lines
    in a tensor of bytes. The format: https://github.com/huggingface/safetensors#format
    """
    lines, shape = bytearray(), [0]
    try:
        with replacing_file(path) as fresh, fresh.open("wb") as file:
            file.seek(HEADER)  # it is written last, once the sizes are known
            for stamps, rows in parts:
                file.write(rows.float().contiguous().numpy().data)
                lines += "".join(f"{json.dumps(stamp)}\n" for stamp in stamps).encode()
                shape = [shape[0] + len(rows), *rows.shape[1:]]
            size = file.tell() - HEADER
            end = size + file.write(lines)
            tensors = {
                "embeddings": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]},
                "stamps": {"dtype": "U8", "shape": [len(lines)], "data_offsets": [size, end]},
            }
            header = json.dumps({"__metadata__": dict(embedder), **tensors}).encode()
            file.seek(0)
            file.write((HEADER - 8).to_bytes(8, "little") + header.ljust(HEADER - 8))
    except OSError as error:
        why = f"the gallery cannot be written ({first_line(error)})"
        raise InputError(f"{path}: {why}; choose a folder that exists and has room") from None


def _read_gallery(path: str | Path, embedder: Mapping[str, str]) -> tuple[list[Stamp], Tensor]:
    """What `_write_gallery` wrote; the rows are read from the disk when they are used. Raises PairError."""
    try:
        with safe_open(str(path), "pt") as file:
            rows, lines = file.get_tensor("embeddings"), bytes(file.get_tensor("stamps").numpy())
            found = file.metadata() or {}
        entries = map(json.loads, lines.splitlines())
        stamps = [Stamp(str(Path(name)), int(size), int(time)) for name, size, time in entries]
        if rows.dtype != torch.float32 or rows.ndim < 2 or len(rows) != len(stamps):
            raise ValueError(f"{rows.dtype} {tuple(rows.shape)} of {len(stamps)} photos")
    except (OSError, SafetensorError, TypeError, ValueError, RecursionError) as error:
        raise PairError(f"{path}: not a saved gallery, or not one of this version ({error})") from None
    if any(found.get(name) != value for name, value in embedder.items()):
        raise PairError(f"{path}: was embedded by another model; embed the photos again")
    return stamps, rows


def _stamp_of(path: str | Path) -> Stamp:
    """The photo file as it is now."""
    with suppress(OSError):
        found = Path(path).stat()
        return Stamp(str(path), found.st_size, found.st_mtime_ns)
    return Stamp(str(path), -1, -1)


def photos_in(folder: Path) -> tuple[list[Path], list[Fault]]:
    """The image files of a folder and of those below it that are not hidden, and what is only named so."""
    places, seen = [folder], {folder.resolve()}
    for place in places:  # which grows meanwhile, each folder once, however links lead to it
        below = {path.resolve(): path for path in list_visible(place) if path.is_dir()}
        places += [path for real, path in below.items() if real not in seen]
        seen |= below.keys()
    photos = [photo for place in places for photo in list_images(place)]
    return photos, [fault for place in places for fault in list_unread(place)]
