"""Time the kit, and measure its memory, on the machine at hand."""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from sbirlib.arnet import ARNet
from sbirlib.config import Config
from sbirlib.draw_panel import DrawPanel
from sbirlib.explorers import AttentionExplorer, RunComparer, TokenDiscardExplorer
from sbirlib.fields import InputError
from sbirlib.pairs import PairFolder
from sbirlib.retrieval import Gallery, score_split
from sbirlib.steps import backward
from sbirlib.train_setup import make_accelerator
from sbirlib.views import Epoch, LoadedSplit, load_split
from sbirlib.widgets import InfoNCEPanel, PairBrowser, RetrievalBrowser, ViewExplorer

UPDATES = 20
STATUS = Path("/proc/self/status")


class Latency(NamedTuple):
    """Seconds from a control's move to the new picture: `median` and 95th percentile `p95` of `updates`."""

    panel: str
    control: str
    median: float
    p95: float
    updates: int


def panel_latency(model: ARNet, data: LoadedSplit, run: Path | None = None) -> list[Latency]:
    """How long the panels of the notebooks take to redraw on `data`, `UPDATES` moves of each control.

    In the kernel, without what the browser takes to show the picture. `run` is the run folder that
    RunComparer shows; without it that panel is left out. Source: ours.
    """
    attention, discard = AttentionExplorer(model, data), TokenDiscardExplorer(model, data)
    browser = RetrievalBrowser(model, data, score_split(model, data))
    pairs = PairBrowser(_folder(data))
    views, example = ViewExplorer(_folder(data), model.config or Config()), InfoNCEPanel((0, 90, 180), (0, 90, 200))
    drawing = DrawPanel(Gallery.from_files(model, [photo.path for photo in data.split.photos]))
    moves: list[tuple[object, str, Iterable[Callable[[], None]]]] = [
        (pairs, "photo", _set(pairs.photo, pairs.photo.options[1:])),
        (views, "rotation", _set(views.controls["data.rotation"], range(1, 91))),
        (example, "temperature", _set(example.temperature, np.geomspace(0.02, 9, UPDATES))),
        (browser, "query", _set(browser.query, range(1, browser.query.max + 1))),
        (attention, "image", _set(attention.image, range(1, attention.image.max + 1))),
        (attention, "query patch", _set(attention.query, range(1, attention.query.max + 1))),
        (discard, "tokens kept", _set(discard.keep, range(99))),
        (discard, "query", _set(discard.query, range(1, discard.query.max + 1))),
        (drawing, "stroke", (lambda k=k: drawing.stroke([(40, 10 * k), (200, 12 * k)]) for k in range(1, 99))),
    ]
    if run is not None:
        comparer = RunComparer([run])
        moves.append((comparer, "K", _set(comparer.k, itertools.cycle((5, 10, 1)))))
    return [_time(type(panel).__name__, control, list(_first(actions))) for panel, control, actions in moves]


def panel_table(rows: Sequence[Latency]) -> str:
    """The latencies as a Markdown table, in milliseconds."""
    lines = ["| panel | control | median (ms) | 95th percentile (ms) | updates |", "|---|---|---|---|---|"]
    lines += [f"| `{row.panel}` | {row.control} | {1000 * row.median:.0f} | {1000 * row.p95:.0f} | {row.updates} |"
              for row in rows]
    return "\n".join(lines)


class StepCost(NamedTuple):
    """What one training step of `batch` pairs took: `chunk` pairs at a time (0: all), seconds, and MiB.

    `memory` is what the step needed on top of the model and the data: on a CPU the rise of the
    process's size (on macOS of its largest size so far), on a GPU of what torch held.
    """

    batch: int
    chunk: int
    memory: float
    seconds: float


def step_memory(config: Config, batch: int, chunk: int) -> list[StepCost]:
    """One step with the whole batch, and one chunk by chunk, each in a process of its own.

    Raises InputError if the training split has fewer sketches than that. Source: ours.
    """
    # What one step freed is not given back to the system: each measurement needs a new process.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return [pool.apply(_one_step, (config.updated({"optim.batch_size": batch}), part)) for part in (0, chunk)]


def memory_table(rows: Sequence[StepCost]) -> str:
    """The costs as a Markdown table."""
    lines = ["| batch (pairs) | chunk (pairs) | memory of the step (MiB) | seconds |", "|---|---|---|---|"]
    lines += [f"| {row.batch} | {row.chunk or 'whole batch'} | {row.memory:.0f} | {row.seconds:.1f} |" for row in rows]
    return "\n".join(lines)


def _one_step(config: Config, chunk: int) -> StepCost:
    accelerator = make_accelerator(config, Path())
    data = load_split(PairFolder(config.data.root).split("train"), config.data, config.model.image_size)
    batch = config.optim.batch_size
    if batch > len(data.sketches):
        raise InputError(f"{config.data.root} has {len(data.sketches)} sketches to train on, fewer than a batch of "
                         f"{batch}")
    model = accelerator.prepare(ARNet.from_config(config)).train()
    plan = Epoch(data, config.data, seed=0, epoch=1)
    _forget_peak(accelerator)
    before, started = _held(accelerator), time.perf_counter()
    backward(accelerator, model, plan, plan.rows(0, batch), config.loss, chunk)
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize(accelerator.device)
    return StepCost(batch, chunk, (_held(accelerator) - before) / 2**20, time.perf_counter() - started)


def _held(accelerator: Accelerator) -> int:
    """The most bytes that were held since `_forget_peak`, or, where the system cannot forget it, ever."""
    if accelerator.device.type == "cuda":
        return torch.cuda.max_memory_allocated(accelerator.device)
    if STATUS.is_file():
        peak = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(peak.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak(accelerator: Accelerator) -> None:
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(accelerator.device)
    elif STATUS.is_file():
        STATUS.with_name("clear_refs").write_text("5")  # Linux: the largest size so far is the present one


def _set(control: object, values: Iterable) -> Iterable[Callable[[], None]]:
    return (lambda value=value: setattr(control, "value", value) for value in values)


def _first(actions: Iterable[Callable[[], None]]) -> Iterable[Callable[[], None]]:
    return (action for _, action in zip(range(UPDATES), actions, strict=False))


def _time(panel: str, control: str, actions: Sequence[Callable[[], None]]) -> Latency:
    seconds = []
    for action in actions:
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return Latency(panel, control, float(np.median(seconds)), float(np.percentile(seconds, 95)), len(seconds))


def _folder(data: LoadedSplit) -> PairFolder:
    return PairFolder(Path(data.split.photos[0].path).parent.parent)
