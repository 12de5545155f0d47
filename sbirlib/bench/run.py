"""How fast the kit is on this machine beside the released recipe, part by part, in one run.

The recipe of the released code is rewritten from its description: fp32, and four passes through the whole
encoder a step. Model, loss, hyper-parameters and views are the kit's own.
"""

import gc
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.benchmark import Measurement, Timer

from sbirlib.config.config import Config
from sbirlib.data import Batch, Epoch, PairFolder, load_data
from sbirlib.methods.arnet import ARNet
from sbirlib.runs.atomic import write_text
from sbirlib.training.files import RunFiles
from sbirlib.training.setup import lr_factor, make_accelerator, make_optimizer
from sbirlib.training.trainer import Trainer

RECIPE = "released recipe"
HEAD = "| part | unit | kit | IQR | beside it | IQR | against | ratio |\n|---|---|---|---|---|---|---|---|"
# What the method of each part is called with, row by row.
PARTS: dict[str, list[tuple]] = {
    "step": [("mini",), ("mini_full",), ("basic",)],
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
    def ratio(self) -> float:
        """How many times better the kit is, by the medians."""
        up, down = (self.kit, self.beside) if self.unit.endswith("/s") else (self.beside, self.kit)
        return up / down

    def __str__(self) -> str:
        """A line of the table that `HEAD` begins; numbers have three digits."""
        *numbers, ratio = [f"{float(f'{n:.3g}'):.10g}" for n in (*self[3:], self.ratio)]
        return f"| {' | '.join([self.part, self.unit, *numbers, self.against, ratio])} |"


@dataclass(frozen=True)
class Bench:
    """What to measure: the `parts`, on which data and device, and how often."""

    parts: Sequence[str]
    root: Path = Path("data/MiniClothes")
    json: Path | None = None
    device: str = "auto"
    repeats: int = 3

    def __call__(self) -> None:
        """Measures, prints each row as soon as it is there, and updates the JSON.

        Raises InputError for data that cannot be used, before anything is measured.
        """
        if {*self.parts} - {"import"}:
            load_data(PairFolder(self.root), self.config("mini"))
        written = {"machine": machine(self.config("mini")), "rows": []}
        print(*(f"{k}: {v}" for k, v in written["machine"].items()), "", HEAD, sep="\n", flush=True)
        for part, values in [(name, values) for name in self.parts for values in PARTS[name]]:
            row = getattr(self, f"_{part}")(part, *values)
            print(row, flush=True)
            written["rows"].append(row._asdict() | {"ratio": row.ratio})
            if self.json is not None:
                write_text(self.json, json.dumps(written, indent=2) + "\n")
            gc.collect()  # models in cycles, whose memory the next row needs
            torch.cuda.empty_cache()

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

    def _step(self, part: str, preset: str) -> BenchRow:
        """Views a second of a step, on the same views."""
        recipe = ReleasedRecipe(self.config(preset))
        trainer, plan = recipe.trainer, recipe.trainer.plan(1)
        ways = partial(trainer.step, plan, 0), partial(recipe.step, plan, 0)
        size, views = trainer.batch_size, trainer.method.passes * trainer.batch_size
        return self._timed(f"{part}, {preset}, batch {size}", "views/s", views, *ways)

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


def four_passes(model: ARNet, batch: Batch) -> dict[str, Tensor]:
    """What `ARNet.encode` gives, with a pass through the whole encoder for each of the four views."""
    rows = {}
    for name, encoder in (("sketch", model.sketch_encoder), ("photo", model.photo_encoder)):
        views = getattr(batch, name), getattr(batch, f"{name}_second")
        first, second = (encoder.recycle(encoder.backbone(view)) for view in views)
        rows |= {name: first.embedding, f"{name}_cls": first.cls, f"{name}_second_cls": second.cls}
        rows[f"recyc_{name}"] = encoder.recycling_loss(first)
    return rows


class ReleasedRecipe:
    """The kit's `trainer`, and beside it the released recipe: same seed, files and device."""

    def __init__(self, config: Config) -> None:
        self.trainer = trainer = Trainer(PairFolder(config.data.root), RunFiles(Path(), config))
        self.device = trainer.accelerator.device
        torch.manual_seed(config.run.seed)
        self.model = ARNet.from_config(config).to(self.device)
        self.optimizer = make_optimizer(self.model, config.optim)
        self.schedule = LambdaLR(self.optimizer, lr_factor(config.optim, trainer.steps, config.run.epochs))

    def step(self, plan: Epoch, step: int) -> dict[str, Tensor]:
        """A step of the optimiser on the views that the kit's plan gives it; returns its loss terms."""
        batch = plan.batch(plan.rows(step, self.trainer.batch_size), self.device)
        self.optimizer.zero_grad()
        terms = self.model.train().compare(four_passes(self.model, batch), batch)
        terms["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.trainer.config.optim.clip)
        self.optimizer.step()
        self.schedule.step()
        return terms
