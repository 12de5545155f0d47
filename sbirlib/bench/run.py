"""Measure the kit beside the released recipe on the machine at hand, part by part, in one run."""

from __future__ import annotations

import functools
import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from accelerate import Accelerator

from sbirlib.bench.costs import check_memory, cost_rows, import_rows, memory_rows
from sbirlib.bench.measure import (
    TABLE_HEAD,
    Ceilings,
    Failed,
    Part,
    Result,
    Row,
    attempt,
    ceilings,
    cores,
    free,
)
from sbirlib.bench.panels import check_panels, panel_rows
from sbirlib.bench.train import Setup, accuracy_rows, attention_rows, evaluation_rows, input_rows, step_rows
from sbirlib.config.config import Config, DataConfig
from sbirlib.data.images import printable
from sbirlib.data.loading import load_split
from sbirlib.data.pairs import PairFolder
from sbirlib.errors import InputError
from sbirlib.runs.model import load_run
from sbirlib.training.setup import make_accelerator

CPU_FACTS = Path("/proc/cpuinfo")
FEWEST_TRAIN, FEWEST_TEST = 8, 2  # photos that all parts can be measured with


def _search_rows(setup: Setup) -> Iterator[Result]:
    from sbirlib.bench_search import search_rows

    # A gallery is searched on the CPU, whatever the model runs on.
    yield from search_rows(setup.limits("cpu"), repeats=setup.repeats)


def _panel_rows(run: Path, setup: Setup) -> Iterator[Row]:
    model = load_run(run)
    data = load_split(
        setup.pairs.split("test"), DataConfig(root=str(setup.pairs.root), fit=model.fit), model.image_size
    )
    yield from panel_rows(model, data, run)


PARTS: dict[Part, Callable[[Setup], Iterator[Result]]] = {
    "input": input_rows,
    "step": step_rows,
    "attention": attention_rows,
    "evaluation": evaluation_rows,
    "search": _search_rows,
    "accuracy": accuracy_rows,
    "import": import_rows,
    "memory": memory_rows,
    "costs": cost_rows,
}
PANELS: Part = "panels"  # needs a trained model besides
ALL_PARTS: tuple[Part, ...] = get_args(Part)
WITHOUT_DATA = frozenset({"attention", "search", "import"})
SIZED = frozenset({"memory", "costs"})  # need to know how large a process is


class Measured(NamedTuple):
    """What a benchmark found: its rows, and the measurements that memory did not suffice for."""

    rows: list[Row]
    failed: list[Failed]


@dataclass(frozen=True)
class Bench:
    """What to measure: `parts` (none: all that can be), the data, a run for the panels, and as in `Setup`."""

    parts: tuple[Part, ...] = ()
    root: Path = Path("data/MiniClothes")
    run: Path | None = None
    json: Path | None = None
    device: str = "auto"
    repeats: int = 5
    batches: tuple[int, ...] = (16,)

    def __call__(self) -> Measured:
        """Measures; prints each row, and writes the JSON anew with it, as soon as it is there.

        What memory does not suffice for is said on stderr and left out, and the rest goes on. Raises
        InputError before anything is measured.
        """
        self._check()
        accelerator = make_accelerator(
            Config().updated({"run.device": self.device, "run.tracker": "none"}), Path()
        )
        parts = self._chosen(accelerator.device)
        pairs = None
        if not WITHOUT_DATA.issuperset(parts):
            pairs = PairFolder(self.root)
            check_data(pairs)
        limits, kind = functools.cache(ceilings), accelerator.device.type
        limited = ("cpu" if "search" in parts else None, kind if "step" in parts else None)
        facts = machine(accelerator, limits(kind) if kind in limited else None)
        free()
        print("\n".join(f"{name}: {value}" for name, value in facts.items()), end="\n\n")
        setup, measured = Setup(pairs, limits, self.device, self.repeats, self.batches), Measured([], [])
        print(TABLE_HEAD, flush=True)
        for part in parts:
            rows = functools.partial(_panel_rows, self.run) if part == PANELS else PARTS[part]
            for result in attempt(part, functools.partial(rows, setup)):
                self._keep(facts, measured, result)
        return measured

    def _keep(self, facts: dict[str, Any], measured: Measured, result: Result) -> None:
        if isinstance(result, Failed):
            print(printable(f"not measured: {result.part}: {result.why}"), file=sys.stderr, flush=True)
            measured.failed.append(result)
        else:
            print(printable(result.as_line()), flush=True)
            measured.rows.append(result)
        if self.json is not None:
            # In one go: whoever stops the benchmark finds the whole of what there was.
            beside = self.json.with_name(f"{self.json.name}.part")
            beside.write_text(as_json(facts, measured), encoding="utf-8")
            beside.replace(self.json)

    def _check(self) -> None:
        unknown = [part for part in self.parts if part not in ALL_PARTS]
        if unknown:
            raise InputError(f"unknown part {unknown[0]!r}; known: {', '.join(ALL_PARTS)}")
        if PANELS in self.parts and self.run is None:
            raise InputError("the part panels shows a trained model: name one with --run RUN")
        if self.repeats < 1 or not self.batches or min(self.batches) < 2:
            raise InputError(
                f"--repeats {self.repeats} and --batches {' '.join(map(str, self.batches))}: measure at "
                "least once, with at least 2 pairs a step"
            )
        if self.json is not None and not self.json.parent.is_dir():
            raise InputError(f"{self.json}: the folder {self.json.parent} does not exist; make it first")
        if self.json is not None and self.json.is_dir():
            raise InputError(f"{self.json} is a folder: name a file to write with --json FILE")
        if self.run is not None:
            model = load_run(self.run)
            if not self.parts or PANELS in self.parts:
                check_panels(model, self.run)

    def _chosen(self, device: torch.device) -> Sequence[Part]:
        """The parts asked for, or all that can be measured. Raises InputError for one that cannot."""
        if self.parts:
            if SIZED.intersection(self.parts):
                check_memory(device)
            return self.parts
        left_out = set() if self.run is not None else {PANELS}
        try:
            check_memory(device)
        except InputError as error:
            print(f"left out: {error}", file=sys.stderr)
            left_out |= SIZED
        return [part for part in ALL_PARTS if part not in left_out]


def check_data(pairs: PairFolder) -> None:
    """Decodes all pictures; raises InputError for those that cannot be used, and for a split that is too small."""
    train, test = pairs.split("train"), pairs.split("test")
    faults = [fault for split in pairs.report().splits for fault in split.left_out]
    if faults:
        raise InputError(
            f"{pairs.root}: {len(faults)} files cannot be used, such as {faults[0].path} "
            f"({faults[0].kind}); `python -m sbirlib data check` lists them: mend or remove them"
        )
    if min(len(test.sketches), len(test.photos)) < FEWEST_TEST:
        raise InputError(
            f"{pairs.root}: the test split has {len(test.sketches)} sketches and {len(test.photos)} "
            f"photos; to rank them, at least {FEWEST_TEST} of each are needed"
        )
    drawn = len({sketch.photo_id for sketch in train.sketches})
    if drawn < FEWEST_TRAIN:
        raise InputError(
            f"{pairs.root}: the train split has {drawn} photos with a sketch; to train on half of them "
            f"and hold some out, at least {FEWEST_TRAIN} are needed"
        )


def machine(accelerator: Accelerator, limits: Ceilings | None) -> dict[str, Any]:
    """What the figures belong to: processor, threads, versions, the precision that `auto` means here, and ceilings.

    Ceilings are those of the device that trains, None if no part needs them: matrix products in GFLOP/s, a
    copy in GB/s. `cores` are those that this process may use.
    """
    gpu = torch.cuda.get_device_name(accelerator.device) if accelerator.device.type == "cuda" else None
    rates = [None, None, None] if limits is None else [round(value / 1e9, 1) for value in limits]
    return {
        "cpu": _cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "device": accelerator.device.type,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "precision": "bf16" if accelerator.mixed_precision == "bf16" else "fp32",
        **dict(zip(("fp32_gflops", "bf16_gflops", "memory_gbs"), rates, strict=True)),
    }


def as_json(facts: dict[str, Any], measured: Measured) -> str:
    """Machine, rows and what failed as JSON; what is not known or was not reached is null."""
    return (
        json.dumps(
            {
                "machine": facts,
                "rows": [row.as_dict() for row in measured.rows],
                "failed": [failed._asdict() for failed in measured.failed],
            },
            indent=2,
            allow_nan=False,
        )
        + "\n"
    )


def _cpu_name() -> str:
    lines = CPU_FACTS.read_text(encoding="utf-8").splitlines() if CPU_FACTS.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
