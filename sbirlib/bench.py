"""Measure the kit beside the released recipe on the machine at hand, part by part, in one run."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from sbirlib.bench_costs import cost_rows, import_rows, memory_rows
from sbirlib.bench_panels import panel_rows
from sbirlib.bench_train import Setup, accuracy_rows, attention_rows, evaluation_rows, input_rows, step_rows
from sbirlib.checkpoints import load_run
from sbirlib.config import Config, DataConfig
from sbirlib.fields import InputError
from sbirlib.images import printable
from sbirlib.measure import TABLE_HEAD, Ceilings, Row, ceilings
from sbirlib.pairs import PairFolder
from sbirlib.train_setup import make_accelerator
from sbirlib.views import load_split

CPU_FACTS = Path("/proc/cpuinfo")


def _search_rows(setup: Setup) -> Iterator[Row]:
    from sbirlib.bench_search import search_rows

    # A gallery is searched on the CPU, whatever the model runs on.
    yield from search_rows(ceilings("cpu"))


def _panel_rows(setup: Setup, run: Path) -> Iterator[Row]:
    model = load_run(run)
    data = load_split(setup.pairs.split("test"), DataConfig(root=str(setup.pairs.root), fit=model.fit),
                      model.image_size)
    yield from panel_rows(model, data, run)


PARTS: dict[str, Callable[[Setup], Iterator[Row]]] = {
    "input": input_rows, "step": step_rows, "attention": attention_rows, "evaluation": evaluation_rows,
    "search": _search_rows, "accuracy": accuracy_rows, "import": import_rows, "memory": memory_rows,
    "costs": cost_rows}
PANELS = "panels"  # needs a trained model besides
ALL_PARTS = (*PARTS, PANELS)


@dataclass(frozen=True)
class Bench:
    """What to measure: `parts` (none: all that can be), the data, a run for the panels, and as in `Setup`."""

    parts: tuple[str, ...] = ()
    root: Path = Path("data/MiniClothes")
    run: Path | None = None
    json: Path | None = None
    device: str = "auto"
    repeats: int = 5
    batches: tuple[int, ...] = (16,)

    def __call__(self) -> list[Row]:
        """Measures, prints each row at once, and at the end writes the JSON; raises InputError before any of it."""
        parts, pairs = self._checked(), PairFolder(self.root)
        for split in ("train", "test"):
            pairs.split(split)
        accelerator = make_accelerator(Config().updated({"run.device": self.device, "run.tracker": "none"}), Path())
        limits = ceilings(accelerator.device)
        facts = machine(accelerator, limits)
        print("\n".join(f"{name}: {value}" for name, value in facts.items()), end="\n\n")
        setup, rows = Setup(pairs, limits, self.device, self.repeats, self.batches), []
        print(TABLE_HEAD, flush=True)
        for part in parts:
            for row in _panel_rows(setup, self.run) if part == PANELS else PARTS[part](setup):
                print(printable(row.as_line()), flush=True)
                rows.append(row)
        if self.json is not None:
            self.json.write_text(as_json(facts, rows), encoding="utf-8")
        return rows

    def _checked(self) -> Sequence[str]:
        unknown = [part for part in self.parts if part not in ALL_PARTS]
        if unknown:
            raise InputError(f"unknown part {unknown[0]!r}; known: {', '.join(ALL_PARTS)}")
        if PANELS in self.parts and self.run is None:
            raise InputError("the part panels shows a trained model: name one with --run RUN")
        if self.repeats < 1 or not self.batches or min(self.batches) < 2:
            raise InputError(f"--repeats {self.repeats} and --batches {' '.join(map(str, self.batches))}: measure at "
                             "least once, with at least 2 pairs a step")
        if self.json is not None and not self.json.parent.is_dir():
            raise InputError(f"{self.json}: the folder {self.json.parent} does not exist; make it first")
        if self.run is not None:
            load_run(self.run)
        return self.parts or [part for part in ALL_PARTS if part != PANELS or self.run is not None]


def machine(accelerator: Accelerator, limits: Ceilings) -> dict[str, Any]:
    """What the figures belong to: processor, threads, versions, the precision that `auto` means here, and ceilings.

    Ceilings are those of the device that trains: matrix products in GFLOP/s, a copy in GB/s.
    """
    gpu = torch.cuda.get_device_name(accelerator.device) if accelerator.device.type == "cuda" else None
    return {"cpu": _cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu,
            "device": accelerator.device.type, "torch": torch.__version__, "python": platform.python_version(),
            "precision": "bf16" if accelerator.mixed_precision == "bf16" else "fp32",
            "fp32_gflops": round(limits.fp32 / 1e9, 1), "bf16_gflops": round(limits.bf16 / 1e9, 1),
            "memory_gbs": round(limits.memory / 1e9, 1)}


def as_json(facts: dict[str, Any], rows: Sequence[Row]) -> str:
    """Machine and rows as JSON; what is not known or was not reached is null."""
    return json.dumps({"machine": facts, "rows": [row.as_dict() for row in rows]}, indent=2, allow_nan=False) + "\n"


def _cpu_name() -> str:
    lines = CPU_FACTS.read_text(encoding="utf-8").splitlines() if CPU_FACTS.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
