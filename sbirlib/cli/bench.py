"""The command `bench`."""

from pathlib import Path
from typing import Literal, get_args

import torch

from sbirlib.errors import InputError

BenchPart = Literal["input", "step", "evaluation", "search", "memory", "import", "panels"]


def bench_command(
    part: tuple[BenchPart, ...] = (),
    root: Path = Path("data/MiniClothes"),
    run: Path | None = None,
    json: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    repeats: int = 3,
) -> int:
    """Measure the kit beside the released recipe, and print a table; exit code 1 if memory ran out for a row.

    Args:
        part: What to measure; if none is named, all parts, panels only with --run.
        root: Folder with trainA/, trainB/, testA/ and testB/; search and import need none.
        run: A trained model, for the panels of the notebooks.
        json: Also write machine and rows to this file, after each row.
        device: Where to train and score.
        repeats: How often each row is measured.
    """
    can = {
        "panels": (run is not None, "shows a trained model: name one with --run RUN"),
        "memory": (
            Path("/proc/self/status").is_file() or (device != "cpu" and torch.cuda.is_available()),
            "needs Linux, or a CUDA GPU",
        ),
    }
    for name in part:
        possible, need = can.get(name, (True, ""))
        if not possible:
            raise InputError(f"the part {name} {need}")
    if repeats < 1:
        raise InputError(f"--repeats {repeats}: measure at least once")
    if json is not None and (json.is_dir() or not json.parent.is_dir()):
        raise InputError(f"--json {json}: name a file, in a folder that exists")
    # The panels draw with the notebooks' libraries, which take a while to import.
    from sbirlib.bench import Bench

    parts = part or [name for name in get_args(BenchPart) if can.get(name, (True,))[0]]
    return 0 if Bench(parts, root, run, json, device, repeats)() else 1
