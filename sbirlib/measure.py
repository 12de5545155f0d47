"""Measure one thing done in two ways, in turn, and lay it beside what the machine could do at best."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch

RELEASED = "released recipe"
TABLE_HEAD = ("| part | unit | kit | beside it | against | ratio | share of ceiling |\n"
              "|---|---|---|---|---|---|---|")


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
    """One line of the benchmark: the kit, and beside it (if anything) what `against` names.

    `better` tells whether more of `unit` is better, or less. `share_of_ceiling` in [0, 1] is what the
    kit reached of the measured limit of this machine; None where there is none.
    """

    part: str
    unit: str
    better: Literal["higher", "lower"]
    kit: Spread
    released: Spread | None = None
    share_of_ceiling: float | None = None
    against: str = RELEASED

    @property
    def ratio(self) -> float | None:
        """How many times better the kit is, by the medians; None without a second way, or if one never got there."""
        if self.released is None or not math.isfinite(self.kit.median + self.released.median):
            return None
        higher, lower = self.kit.median, self.released.median
        return higher / lower if self.better == "higher" else lower / higher

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the medians, the ranges [low, high], and None for what there is not."""
        return {"part": self.part, "unit": self.unit, "kit": _median(self.kit), "released": _median(self.released),
                "ratio": self.ratio, "share_of_ceiling": self.share_of_ceiling, "against": self.against,
                "kit_range": _range(self.kit), "released_range": _range(self.released)}

    def as_line(self) -> str:
        """The row of a Markdown table with `TABLE_HEAD`: median (low-high), the share in percent."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        share = "" if self.share_of_ceiling is None else f"{100 * self.share_of_ceiling:.0f} %"
        beside, against = ("", "") if self.released is None else (self.released, self.against)
        return f"| {self.part} | {self.unit} | {self.kit} | {beside} | {against} | {ratio} | {share} |"


class Ceilings(NamedTuple):
    """The measured limits of a machine: matrix products in FLOP/s, a copy in bytes read and written a second."""

    fp32: float
    bf16: float
    memory: float


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
    pairs = [(kit(), other()) for _ in range(repeats)]
    first, second = zip(*pairs, strict=True)
    return Spread.of(first), Spread.of(second)


def alone(kit: Callable[[], float], repeats: int) -> Spread:
    """One measurement `repeats` times, after one to warm up."""
    kit()
    return Spread.of([kit() for _ in range(repeats)])


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


def _best(action: Callable[[], object], repeats: int) -> float:
    action()
    return min(seconds(action) for _ in range(repeats))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _number(value: float) -> str:
    """Three digits, and no exponent for what is larger."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _median(spread: Spread | None) -> float | None:
    return None if spread is None or not math.isfinite(spread.median) else spread.median


def _range(spread: Spread | None) -> list[float] | None:
    return None if _median(spread) is None else [spread.low, spread.high]
