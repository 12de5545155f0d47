"""The parts of the benchmark that need processes of their own: memory, costs of an epoch, import."""

from __future__ import annotations

import importlib.util
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from sbirlib.bench.measure import Result, Row, Spread, attempt, in_turn, seconds
from sbirlib.bench.recipe import ReleasedRecipe
from sbirlib.bench.train import Setup, label
from sbirlib.config.config import Config
from sbirlib.data.batches import Epoch
from sbirlib.data.loading import load_data
from sbirlib.data.pairs import PairFolder, Split
from sbirlib.errors import InputError
from sbirlib.training.setup import make_accelerator
from sbirlib.training.trainer import Trainer

STATUS = Path("/proc/self/status")
MIB = 2**20
LARGE_STEP, CHUNK = 512, 32  # pairs
PLAIN_IMPORT = "import torch, timm"
_T = TypeVar("_T")


class EpochCost(NamedTuple):
    """What an epoch of the kit takes: `minutes` with its search, and at most `memory` MiB.

    On a CPU the memory is the size of the whole process, on a GPU what torch held there.
    """

    minutes: float
    memory: float


def check_memory(device: torch.device) -> None:
    """Raises InputError where nobody tells how large a process is."""
    if device.type != "cuda" and not STATUS.is_file() and importlib.util.find_spec("resource") is None:
        raise InputError(
            "the parts memory and costs need to know how large a process is, which this system does not "
            "tell; name other parts with --part, or measure on a GPU, on Linux or on macOS"
        )


def memory_rows(setup: Setup) -> Iterator[Result]:
    """MiB that one training step needed on top of model and data, each measured in a process of its own.

    On a CPU the rise of the process's size (on macOS of its largest size so far), on a GPU of what
    torch held. The last row is one large step, with `optim.chunk` and without.
    """
    for preset in ("mini_full", "basic"):
        for size in setup.batches if preset == "basic" else (setup.config(preset).optim.batch_size,):
            config = setup.config(preset).updated({"optim.batch_size": size})
            part = f"memory, {label(preset, config)}, a step of"
            yield from attempt(f"{part} {size} pairs", partial(_memory_rows, part, config))
    config = setup.config("mini_full").updated({"optim.batch_size": LARGE_STEP})
    part = f"memory, {label('mini_full', config)}, a step of"
    yield from attempt(f"{part} {LARGE_STEP} pairs in chunks", partial(_chunk_rows, part, config))


def _memory_rows(part: str, config: Config) -> Iterator[Row]:
    kit, released = _alone(step_memory, config), _alone(released_step_memory, config)
    yield Row(
        f"{part} {kit.batch} pairs", "MiB", "lower", Spread.of([kit.memory]), Spread.of([released.memory])
    )


def _chunk_rows(part: str, config: Config) -> Iterator[Row]:
    whole = _alone(step_memory, config)
    chunked = _alone(step_memory, config.updated({"optim.chunk": min(CHUNK, whole.batch // 2)}))
    part = f"{part} {whole.batch} pairs in chunks"
    yield Row(
        part, "MiB", "lower", Spread.of([chunked.memory]), Spread.of([whole.memory]), against="whole batch"
    )
    yield Row(
        part, "s", "lower", Spread.of([chunked.seconds]), Spread.of([whole.seconds]), against="whole batch"
    )


def cost_rows(setup: Setup) -> Iterator[Result]:
    """Minutes and memory of an epoch by preset; and how those of mini_full change with batch, image size and data."""
    costs: dict[str, EpochCost] = {}  # of what could be measured

    def rows(part: str, config: Config, share: float = 1.0, usual: EpochCost | None = None) -> Iterator[Row]:
        costs[part] = _alone(epoch_cost, config, share)
        before = [Spread.of([value]) for value in usual] if usual else [None, None]
        for unit, now, beside in zip(("min/epoch", "MiB"), costs[part], before, strict=True):
            yield Row(part, unit, "lower", Spread.of([now]), beside, against="mini_full as it is")

    parts = {}
    for preset in ("mini", "mini_full", "basic", "full"):
        config = setup.config(preset)
        parts[preset] = f"costs, {label(preset, config)}, batch {config.optim.batch_size}"
        yield from attempt(parts[preset], partial(rows, parts[preset], config))
    config, usual = setup.config("mini_full"), costs.get(parts["mini_full"])
    for what, change, share in (
        ("twice the batch", {"optim.batch_size": 2 * config.optim.batch_size}, 1.0),
        ("twice the image side", {"model.image_size": 2 * config.model.image_size}, 1.0),
        ("half the photos and their sketches", {}, 0.5),
    ):
        part = f"costs, mini_full, {what}"
        yield from attempt(part, partial(rows, part, config.updated(change), share, usual))


def import_rows(setup: Setup) -> Iterator[Row]:
    """Seconds until a new Python has imported the kit, or shown the help of the command line."""
    plain = _python("-c", PLAIN_IMPORT)
    for what, words in (
        ("import sbirlib", ("-c", "import sbirlib")),
        ("--help", ("-m", "sbirlib", "--help")),
    ):
        ours, theirs = in_turn(
            lambda words=words: seconds(_python(*words)), lambda: seconds(plain), setup.repeats
        )
        yield Row(f"import, {what}", "s", "lower", ours, theirs, against=PLAIN_IMPORT)


class StepCost(NamedTuple):
    """What the first training step of `batch` pairs took: MiB on top of model and data, and seconds."""

    batch: int
    memory: float
    seconds: float


def step_memory(config: Config) -> StepCost:
    """One step of the kit's trainer. To be called in a process that has not trained before."""
    trainer = Trainer(PairFolder(config.data.root), config, Path())
    trainer.model.train()
    plan = Epoch(trainer.data, config.data, seed=config.run.seed, epoch=1)
    return _cost(lambda: trainer._step(plan, 0), trainer.accelerator.device, trainer.batch_size)


def released_step_memory(config: Config) -> StepCost:
    """One step of the released recipe, on the same views. To be called in a process that has not trained before."""
    data, _, _ = load_data(PairFolder(config.data.root), config)
    device, batch = make_accelerator(config, Path()).device, min(config.optim.batch_size, len(data.sketches))
    recipe = ReleasedRecipe(config, 1, device)
    plan = Epoch(data, config.data, seed=config.run.seed, epoch=1)
    return _cost(lambda: recipe.step(plan.views(plan.rows(0, batch), device)), device, batch)


def epoch_cost(config: Config, share: float) -> EpochCost:
    """An epoch over `share` of the training photos, from three steps after the first and one search."""
    pairs = PairFolder(config.data.root)
    pairs.splits["train"] = reduced(pairs.split("train"), share, config.run.seed)
    trainer = Trainer(pairs, config, Path())
    plan = Epoch(trainer.data, config.data, seed=config.run.seed, epoch=1)
    trainer.model.train()
    _forget_peak(trainer.accelerator.device)
    steps = [seconds(lambda: trainer._step(plan, 0)) for _ in range(4)][1:]
    search = seconds(lambda: trainer._validate(config.run.epochs))
    memory = _held(trainer.accelerator.device) / MIB
    return EpochCost((trainer.steps * Spread.of(steps).median + search) / 60, memory)


def reduced(split: Split, share: float, seed: int) -> Split:
    """A `share` of the photos that have sketches, drawn by chance, with their sketches; for 1 the split itself."""
    return split.holdout(1 - share, seed)[0] if share < 1 else split


def _cost(step: Callable[[], object], device: torch.device, batch: int) -> StepCost:
    _forget_peak(device)
    before = _held(device)
    spent = seconds(step)
    return StepCost(batch, (_held(device) - before) / MIB, spent)


def _alone(measure: Callable[..., _T], *values: object) -> _T:
    # What one step freed is not given back to the system: each measurement needs a new process.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *values).result()


def _held(device: torch.device) -> int:
    """The most bytes that were held since `_forget_peak`, or, where the system cannot forget it, ever."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.is_file():
        peak = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(peak.split()[1])
    import resource  # not there on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif STATUS.is_file():
        STATUS.with_name("clear_refs").write_text("5")  # Linux: the largest size so far is the present one


def _python(*words: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
