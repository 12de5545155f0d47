"""How fast the kit trains on this machine, beside the released recipe and the ceiling: a matrix product.

The recipe of the released code is rewritten from its description: fp32, and four passes through the whole
encoder a step. Model, loss, hyper-parameters and views are the kit's own.
"""

import json as jsonlib
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer, timer
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from sbirlib.config.config import Config
from sbirlib.data import Batch, Epoch, PairFolder, load_data
from sbirlib.methods.arnet import ARNet
from sbirlib.runs.atomic import write_text
from sbirlib.runs.records import code_state
from sbirlib.training.files import RunFiles
from sbirlib.training.setup import make_accelerator, make_optimizer
from sbirlib.training.trainer import Trainer

PRESETS = "mini", "mini_full", "lite", "full"
SECONDS, FEWEST, MOST = 60, 3, 20  # a row, about; rounds of both in turn, and smaller batches to allow them
HEAD = "| preset | batch | precision | kit | IQR | released recipe | IQR | ratio | ceiling | share, % |\n|"
HEAD += 10 * "---|"


class BenchRow(NamedTuple):
    """Views a second: medians, interquartile ranges; the ceiling in GFLOP/s, and the kit's share of it."""

    preset: str
    batch: int
    precision: str
    kit: float
    kit_iqr: float
    released: float | None  # without second views there are none for the recipe to pass
    released_iqr: float | None
    ceiling: float
    share: float

    def __str__(self) -> str:
        """A line of the table that `HEAD` begins; numbers have three digits, the ratio is that of medians."""
        ratio = self.released and self.kit / self.released
        numbers = *self[3:7], ratio, self.ceiling, 100 * self.share
        cells = [f"{float(f'{n:.3g}'):.10g}" for n in numbers if n is not None]
        cells[2:2] = [] if self.released else ["no second views", "", ""]
        return f"| {' | '.join([self.preset, str(self.batch), self.precision, *cells])} |"


def measure(root: Path, json: Path | None = None, device: str = "auto") -> None:
    """Measures each preset, prints its row as soon as it is there, and updates the JSON.

    Raises InputError for data that cannot be used, before anything is measured.
    """
    configs = {preset: on_this_data(preset, root, device) for preset in PRESETS}
    load_data(PairFolder(root), configs["mini"])
    written: dict[str, Any] = {"machine": machine(configs["mini"]), "rows": []}
    print(*(f"{k}: {v}" for k, v in written["machine"].items()), "", HEAD, sep="\n", flush=True)
    for preset, config in configs.items():
        row = timed(preset, config)
        print(row, flush=True)
        written["rows"].append(row._asdict())
        if json is not None:
            write_text(json, jsonlib.dumps(written, indent=2) + "\n")


def on_this_data(preset: str, root: Path, device: str) -> Config:
    """The preset on this data, from scratch, with second views in every step and images of one size."""
    fixed = {"data.root": str(root), "model.pretrained": False, "loss.intra_every": 1, "run.sizes": ()}
    return Config.preset(preset).updated(fixed | {"run.device": device, "run.tracker": "none"})


def timed(preset: str, config: Config) -> BenchRow:
    """Times a step of the kit and one of the released recipe in turn, on the same views."""
    end = timer() + SECONDS
    trainer = Trainer(PairFolder(config.data.root), RunFiles(Path(), config))
    plan, ways = trainer.plan(1), [trainer.step]
    ways += [released_recipe(trainer)] if trainer.method.second_views else []

    def seconds(way: Callable[[Epoch, int], Any]) -> float:
        started = timer()  # which waits for a GPU
        way(plan, 0)
        return timer() - started

    batch, trainer.batch_size = trainer.batch_size, 2
    pair = sum(map(seconds, ways)) / 2  # rather more than it takes in a larger batch
    while batch > 2 and (FEWEST + 1) * batch * pair > SECONDS:
        batch //= 2
    trainer.batch_size = batch
    flops, rounds = flops_of(trainer.step, plan), []
    for _ in tqdm(range(MOST), preset, unit="round", disable=None, leave=False):
        if len(rounds) < FEWEST or timer() < end:
            rounds.append([seconds(way) for way in ways])
    views, dtype = trainer.method.passes * batch, torch.bfloat16 if trainer.bf16 else torch.float32
    quartiles = (views / torch.tensor(rounds)).quantile(torch.tensor([0.25, 0.5, 0.75]), dim=0)
    numbers = [(middle, high - low) for low, middle, high in quartiles.T.tolist()]
    kit, released = (*numbers, (None, None))[:2]
    most, name = ceiling(trainer.accelerator.device, dtype), "bf16" if trainer.bf16 else "fp32"
    return BenchRow(preset, batch, name, *kit, *released, most, flops / views * kit[0] / most / 1e9)


def flops_of(way: Callable[[Epoch, int], Any], plan: Epoch) -> int:
    """The FLOPs of a step's matrix products, convolutions and attention, the way back included."""

    # As much for images, and for weights, as on the way there; torch's own count overlooks groups.
    def convolution(rows: torch.Size, _: torch.Size, weight: torch.Size, *rest: Any, **__: Any) -> int:
        return 2 * sum(rest[-1][:2]) * rows.numel() // rows[1] * weight.numel()

    back = {torch.ops.aten.convolution_backward: convolution}
    # On a CPU attention is counted only where it is done product by product.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=back) as counter:
        way(plan, 0)
    return counter.get_total_flops()


def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """The GFLOP/s of a plain matrix product."""
    side = 2048 if device.type == "cpu" else 8192
    known = {"a": torch.rand(side, side, device=device, dtype=dtype)}
    product = Timer("a @ a", globals=known, num_threads=torch.get_num_threads())
    return 2e-9 * side**3 / product.blocked_autorange(min_run_time=2).median


def machine(config: Config) -> dict[str, Any]:
    """What was measured, and where."""
    cpu, gpu = Path("/proc/cpuinfo"), make_accelerator(config, Path()).device.type == "cuda"
    named = re.search(r"model name\s*: (.+)", cpu.read_text()) if cpu.is_file() else None
    return {
        "processor": torch.cuda.get_device_name() if gpu else named[1] if named else platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "commit": code_state(),
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
    """A step of the released recipe, with settings and files of `trainer`; it returns the loss terms."""
    config, device = trainer.config, trainer.accelerator.device
    torch.manual_seed(config.run.seed)
    model = ARNet.from_config(config).to(device)
    optimizer = make_optimizer(model, config.optim)

    def step(plan: Epoch, number: int) -> dict[str, Tensor]:
        batch = plan.batch(plan.rows(number, trainer.batch_size), device)
        optimizer.zero_grad()
        terms = model.train().compare(four_passes(model, batch), batch)
        terms["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip)
        optimizer.step()
        return terms

    return step
