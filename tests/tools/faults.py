"""Breaks a short training in every way that a machine does, many times, and counts what was lost.

`python tests/tools/faults.py` prints the table as Markdown; `make test-slow` asserts that nothing was lost.
Children are forked, so that a hundred of them take minutes.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from tqdm.auto import tqdm

from sbirlib import Config, train
from sbirlib.miniclothes.dataset import draw_miniclothes
from sbirlib.runs.atomic import RunError
from sbirlib.runs.folder import Run
from sbirlib.runs.state import CheckpointWarning
from sbirlib.training.trainer import TrainingError

TIMING = ("seconds", "views_per_second")
FORK = multiprocessing.get_context("fork")
BROKEN = 3  # exit code of a child that could not go on


class Fault(NamedTuple):
    """A kind of fault: how often tried, then gone on with or begun again; and how many runs differed."""

    kind: str
    tried: int
    resumed: int
    begun_again: int
    different: int


def config_of(root: Path) -> Config:
    """Nine steps, a checkpoint after each, with dropout and stochastic depth."""
    return Config.preset("mini_full").updated(
        {
            "data.root": str(root),
            "model.image_size": 48,
            "model.embed_dim": 16,
            "optim.batch_size": 6,
            "optim.warmup": 0,
            "run.epochs": 3,
            "run.tracker": "none",
            "data.val_fraction": 0.25,
            "mstr.scales": (1, 2),
            "model.drop_path": 0.2,
            "run.save_minutes": 0,
            "run.keep": "best",
            "run.device": "cpu",
        }
    )


def same(one: Path, other: Path) -> bool:
    """Whether weights and history of two runs are equal bit for bit."""
    for name in ("best", "last"):
        first, second = (load_file(run / name / "model.safetensors") for run in (one, other))
        if first.keys() != second.keys() or not all(torch.equal(first[key], second[key]) for key in first):
            return False
    return history(one) == history(other)


def history(run: Path) -> list[dict[str, str]]:
    """The rows of history.csv without what a clock measured."""
    with (run / "history.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in TIMING} for row in csv.DictReader(file)
        ]


def work(config: Config, out: Path) -> None:
    """What a child does: trains, or goes on; exit code BROKEN if the kit refuses."""
    torch.set_num_threads(1)
    # Forked processes share tqdm's lock: a child killed while it holds it would stop all that come after.
    tqdm.set_lock(threading.RLock())
    begun = bool(Run(out).checkpoints)
    try:
        for _ in train(config.data.root, config, out=out, resume=begun, overwrite=not begun):
            pass
    except (RunError, TrainingError) as error:
        print(error, file=sys.stderr)
        os._exit(BROKEN)
    except KeyboardInterrupt:
        os._exit(130)
    os._exit(0)


def until_done(config: Config, out: Path) -> None:
    """Lets a run end undisturbed."""
    child = FORK.Process(target=work, args=(config, out))
    child.start()
    child.join(300)
    if child.exitcode != 0:
        raise RuntimeError(f"{out}: the run could not be ended, exit code {child.exitcode}")


def signalled(
    config: Config, whole: Path, folder: Path, number: int, tries: int, duration: float, kind: str
) -> Fault:
    """Sends a signal at random moments of runs, each of which is resumed until it is done."""
    chance, sent, resumed, different, runs = random.Random(0), 0, 0, 0, 0
    while sent < tries:
        out = folder / f"{kind.replace(' ', '_')}-{runs}"
        runs += 1
        for _ in range(min(5, tries - sent)):
            child = FORK.Process(target=work, args=(config, out))
            child.start()
            child.join(chance.uniform(0, duration))
            hit = child.is_alive()
            if hit:
                os.kill(child.pid, number)
                sent += 1
            child.join(60)
            if child.is_alive():
                raise RuntimeError(f"{out}: still running a minute after {kind}")
            # Hit before its first checkpoint, a run has nothing to go on from and begins again.
            resumed += hit and bool(Run(out).checkpoints)
        until_done(config, out)
        different += not same(whole, out)
    return Fault(kind, sent, resumed, sent - resumed, different)


def damaged(
    config: Config,
    whole: Path,
    folder: Path,
    tries: int,
    kind: str,
    damage: Callable[[bytes, random.Random], bytes],
) -> Fault:
    """Damages the newest checkpoint of a run stopped half-way: the one before must be used, and that said."""
    chance, different, said = random.Random(1), 0, 0
    half = folder / f"{kind.split()[0]}-half"
    records = train(config.data.root, config, out=half)
    next(records)
    records.close()
    for number in range(tries):
        out = folder / f"{kind.split()[0]}-{number}"
        shutil.copytree(half, out)
        path = Run(out).checkpoints[-1] / chance.choice(["model.safetensors", "trainer.pt"])
        path.write_bytes(damage(path.read_bytes(), chance))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CheckpointWarning)
            if len(list(train(config.data.root, config, out=out, resume=True))) != 3:
                raise RuntimeError(f"{out}: the first epoch was not done again")
        said += any(issubclass(warning.category, CheckpointWarning) for warning in caught)
        different += not same(whole, out)
    return Fault(kind, tries, said, 0, different)


def full_disk(config: Config, whole: Path, folder: Path, tries: int) -> Fault | None:
    """Trains on a file system that is too small, makes room, goes on; None if none can be mounted here."""
    need, different, resumed, refused = _size(whole), 0, 0, 0
    for number in range(tries):
        small = folder / f"small-{number}"
        small.mkdir()
        size = int(need * (0.5 + 0.4 * number / tries))
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], capture_output=True
        ).returncode:
            return None
        try:
            child = FORK.Process(target=work, args=(config, small / "run"))
            child.start()
            child.join(120)
            refused += child.exitcode == BROKEN
            subprocess.run(["mount", "-o", f"remount,size={4 * need}", str(small)], check=True)
            until_done(config, small / "run")
            resumed += 1
            different += not same(whole, small / "run")
        finally:
            subprocess.run(["umount", str(small)], check=True)
    if not refused:
        raise RuntimeError("no disk was full: nothing was tried")
    return Fault("full disk", refused, resumed - (tries - refused), 0, different)


def dead_process(config: Config, folder: Path, tries: int) -> Fault:
    """Two processes, one is killed: the other must not wait for ever, and the run goes on."""
    folder.mkdir()
    chance, killed, resumed, different = random.Random(2), 0, 0, 0
    config.to_yaml(folder / "config.yaml")
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        __file__,
        str(folder / "config.yaml"),
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    subprocess.run([*start, str(folder / "whole")], check=True, capture_output=True, env=env, timeout=300)
    for number in range(tries):
        out = folder / f"run-{number}"
        launcher = subprocess.Popen(
            [*start, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env
        )
        deadline = time.monotonic() + 120
        while not Run(out).checkpoints and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.5))
        workers = subprocess.run(
            ["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True
        ).stdout.split()
        if workers:
            os.kill(int(workers[-1]), signal.SIGKILL)
            killed += 1
        launcher.wait(120)
        resumed += bool(workers) and bool(Run(out).checkpoints)
        subprocess.run([*start, str(out)], check=True, capture_output=True, env=env, timeout=300)
        different += not same(folder / "whole", out)
    return Fault("one of two processes killed", killed, resumed, 0, different)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def _flip(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]


def every_fault(folder: Path, kills: int = 100, others: int = 20) -> list[Fault]:
    """Tries all kinds; a row for each."""
    root = draw_miniclothes(folder / "data", photos=(16, 8), sketches=(32, 16), size=64)
    config, whole = config_of(root), folder / "whole"
    torch.set_num_threads(1)
    until_done(config, whole)
    started = time.monotonic()
    until_done(config, folder / "timed")
    duration = time.monotonic() - started
    faults = [
        signalled(config, whole, folder, signal.SIGKILL, kills, duration, "kill -9"),
        signalled(config, whole, folder, signal.SIGINT, others, duration, "Ctrl-C"),
        damaged(config, whole, folder, others, "truncated checkpoint", _cut),
        damaged(config, whole, folder, others, "flipped bit in a checkpoint", _flip),
        full_disk(config, whole, folder, min(others, 8)),
        dead_process(config, folder / "processes", min(others, 3)),
    ]
    return [fault for fault in faults if fault is not None]


def table(faults: list[Fault]) -> str:
    """The faults as a Markdown table."""
    lines = [
        "| fault | tried | gone on with | before the first checkpoint: begun again | came out different |",
        "|---|---|---|---|---|",
    ]
    return "\n".join(
        [
            *lines,
            *(f"| {f.kind} | {f.tried} | {f.resumed} | {f.begun_again} | {f.different} |" for f in faults),
        ]
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:  # as one of several processes
        work(Config.from_yaml(sys.argv[1]), Path(sys.argv[2]))
    with tempfile.TemporaryDirectory() as place:
        print(table(every_fault(Path(place))))
