"""What the trainer is set up with: data, device, optimiser, learning rate, and interrupts that wait."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam, AdamW, Optimizer

from sbirlib.config.config import Config, OptimConfig
from sbirlib.errors import ConfigError
from sbirlib.layers.backbone import is_plain_vit
from sbirlib.layers.precision import wants_bf16
from sbirlib.methods.base import Method, Stage


def make_accelerator(config: Config, out: Path) -> Accelerator:
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device = 'cuda': torch sees no CUDA device here; use auto or cpu")
    # Accelerate keeps one state a process; without this, a second run in a notebook with another
    # precision or device is refused.
    AcceleratorState._reset_state(reset_partial_state=True)
    cpu = config.run.device == "cpu"
    precision = "bf16" if wants_bf16(config.run.precision, PartialState(cpu=cpu).device) else "no"
    tracker = None if config.run.tracker == "none" else config.run.tracker
    # Some CNNs have weights that are not used here, for which processes would wait; plain ViTs have none.
    unused = DistributedDataParallelKwargs(find_unused_parameters=not is_plain_vit(config.model.backbone))
    return Accelerator(
        cpu=cpu, mixed_precision=precision, log_with=tracker, project_dir=out, kwargs_handlers=[unused]
    )


def check_exactness(model: Method, config: Config, processes: int) -> None:
    """Refuses to split a batch where its images see each other outside the loss. Raises ConfigError."""
    if processes == 1 and not config.optim.chunk:
        return
    way = f"optim.chunk = {config.optim.chunk}" if config.optim.chunk else f"{processes} processes"
    if model.indivisible:
        raise ConfigError(f"{model.indivisible}; {way} would split it")
    if processes > 1 and len(model.stages()) > 1:
        raise ConfigError(f"method {config.method} trains different weights in turn: use one process")
    # Each process keeps statistics of its own, as is usual; a chunk would count its images twice.
    if config.optim.chunk and any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ConfigError(
            f"{config.model.backbone} has BatchNorm, whose statistics {way} would change; use "
            "optim.chunk = 0, or a backbone with LayerNorm or GroupNorm such as a ViT"
        )


def make_optimizer(model: nn.Module, config: OptimConfig, *, fused: bool = False) -> Optimizer:
    """Adam or AdamW; `fused` takes each step in one kernel, whose last bits differ."""
    # None leaves the choice to torch; False would be its slowest way on a GPU.
    way = fused or None
    if config.name == "adamw":
        groups = param_groups_weight_decay(model, config.weight_decay)
        return AdamW(groups, lr=config.lr, fused=way)
    return Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=way)


def lr_factor(config: OptimConfig, steps: int, epochs: int) -> Callable[[int], float]:
    """Factor on the peak learning rate by step: linear warm-up, then constant or half a cosine.

    `steps` an epoch, for so many `epochs`.
    """
    warmup, total = round(config.warmup * steps), epochs * steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if config.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return factor


def stage_ends(stages: Sequence[Stage], epochs: int) -> list[int]:
    """The last epoch of each stage, by the stages' shares; the last is the last of all."""
    ends = [round(share * epochs) for share in itertools.accumulate(stage.share for stage in stages)]
    return [*ends[:-1], epochs]
