"""The parts of the benchmark that need processes of their own: memory, costs of an epoch, import."""

from __future__ import annotations

import multiprocessing
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from sbirlib.bench_released import ReleasedRecipe
from sbirlib.bench_train import Setup, label
from sbirlib.config import Config
from sbirlib.measure import Row, Spread, in_turn, seconds
from sbirlib.pairs import PairFolder
from sbirlib.train import Trainer
from sbirlib.train_setup import load_data, make_accelerator
from sbirlib.views import Epoch

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


def memory_rows(setup: Setup) -> Iterator[Row]:
    """MiB that one training step needed on top of model and data, each measured in a process of its own.

    On a CPU the rise of the process's size (on macOS of its largest size so far), on a GPU of what
    torch held. The last row is one large step, with `optim.chunk` and without.
    """
    for preset in ("mini_full", "basic"):
        for size in setup.batches if preset == "basic" else (setup.config(preset).optim.batch_size,):
            config = setup.config(preset).updated({"optim.batch_size": size})
            kit, released = _alone(step_memory, config), _alone(released_step_memory, config)
            yield Row(f"memory, {label(preset, config)}, a step of {kit.batch} pairs", "MiB", "lower",
                      Spread.of([kit.memory]), Spread.of([released.memory]))
    config = setup.config("mini_full").updated({"optim.batch_size": LARGE_STEP})
    whole = _alone(step_memory, config)
    chunked = _alone(step_memory, config.updated({"optim.chunk": min(CHUNK, whole.batch // 2)}))
    part = f"memory, {label('mini_full', config)}, a step of {whole.batch} pairs in chunks"
    yield Row(part, "MiB", "lower", Spread.of([chunked.memory]), Spread.of([whole.memory]), against="whole batch")
    yield Row(part, "s", "lower", Spread.of([chunked.seconds]), Spread.of([whole.seconds]), against="whole batch")


def cost_rows(setup: Setup) -> Iterator[Row]:
    """Minutes and memory of an epoch by preset; and how those of mini_full change with batch, image size and data."""
    usual = None
    for preset in ("mini", "mini_full", "basic", "full"):
        config = setup.config(preset)
        cost = _alone(epoch_cost, config, 1.0)
        usual = cost if preset == "mini_full" else usual
        part = f"costs, {label(preset, config)}, batch {config.optim.batch_size}"
        yield Row(part, "min/epoch", "lower", Spread.of([cost.minutes]))
        yield Row(part, "MiB", "lower", Spread.of([cost.memory]))
    config = setup.config("mini_full")
    changes = {"twice the batch": {"optim.batch_size": 2 * config.optim.batch_size},
               "twice the image side": {"model.image_size": 2 * config.model.image_size},
               "half the photos and their sketches": {}}
    for what, change in changes.items():
        cost = _alone(epoch_cost, config.updated(change), 1.0 if change else 0.5)
        for unit, now, before in zip(("min/epoch", "MiB"), cost, usual, strict=True):
            yield Row(f"costs, mini_full, {what}", unit, "lower", Spread.of([now]), Spread.of([before]),
                      against="mini_full as it is")


def import_rows(setup: Setup) -> Iterator[Row]:
    """Seconds until a new Python has imported the kit, or shown the help of the command line."""
    plain = _python("-c", PLAIN_IMPORT)
    for what, words in (("import sbirlib", ("-c", "import sbirlib")), ("--help", ("-m", "sbirlib", "--help"))):
        ours, theirs = in_turn(lambda words=words: seconds(_python(*words)), lambda: seconds(plain), setup.repeats)
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
    if share < 1:
        pairs.splits["train"], _ = pairs.split("train").holdout(share, config.run.seed)
    trainer = Trainer(pairs, config, Path())
    plan = Epoch(trainer.data, config.data, seed=config.run.seed, epoch=1)
    trainer.model.train()
    _forget_peak(trainer.accelerator.device)
    steps = [seconds(lambda: trainer._step(plan, 0)) for _ in range(4)][1:]
    search = seconds(lambda: trainer._validate(config.run.epochs))
    memory = _held(trainer.accelerator.device) / MIB
    return EpochCost((trainer.steps * Spread.of(steps).median + search) / 60, memory)


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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif STATUS.is_file():
        STATUS.with_name("clear_refs").write_text("5")  # Linux: the largest size so far is the present one


def _python(*words: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
