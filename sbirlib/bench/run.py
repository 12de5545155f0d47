"""How fast the kit is on this machine beside the released recipe, part by part, in one run."""

import gc
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.benchmark import Measurement, Timer

from sbirlib.bench.recipe import ReleasedRecipe
from sbirlib.config.config import Config
from sbirlib.data import PairFolder, load_data
from sbirlib.errors import first_line
from sbirlib.runs.atomic import write_text
from sbirlib.training.setup import make_accelerator

RECIPE = "released recipe"
HEAD = "| part | unit | kit | IQR | beside it | IQR | against | ratio |\n|---|---|---|---|---|---|---|---|"
# What says that memory ran out; systems also kill processes for that.
SHORT = re.compile("MemoryError|out of memory|allocate memory|enough memory|_ALLOC_|Killed|BrokenProcess")
STATUS = Path("/proc/self/status")
# What the method of each part is called with, row by row.
PARTS: dict[str, list[tuple]] = {
    "input": [("mini",), ("basic",)],
    "step": [("mini",), ("mini_full",), ("basic",)],
    "evaluation": [("mini",), ("basic",)],
    "memory": [("mini_full", 256, 0), ("mini_full", 256, 8), ("basic", 16, 0), ("basic", 16, 8)],
    "import": [("-c", "import sbirlib"), ("-m", "sbirlib", "--help")],
}


class BenchRow(NamedTuple):
    """Medians and interquartile ranges of the kit, and of what is beside it."""

    part: str
    unit: str
    against: str
    kit: float
    kit_iqr: float
    beside: float
    beside_iqr: float

    @property
    def ratio(self) -> float | None:
        """How many times better the kit is, by the medians; None without two numbers to divide."""
        up, down = (self.kit, self.beside) if self.unit.endswith("/s") else (self.beside, self.kit)
        return up / down if up and down else None

    def __str__(self) -> str:
        """A line of the table that `HEAD` begins; numbers have three digits."""
        *numbers, ratio = ["" if n is None else f"{float(f'{n:.3g}'):.10g}" for n in (*self[3:], self.ratio)]
        return f"| {' | '.join([self.part, self.unit, *numbers, self.against, ratio])} |"


@dataclass(frozen=True)
class Bench:
    """What to measure: the `parts`, on which data and device, and how often."""

    parts: Sequence[str]
    root: Path = Path("data/MiniClothes")
    json: Path | None = None
    device: str = "auto"
    repeats: int = 3

    def __call__(self) -> bool:
        """Measures, prints each row as soon as it is there, and updates the JSON; False if memory ran out.

        Names on stderr what there was not enough memory for. Raises InputError for data that cannot be used,
        before anything is measured.
        """
        if {*self.parts} - {"import"}:
            load_data(PairFolder(self.root), self.config("mini"))
        written = {"machine": machine(self.config("mini")), "rows": [], "not_measured": []}
        print(*(f"{k}: {v}" for k, v in written["machine"].items()), "", HEAD, sep="\n", flush=True)
        for part, values in [(name, values) for name in self.parts for values in PARTS[name]]:
            try:
                row = getattr(self, f"_{part}", self._trained)(part, *values)
                print(row, flush=True)
                written["rows"].append(row._asdict() | {"ratio": row.ratio})
            except (MemoryError, RuntimeError, OSError) as error:
                if not SHORT.search(repr(error)):
                    raise
                title = " ".join(map(str, (part, *values)))
                print(f"not measured: {title}: memory ran out ({first_line(error)})", file=sys.stderr)
                written["not_measured"].append(title)
            if self.json is not None:
                write_text(self.json, json.dumps(written, indent=2) + "\n")
            gc.collect()  # models and loaders in cycles, whose memory and workers the next row needs
            torch.cuda.empty_cache()
        return not written["not_measured"]

    def config(self, preset: str) -> Config:
        """The preset on this data, from scratch: weights do not change speed."""
        fixed = {"data.root": str(self.root), "model.pretrained": False}
        return Config.preset(preset).updated(fixed | {"run.device": self.device, "run.tracker": "none"})

    def _timed(self, part: str, unit: str, amount: float, *ways: Callable, against: str = RECIPE) -> BenchRow:
        """Times the kit's way and another's in turn, of `amount` things a call, or of units in a second."""
        timers = [Timer("way()", globals={"way": w}, num_threads=torch.get_num_threads()) for w in ways]
        rounds = [[timer.blocked_autorange() for timer in timers] for _ in range(self.repeats)]
        numbers = []
        for whole in (Measurement.merge(times)[0] for times in zip(*rounds, strict=True)):
            value = amount / whole.median if unit.endswith("/s") else amount * whole.median
            numbers += [value, value * whole.iqr / whole.median]
        return BenchRow(part, unit, against, *numbers)

    def _trained(self, part: str, preset: str) -> BenchRow:
        """Views a second of an epoch (input), or a step (on the kit's views); images a second of scoring."""
        recipe = ReleasedRecipe(self.config(preset))
        trainer, plan = recipe.trainer, recipe.trainer.plan(1)
        size, held = trainer.batch_size, trainer.held_out
        views, images = trainer.method.passes * size, len(held.sketches) + len(held.photos)

        def make_views() -> None:
            for step in range(trainer.steps):
                plan.batch(plan.rows(step, size), recipe.device)

        ways = {
            "input": ("views/s", views * trainer.steps, make_views, recipe.make_views),
            "step": ("views/s", views, partial(trainer.step, plan, 0), partial(recipe.step, plan, 0)),
            "evaluation": ("images/s", images, partial(trainer.validate, 0), recipe.evaluate),
        }
        return self._timed(f"{part}, {preset}, batch {size}", *ways[part])

    def _memory(self, part: str, preset: str, pairs: int, chunk: int) -> BenchRow:
        """Peak MiB of one training step, on top of model and data."""
        whole, peaks = self.config(preset).updated({"optim.batch_size": pairs}), []
        for config, released in ((whole.updated({"optim.chunk": chunk}), False), (whole, True)):
            # What one step freed is not given back to the system: each needs a new process.
            with ProcessPoolExecutor(1, max_tasks_per_child=1) as pool:
                peaks += [pool.submit(step_memory, config, released).result(), 0.0]
        return BenchRow(f"{part}, {preset}, batch {pairs}, chunk {chunk}", "MiB", RECIPE, *peaks)

    def _import(self, part: str, *words: str) -> BenchRow:
        """Seconds until a new Python has imported the kit, or shown the help of the command line."""
        plain = "import torch, timm"
        ways = [partial(subprocess.check_output, [sys.executable, *w]) for w in (words, ("-c", plain))]
        return self._timed(f"{part}, {words[-1]}", "s", 1, *ways, against=plain)


def machine(config: Config) -> dict[str, Any]:
    """Processor, cores, threads, torch, and the number format in which the kit trains here."""
    cpu, accelerator = Path("/proc/cpuinfo"), make_accelerator(config, Path())
    named = re.search(r"model name\s*: (.+)", cpu.read_text()) if cpu.is_file() else None
    gpu = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else None
    return {
        "processor": gpu or (named[1] if named else platform.machine()), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "torch": torch.__version__,
        "precision": accelerator.mixed_precision.replace("no", "fp32"),
    }  # fmt: skip


def step_memory(config: Config, released: bool) -> float:
    """Peak MiB of the first step: on a GPU of what torch held there, on a CPU of the whole process."""
    recipe = ReleasedRecipe(config)
    plan, cuda = recipe.trainer.plan(1), recipe.device.type == "cuda"

    def peak() -> float:
        if cuda:
            return torch.cuda.max_memory_allocated() / 2**20
        return int(STATUS.read_text().partition("VmHWM:")[2].split()[0]) / 2**10

    if not cuda:
        STATUS.with_name("clear_refs").write_text("5")  # the largest size so far is the present one
    before = peak()
    (recipe if released else recipe.trainer).step(plan, 0)
    return peak() - before
