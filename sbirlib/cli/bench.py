"""The command `bench`."""

from pathlib import Path
from typing import Literal, get_args

import torch

from sbirlib.errors import InputError

BenchPart = Literal["input", "step", "evaluation", "search", "memory", "import"]


def bench_command(
    part: tuple[BenchPart, ...] = (),
    root: Path = Path("data/MiniClothes"),
    json: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    repeats: int = 3,
) -> int:
    """Measure the kit beside the released recipe, and print a table; exit code 1 if memory ran out for a row.

    Args:
        part: What to measure; if none is named, all parts.
        root: Folder with trainA/, trainB/, testA/ and testB/; search and import need none.
        json: Also write machine and rows to this file, after each row.
        device: Where to train and score.
        repeats: How often each row is measured.
    """
    tells_memory = Path("/proc/self/status").is_file() or (device != "cpu" and torch.cuda.is_available())
    if "memory" in part and not tells_memory:
        raise InputError("the part memory needs Linux, or a CUDA GPU")
    if repeats < 1:
        raise InputError(f"--repeats {repeats}: measure at least once")
    if json is not None and (json.is_dir() or not json.parent.is_dir()):
        raise InputError(f"--json {json}: name a file, in a folder that exists")
    from sbirlib.bench import Bench

    parts = part or [name for name in get_args(BenchPart) if name != "memory" or tells_memory]
    return 0 if Bench(parts, root, json, device, repeats)() else 1
