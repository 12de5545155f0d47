"""Measure one thing done in two ways, in turn, and lay it beside what the machine could do at best."""

from __future__ import annotations

import errno
import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal, NamedTuple, TypeAlias

import torch

from sbirlib.errors import first_line

Part = Literal[
    "input", "step", "attention", "evaluation", "search", "accuracy", "import", "memory", "costs", "panels"
]
RELEASED = "released recipe"
LONG = 10.0  # seconds: what takes longer is measured twice, however many repeats are asked for
TABLE_HEAD = (
    "| part | unit | kit | beside it | against | ratio | share of ceiling |\n|---|---|---|---|---|---|---|"
)
OUT_OF_MEMORY = torch.cuda.OutOfMemoryError  # of any accelerator; torch.OutOfMemoryError since torch 2.5
# What torch and the systems below it say when memory runs out, where they have no exception of its own for it.
_SHORTAGES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "ALLOC_FAILED",
    "killed by signal: Killed",
)


class Spread(NamedTuple):
    """Median, smallest and largest of several measurements; infinite for a time that never came."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if not math.isfinite(self.median):
            return "not reached"
        median, low, high = map(_number, self)
        return median if low == high else f"{median} ({low}-{high})"

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of one or more values."""
        return Spread(statistics.median(values), min(values), max(values))


class Row(NamedTuple):
    """One line of the benchmark: the kit, and `beside` it, if anything, what `against` names.

    `better` tells whether more of `unit` is better, or less. `share_of_ceiling` in [0, 1] is what the
    kit reached of the measured limit of this machine; None where there is none.
    """

    part: str
    unit: str
    better: Literal["higher", "lower"]
    kit: Spread
    beside: Spread | None = None
    share_of_ceiling: float | None = None
    against: str = RELEASED

    @property
    def ratio(self) -> float | None:
        """How many times better the kit is, by the medians; None without two numbers above 0 to divide."""
        values = (self.kit.median, self.beside.median) if self.beside else ()
        if not values or not all(0 < value < math.inf for value in values):
            return None
        return values[0] / values[1] if self.better == "higher" else values[1] / values[0]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the medians, the ranges [low, high], and None for what there is not.

        `released` is the median of what `against` names, which is the released recipe in most rows.
        """
        return {
            "part": self.part,
            "unit": self.unit,
            "kit": _median(self.kit),
            "released": _median(self.beside),
            "ratio": self.ratio,
            "share_of_ceiling": self.share_of_ceiling,
            "against": self.against if self.beside else None,
            "kit_range": _range(self.kit),
            "released_range": _range(self.beside),
        }

    def as_line(self) -> str:
        """The row of a Markdown table with `TABLE_HEAD`: median (low-high), the share in percent."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        share = "" if self.share_of_ceiling is None else f"{100 * self.share_of_ceiling:.0f} %"
        beside, against = ("", "") if self.beside is None else (self.beside, self.against)
        return f"| {self.part} | {self.unit} | {self.kit} | {beside} | {against} | {ratio} | {share} |"


class Failed(NamedTuple):
    """A measurement that could not be made: its `part`, with the batch if it has one, and why."""

    part: str
    why: str


Result: TypeAlias = Row | Failed


class Ceilings(NamedTuple):
    """The measured limits of a machine: matrix products in FLOP/s, a copy in bytes read and written a second."""

    fp32: float
    bf16: float
    memory: float


def attempt(part: str, rows: Callable[[], Iterator[Result]]) -> Iterator[Result]:
    """The rows of one measurement; at the end, if memory did not suffice for all of them, `Failed`.

    Frees what it held on a GPU. Every other error is raised.
    """
    why = ""
    try:
        yield from rows()
    except (MemoryError, RuntimeError, OSError) as error:
        why = shortage(error)
        if not why:
            raise
    # After the handler: while it runs, the error holds on to all that was being measured.
    free()
    if why:
        yield Failed(part, why)


def shortage(error: Exception) -> str:
    """How `error` says that memory ran out, in words; empty if it says something else."""
    if isinstance(error, BrokenProcessPool):
        return "the process that measured it was killed, as systems do when memory runs out"
    if isinstance(error, OSError):
        short = error.errno == errno.ENOMEM
    else:
        short = isinstance(error, MemoryError) or any(words in str(error) for words in _SHORTAGES)
    return (
        f"memory does not suffice: {first_line(error)}" if short or isinstance(error, OUT_OF_MEMORY) else ""
    )


def free() -> None:
    """Gives back what a measurement held on a GPU: the next one, in a process of its own perhaps, needs it."""
    # A model that accelerate prepared refers to itself, so that it would stay until some later collection.
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seconds(action: Callable[[], object]) -> float:
    """How long `action` takes, on a GPU until it is done."""
    _wait()
    started = time.perf_counter()
    action()
    _wait()
    return time.perf_counter() - started


def in_turn(kit: Callable[[], float], other: Callable[[], float], repeats: int) -> tuple[Spread, Spread]:
    """Both measurements `repeats` times, one after the other, so that what slows the machine slows both.

    Each callable measures once and returns its number; both are called once more before, to warm up.
    """
    kit(), other()
    return in_turn_warm(kit, other, repeats)


def in_turn_warm(kit: Callable[[], float], other: Callable[[], float], repeats: int) -> tuple[Spread, Spread]:
    """As `in_turn`, for what has been done before: nothing is called to warm up."""
    ours, theirs = _repeated((kit, other), repeats)
    return ours, theirs


def alone(kit: Callable[[], float], repeats: int) -> Spread:
    """One measurement `repeats` times, after one to warm up."""
    kit()
    return _repeated((kit,), repeats)[0]


def ceilings(device: torch.device | str = "cpu", *, side: int | None = None, repeats: int = 5) -> Ceilings:
    """The best of several products of two (side, side) matrices in fp32 and bf16, and of a copy of 512 MiB.

    `side` is 2048 on a CPU and 8192 elsewhere: a GPU needs larger ones to show what it can do.
    """
    side = side or (2048 if torch.device(device).type == "cpu" else 8192)
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        rates.append(2 * side**3 / _best(lambda a=first, b=second: a @ b, repeats))
    source = torch.zeros(2**27, device=device)
    target = torch.empty_like(source)
    return Ceilings(*rates, 2 * source.nbytes / _best(lambda: target.copy_(source), repeats))


def _repeated(ways: Sequence[Callable[[], float]], repeats: int) -> list[Spread]:
    rounds, longest = [], 0.0
    while len(rounds) < (min(repeats, 2) if longest > LONG else repeats):
        values = []
        for way in ways:
            started = time.perf_counter()
            values.append(way())
            longest = max(longest, time.perf_counter() - started)
        rounds.append(values)
    return [Spread.of(values) for values in zip(*rounds, strict=True)]


def _best(action: Callable[[], object], repeats: int) -> float:
    action()
    return min(seconds(action) for _ in range(repeats))


def _wait() -> None:
    if hasattr(torch, "accelerator"):
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
    elif torch.cuda.is_available():  # before torch 2.6
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def _number(value: float) -> str:
    """Three digits, and no exponent for what is larger."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _median(spread: Spread | None) -> float | None:
    return None if spread is None or not math.isfinite(spread.median) else spread.median


def _range(spread: Spread | None) -> list[float] | None:
    return None if _median(spread) is None else [spread.low, spread.high]
