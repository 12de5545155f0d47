"""Commands that take a trained model: score it, search with it."""

import json as jsonlib
import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from sbirlib import data, methods, retrieval, runs
from sbirlib.errors import InputError, printable


def load_model(run: Path) -> "methods.Method":
    """The model of a run, on a GPU if there is one. Raises RunError."""
    from accelerate import PartialState

    return runs.load_run(run).to(PartialState().device)


def evaluate_command(
    run: Path, root: Annotated[Path, arg(name="data.root")], split: Literal["train", "test"] = "test",
    json: Path | None = None, drawn: int = 0, adapted: int = 0, noise: int = 0,
    on_fault: Annotated[Literal["stop", "skip"], arg(name="data.on_fault")] = "stop",
    pattern: Annotated[Literal["digits", "one_character"], arg(name="data.pattern")] = "digits",
) -> int:  # fmt: skip
    """Score a model: Acc@1/5/10 with counts and a 95 % interval.

    Args:
        run: Folder that `train --out` wrote.
        root: Folder with the split's A (sketches) and B (photos).
        split: Which split to search.
        json: Also write the result to this file.
        drawn: Also search while each sketch is being drawn, in so many steps: m@A and m@B. Needs strokes.
        adapted: Also search after showing the model so many pairs of each designer, with the sketches left.
        noise: Also search with so many strokes of another sketch in each, and without those that are dropped.
        on_fault: What to do about files that cannot be used: stop with their list, or skip and count them.
        pattern: Names of sketches: photo id and any digits; released: id, one character, .png.
    """
    check_output(json)
    model, pairs = load_model(run), data.PairFolder(root, pattern=pattern)
    own = {"drawn": drawn, "adapted": adapted, "noise": noise}
    scores = retrieval.evaluate(model, pairs, split, on_fault=on_fault, **own)
    print(scores)
    if json:
        runs.write_text(json, jsonlib.dumps(scores.as_dict(), indent=2) + "\n")
    return 0


def search_command(
    sketch: Positional[Path], run: Path, photos: Path | None = None, gallery: str | None = None,
    collection: str = "photos", top: int = 10, json: Path | None = None, frame: bool = True,
    on_fault: Annotated[Literal["stop", "skip"], arg(name="data.on_fault")] = "stop",
) -> int:  # fmt: skip
    """Find the photos of a folder, or of a gallery embedded before, that match a sketch best.

    Args:
        sketch: Picture file with the drawing: on white or grey paper, or light on dark.
        run: Folder that `train --out` wrote.
        photos: Any folder of photos, with the folders in it; or name a gallery.
        gallery: File that `embed` wrote, or milvus:URI, of a file or server that `Gallery.to_milvus` filled.
        collection: The collection of Milvus.
        top: How many photos to return.
        json: Also write the result to this file.
        frame: Cut the drawing out of its paper first, enlarge it to fill the picture, and whiten the paper.
        on_fault: What to do about photos that cannot be read.
    """
    if top < 1:
        raise InputError(f"--top {top}: ask for at least one photo")
    if (photos is None) == (gallery is None):
        raise InputError("give --photos FOLDER or --gallery FILE, one of the two")
    check_output(json, sketch, *(Path(place) for place in (photos, gallery) if place))
    model, drawing = load_model(run), data.read_image(sketch)
    if photos:
        searched: Any = retrieval.Gallery.from_folder(model, photos, on_fault=on_fault)
    elif str(gallery).startswith("milvus:"):
        searched = retrieval.MilvusGallery(model, str(gallery).removeprefix("milvus:"), collection)
    else:
        searched = retrieval.Gallery.load(str(gallery), model)
    framed = data.frame_picture(drawing) if frame else None
    hits = searched.search(data.as_pixels(drawing if framed is None else framed).float() / 255, top)
    for hit in hits:
        print(printable(f"{hit.rank:4d}  {hit.similarity:6.3f}  {hit.path}"))
    if frame and framed is None:
        print(printable(f"{sketch} has no plain paper around a drawing, so it was searched as it is"))
    if skipped := len(searched.left_out):
        print(f"{skipped} photos were left out because they cannot be read")
    rows = [{"rank": hit.rank, "photo": str(hit.path), "similarity": hit.similarity} for hit in hits]
    known = isinstance(searched, retrieval.Gallery)
    counts = {"gallery": len(searched.paths), "skipped": skipped} if known else {}
    if json:
        told = {"sketch": str(sketch), **counts, "results": rows}
        runs.write_text(json, jsonlib.dumps(told, indent=2) + "\n")
    return 0


def embed_command(
    run: Path, photos: Path, out: Path,
    on_fault: Annotated[Literal["stop", "skip"], arg(name="data.on_fault")] = "stop",
) -> int:  # fmt: skip
    """Embed a folder of photos into a file for `search --gallery`; called again, it goes on where it was.

    Args:
        run: Folder that `train --out` wrote.
        photos: Any folder of photos, with the folders in it.
        out: File to write, such as photos.safetensors; of photos that it has, only changed ones are embedded.
        on_fault: What to do about photos that cannot be read: skip them, or stop, once all others are done.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    check_output(out)
    # Processes that are done wait for the others.
    state = PartialState(parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=timedelta(weeks=1))
    done = retrieval.embed_folder(load_model(run), photos, out, on_fault=on_fault)
    if state.is_main_process:
        counts = f"{done.photos} photos, {done.fresh} of them embedded now; {done.left_out} cannot be read"
        print(printable(f"{out} has {counts}"))
    return 0


def check_output(json: Path | None, *inputs: Path) -> None:
    """Before any work is done: raises InputError for an output that cannot be written, or is an input."""
    if json is None:
        return
    there = json.is_file() or (json.parent.is_dir() and os.access(json.parent, os.W_OK))
    if json.is_dir() or not there:
        raise InputError(f"{json}: name a file, in a folder that exists and can be written")
    if json.exists() and any(json.resolve().is_relative_to(place.resolve()) for place in inputs):
        raise InputError(f"{json}: would be written over a picture that is searched; name another file")
