"""The file of a gallery: its rows, and of each the photo file as it was when it was embedded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sbirlib.data.splits import PairError
from sbirlib.errors import InputError, first_line
from sbirlib.runs.atomic import replacing_file


class Stamp(NamedTuple):
    """A photo file as it was when it was embedded: a file that changes gets another size or time."""

    path: str
    size: int  # in bytes, -1 if it was not there
    time: int  # of the last change, in ns


def stamp_of(path: str | Path) -> Stamp:
    """The photo file as it is now."""
    try:
        found = Path(path).stat()
    except OSError:
        return Stamp(str(path), -1, -1)
    return Stamp(str(path), found.st_size, found.st_mtime_ns)


def write_gallery(path: Path, stamps: Sequence[Stamp], rows: Tensor, embedder: Mapping[str, str]) -> None:
    """Writes rows (g, ...) of `embedder` and a line of JSON for each. Raises InputError if it cannot.

    The lines are a tensor of bytes: the metadata of safetensors may not hold those of a million photos.
    """
    lines = bytearray("".join(f"{json.dumps(stamp)}\n" for stamp in stamps).encode())
    tensors = {"embeddings": rows.contiguous(), "stamps": torch.frombuffer(lines, dtype=torch.uint8)}
    with _writing(path) as fresh:
        save_file(tensors, str(fresh), dict(embedder))


def read_gallery(path: Path, embedder: Mapping[str, str]) -> tuple[list[Stamp], Tensor]:
    """What `write_gallery` or `join` wrote; rows stay on the disk until used. Raises PairError."""
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


class Kept:
    """The rows of a saved gallery, to be looked up by photo; none if it is not there, or of another model."""

    def __init__(self, path: Path, embedder: Mapping[str, str]) -> None:
        self.stamps: list[Stamp] = []
        with suppress(PairError):
            self.stamps, self._rows = read_gallery(path, embedder)
        self._places = {stamp: row for row, stamp in enumerate(self.stamps)}

    def find(self, stamps: Sequence[Stamp]) -> dict[Stamp, Tensor]:
        """The rows of those photos that are in it and have not changed."""
        return {stamp: self._rows[self._places[stamp]] for stamp in stamps if stamp in self._places}


def join(parts: Sequence[Path], path: Path, embedder: Mapping[str, str]) -> int:
    """Writes the rows of several files to one, a file at a time, and returns their number.

    Raises InputError if it cannot. safetensors itself writes only what is in memory, all at once:
    https://github.com/huggingface/safetensors#format
    """
    shapes: dict[str, list[list[int]]] = {"embeddings": [], "stamps": []}
    for part in parts:
        with safe_open(str(part), "pt") as file:
            for name, found in shapes.items():
                found.append(file.get_slice(name).get_shape())
    rows, length = (sum(shape[0] for shape in found) for found in shapes.values())
    shape = [rows, *shapes["embeddings"][0][1:]]
    size = 4 * torch.Size(shape).numel()
    header = json.dumps({
        "__metadata__": dict(embedder),
        "embeddings": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]},
        "stamps": {"dtype": "U8", "shape": [length], "data_offsets": [size, size + length]},
    }).encode()  # fmt: skip
    header += b" " * (-len(header) % 8)
    with _writing(path) as fresh, fresh.open("wb") as whole:
        whole.write(len(header).to_bytes(8, "little") + header)
        for name in shapes:
            for part in parts:
                with safe_open(str(part), "pt") as file:
                    whole.write(file.get_tensor(name).numpy().tobytes())
    return rows


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    try:
        with replacing_file(path) as fresh:
            yield fresh
    except (OSError, SafetensorError) as error:
        why = f"the gallery cannot be written ({first_line(error)})"
        raise InputError(f"{path}: {why}; choose a folder that exists and has room") from None
