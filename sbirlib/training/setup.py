"""What the trainer is set up with: data, device, optimiser, learning rate, and interrupts that wait."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from timm.optim import param_groups_weight_decay
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam, AdamW, Optimizer

from sbirlib.config.config import Config, OptimConfig
from sbirlib.errors import ConfigError
from sbirlib.layers.backbone import is_plain_vit
from sbirlib.layers.precision import wants_bf16
from sbirlib.methods.arnet import ARNet


def make_accelerator(config: Config, out: Path) -> Accelerator:
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device = 'cuda': torch sees no CUDA device here; use auto or cpu")
    loss = config.loss
    if not any((loss.multi, loss.inter, loss.intra_sketch, loss.intra_photo)):
        raise ConfigError(
            "loss.multi, inter, intra_sketch and intra_photo are all 0: nothing would be learnt"
        )
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


def check_exactness(model: ARNet, config: Config, processes: int) -> None:
    """Refuses to split a batch where its images see each other outside the loss. Raises ConfigError."""
    if processes == 1 and not config.optim.chunk:
        return
    way = f"optim.chunk = {config.optim.chunk}" if config.optim.chunk else f"{processes} processes"
    if config.mstr.enabled and config.mstr.attention == "batch":
        raise ConfigError(
            f"mstr.attention = 'batch' lets the images of a batch see each other; {way} would split it"
        )
    # Each process keeps statistics of its own, as is usual; a chunk would count its images twice.
    if config.optim.chunk and any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ConfigError(
            f"{config.model.backbone} has BatchNorm, whose statistics {way} would change; use "
            "optim.chunk = 0, or a backbone with LayerNorm or GroupNorm such as a ViT"
        )


def make_optimizer(model: ARNet, config: OptimConfig, *, fused: bool = False) -> Optimizer:
    """Adam or AdamW; `fused` does all of a step in one kernel, which rounds otherwise in the last bit."""
    # None leaves the choice to torch; False would be its slowest way on a GPU.
    way = fused or None
    if config.name == "adamw":
        groups = param_groups_weight_decay(model, config.weight_decay)
        return AdamW(groups, lr=config.lr, fused=way)
    return Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=way)


def lr_factor(config: Config, steps: int) -> Callable[[int], float]:
    """Factor on the peak learning rate by step: linear warm-up, then constant or half a cosine."""
    warmup, total = round(config.optim.warmup * steps), config.run.epochs * steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if config.optim.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return factor
