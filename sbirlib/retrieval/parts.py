"""Galleries of large folders: embedded in parts, by any number of processes, and joined on the disk."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from tqdm.auto import tqdm

from sbirlib.data.images import EXTENSIONS, Fault, faults_message
from sbirlib.data.splits import PairError
from sbirlib.errors import InputError
from sbirlib.methods.base import Method
from sbirlib.retrieval.gallery import embed_new, photos_in
from sbirlib.retrieval.saved import Kept, join, stamp_of, write_gallery
from sbirlib.retrieval.search import embedder
from sbirlib.runs.atomic import Owner

PART = 1024  # photos; a killed process has to embed no more of them again


class Embedded(NamedTuple):
    """The photos of a gallery file: how many there are, were embedded now, and were left out."""

    photos: int
    fresh: int
    left_out: int


def embed_folder(model: Method, folder: str | Path, out: str | Path, *, on_fault: str = "stop") -> Embedded:
    """Embeds a folder as `Gallery.from_folder` does, into the file `out`, which `Gallery.load` reads.

    Of n processes that a launcher has started, on one machine or on several with one file system, number p
    embeds parts p, p + n, ... of the photos into the folder `out`.parts; the first joins these to `out`,
    whole or not at all, and removes them. Whatever is killed, a later call embeds only what is in neither, in
    the same number of processes or another; a photo that has changed is embedded again.

    Each process holds the names of all photos, size and time too of those that `out` had before, but the rows
    of one part only. Raises PairError if there is no photo, and, once the others are embedded, with the list
    of those that cannot be read; InputError, with its name, if a file cannot be written.
    """
    state, out = PartialState(), Path(out).resolve()  # a link stays one
    if out.suffix.lower() in EXTENSIONS:
        raise InputError(f"{out}: is named like a picture; name it {out.stem}.safetensors")
    found, unread = photos_in(Path(folder))
    if unread and on_fault == "stop":
        raise PairError(faults_message(folder, unread))
    if not found:
        raise PairError(f"{folder}: no photos to search in")
    place, mine = Path(f"{out}.parts"), embedder(model)
    lock = Owner(place) if state.is_main_process else None
    try:
        # Photos may come while processes look for them: all go by the list of the first.
        [photos] = broadcast_object_list([list(map(str, found))])
        starts = range(0, len(photos), PART)
        cut = [(place / f"{i:09d}.safetensors", photos[i : i + PART]) for i in starts]
        own = cut[state.process_index :: state.num_processes]
        told = gather_object([_embed_parts(model, own, Kept(out, mine), mine)])
        faults = [fault for _, some in told for fault in some]
        done = Embedded(len(photos) - len(faults), sum(count for count, _ in told), len(faults) + len(unread))
        if not state.is_main_process:
            return done
        if faults and on_fault == "stop":
            kept = f"The other {done.photos} are embedded and kept in {place}"
            raise PairError(f"{faults_message(folder, faults)}\n{kept}")
        if not done.photos:
            raise PairError(f"{folder}: none of its photos can be read")
        joined = place / f"joined{out.suffix}"
        rows = join([file for file, _ in cut if file.is_file()], joined, mine)
        if rows != done.photos:
            where = f"{place} has {rows} of the {done.photos} photos that were embedded"
            raise InputError(f"{where}: write to a folder that all machines share")
        joined.replace(out)
        shutil.rmtree(place, ignore_errors=True)
        return done
    finally:
        if lock is not None:
            lock.release(begun=any(place.glob("*.safetensors")))


def _embed_parts(
    model: Method, parts: Sequence[tuple[Path, list[str]]], before: Kept, mine: Mapping[str, str]
) -> tuple[int, list[Fault]]:
    """Writes the file of each part; how many photos it has embedded, and which it could not read."""
    state, fresh, faults = PartialState(), 0, list[Fault]()
    what, silent = f"photos, process 1 of {state.num_processes}", None if state.is_main_process else True
    total = sum(len(photos) for _, photos in parts)
    with tqdm(total=total, desc=what, disable=silent, leave=False) as bar:
        for file, photos in parts:
            there, stamps = Kept(file, mine), [stamp_of(path) for path in photos]
            rows = before.find(stamps) | there.find(stamps)
            new = [stamp for stamp in stamps if stamp not in rows]
            bar.update(len(stamps) - len(new))
            for count, broken in embed_new(model, new, rows):
                fresh, faults = fresh + count - len(broken), faults + broken
                bar.update(count)
            stamps = [stamp for stamp in stamps if stamp in rows]
            if not stamps:
                file.unlink(missing_ok=True)
            elif stamps != there.stamps:
                write_gallery(file, stamps, torch.stack([rows[stamp] for stamp in stamps]), mine)
    return fresh, faults
