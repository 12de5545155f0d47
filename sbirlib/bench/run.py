"""How fast the kit trains on this machine beside the released recipe, in one run.

The recipe of the released code is rewritten from its description: fp32, and four passes through the whole
encoder a step. Model, loss, hyper-parameters and views are the kit's own.
"""

import gc
import json as jsonlib
import os
import platform
import re
from collections.abc import Callable
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

PRESETS = "mini", "mini_full", "basic"
ROUNDS = 3  # in which both are timed in turn
HEAD = "| preset | batch | kit | IQR | released recipe | IQR | ratio |\n|---|---|---|---|---|---|---|"


class BenchRow(NamedTuple):
    """Views a second of a step: medians and interquartile ranges of the kit, and of the released recipe."""

    preset: str
    batch: int
    kit: float
    kit_iqr: float
    released: float
    released_iqr: float

    @property
    def ratio(self) -> float:
        """How many times faster the kit is, by the medians."""
        return self.kit / self.released

    def __str__(self) -> str:
        """A line of the table that `HEAD` begins; numbers have three digits."""
        numbers = [f"{float(f'{n:.3g}'):.10g}" for n in (*self[2:], self.ratio)]
        return f"| {self.preset} | {self.batch} | {' | '.join(numbers)} |"


def measure(root: Path, json: Path | None = None, device: str = "auto") -> None:
    """Measures each preset, prints its row as soon as it is there, and updates the JSON.

    Raises InputError for data that cannot be used, before anything is measured.
    """
    configs = {preset: on_this_data(preset, root, device) for preset in PRESETS}
    load_data(PairFolder(root), configs["mini"])
    written = {"machine": machine(configs["mini"]), "rows": []}
    print(*(f"{k}: {v}" for k, v in written["machine"].items()), "", HEAD, sep="\n", flush=True)
    for preset, config in configs.items():
        row = timed(preset, config)
        print(row, flush=True)
        written["rows"].append(row._asdict() | {"ratio": row.ratio})
        if json is not None:
            write_text(json, jsonlib.dumps(written, indent=2) + "\n")
        gc.collect()  # models in cycles, whose memory the next row needs
        torch.cuda.empty_cache()


def on_this_data(preset: str, root: Path, device: str) -> Config:
    """The preset on this data, from scratch: weights do not change speed."""
    fixed = {"data.root": str(root), "model.pretrained": False}
    return Config.preset(preset).updated(fixed | {"run.device": device, "run.tracker": "none"})


def timed(preset: str, config: Config) -> BenchRow:
    """Times a step of the kit and one of the released recipe in turn, on the same views."""
    trainer = Trainer(PairFolder(config.data.root), RunFiles(Path(), config))
    plan, views = trainer.plan(1), trainer.method.passes * trainer.batch_size
    ways = [partial(step, plan, 0) for step in (trainer.step, released_recipe(trainer))]
    timers = [Timer("way()", globals={"way": w}, num_threads=torch.get_num_threads()) for w in ways]
    rounds = [[timer.blocked_autorange() for timer in timers] for _ in range(ROUNDS)]
    numbers = []
    for whole in (Measurement.merge(times)[0] for times in zip(*rounds, strict=True)):
        speed = views / whole.median
        numbers += [speed, speed * whole.iqr / whole.median]
    return BenchRow(preset, trainer.batch_size, *numbers)


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


def released_recipe(trainer: Trainer) -> Callable[[Epoch, int], dict[str, Tensor]]:
    """A step of the released recipe, with settings, files and device of `trainer`; it returns loss terms."""
    config, device = trainer.config, trainer.accelerator.device
    torch.manual_seed(config.run.seed)
    model = ARNet.from_config(config).to(device)
    optimizer = make_optimizer(model, config.optim)
    schedule = LambdaLR(optimizer, lr_factor(config.optim, trainer.steps, config.run.epochs))

    def step(plan: Epoch, number: int) -> dict[str, Tensor]:
        batch = plan.batch(plan.rows(number, trainer.batch_size), device)
        optimizer.zero_grad()
        terms = model.train().compare(four_passes(model, batch), batch)
        terms["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip)
        optimizer.step()
        schedule.step()
        return terms

    return step
