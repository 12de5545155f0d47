"""What the trainer is set up with: device, optimiser, learning rate, stages."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin
from timm.models import is_model_in_modules
from timm.optim import param_groups_weight_decay  # type: ignore[attr-defined]  # public, but not listed
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam, AdamW, Optimizer

from sbirlib.config.config import Config, OptimConfig
from sbirlib.errors import ConfigError
from sbirlib.methods.base import Method, Stage


def make_accelerator(config: Config, out: Path) -> Accelerator:
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device = 'cuda': torch sees no CUDA device here; use auto or cpu")
    cpu, tracker = config.run.device == "cpu", None if config.run.tracker == "none" else config.run.tracker
    # Accelerate keeps one state per process. A run on another device or in another precision begins it anew;
    # any other leaves it to those that may be under way.
    if PartialState._shared_state.get("_cpu", cpu) != cpu:
        AcceleratorState._reset_state(reset_partial_state=True)
    precision = "bf16" if wants_bf16(config.run.precision, PartialState(cpu=cpu).device) else "no"
    if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:
        AcceleratorState._reset_state()
    # Some CNNs have weights that are not used here, for which processes would wait; plain ViTs have none.
    plain = is_model_in_modules(config.model.backbone.partition(".")[0], ("vision_transformer", "mini_vit"))
    # Whatever a launcher says: pairs of different steps would not be each other's negatives.
    return Accelerator(
        cpu=cpu, mixed_precision=precision, log_with=tracker, project_dir=out,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=not plain)],
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )  # fmt: skip


def wants_bf16(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> bool:
    """Whether forward passes run in bf16; `auto`: where the device has instructions for it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        # Older GPUs only emulate bf16, slower than fp32.
        return torch.cuda.get_device_capability(device)[0] >= 8
    # Older torch cannot tell.
    has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and (has.get("avx512_bf16", False) or has.get("amx_bf16", False))


def check_exactness(model: Method, config: Config, processes: int) -> None:
    """Raises ConfigError for sizes that a model does not take, and where a batch that cannot be split is."""
    if config.run.sizes and not model.sketch_encoder.backbone.is_cnn:
        why = f"backbone {config.model.backbone!r} takes images of one size"
        raise ConfigError(f"run.sizes = {config.run.sizes}: {why}; leave it empty, or choose a CNN")
    if processes == 1 and not config.optim.chunk:
        return
    way = f"optim.chunk = {config.optim.chunk}" if config.optim.chunk else f"{processes} processes"
    if model.indivisible:
        raise ConfigError(f"{model.indivisible}; {way} would split it")
    if processes > 1 and len(model.stages()) > 1:
        raise ConfigError(f"method {config.method} trains different weights in turn: use one process")
    # That each process keeps its own statistics is usual; but a chunk would count its images twice.
    learning = not config.model.keep_statistics and config.optim.chunk
    if learning and any(isinstance(module, _BatchNorm) for module in model.modules()):
        advice = "use model.keep_statistics, optim.chunk = 0, or LayerNorm or GroupNorm, as in a ViT"
        why = f"{config.model.backbone} has BatchNorm, whose statistics {way} would change"
        raise ConfigError(f"{why}; {advice}")


def make_optimizer(model: nn.Module, config: OptimConfig, *, fused: bool = False) -> Optimizer:
    """Adam or AdamW; `fused` does each step in one kernel, with differences in the last bits."""
    way = fused or None  # None leaves the choice to torch; False would be the slowest on a GPU
    if config.name == "adamw":
        return AdamW(param_groups_weight_decay(model, config.weight_decay), lr=config.lr, fused=way)
    return Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=way)


def lr_factor(config: OptimConfig, steps: int, epochs: int) -> Callable[[int], float]:
    """Factor on the peak learning rate by step: linear warm-up, then constant or half a cosine.

    There are `steps` in each of the `epochs`.
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
    """The last epoch of each stage, by the stages' shares; ConfigError for a stage without an epoch."""
    ends = [round(share * epochs) for share in itertools.accumulate(stage.share for stage in stages)][:-1]
    for stage, begin, end in zip(stages, [0, *ends], [*ends, epochs], strict=True):
        if begin >= end:
            raise ConfigError(f"run.epochs = {epochs} leaves none for the method's stage {stage.name!r}")
    return [*ends, epochs]
