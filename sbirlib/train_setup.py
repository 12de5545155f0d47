"""What the trainer is set up with: data, device, optimiser, learning rate, and interrupts that wait."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from timm.optim import param_groups_weight_decay
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam, AdamW, Optimizer

from sbirlib.arnet import ARNet
from sbirlib.backbones import is_plain_vit
from sbirlib.config import Config, OptimConfig
from sbirlib.fields import ConfigError
from sbirlib.pairs import PairError, PairFolder
from sbirlib.precision import wants_bf16
from sbirlib.views import LoadedSplit, load_split


def load_data(pairs: PairFolder, config: Config) -> tuple[LoadedSplit, LoadedSplit | None, int]:
    """Training and validation pairs in memory (None if nothing is held out), and files left out.

    Under the released protocol nothing is held out and the test split takes the place of validation.
    """
    whole = load_split(pairs.split("train"), config.data, config.model.image_size)
    skipped = len(whole.split.left_out)
    if len(set(whole.photo_index.tolist())) < 2:
        raise PairError(f"{pairs.root}: only one photo has a sketch; to learn a difference, two at least are needed")
    if config.run.protocol == "released":
        return whole, load_split(pairs.split("test"), config.data, config.model.image_size), skipped
    if not config.data.val_fraction:
        return whole, None, skipped
    kept, held = whole.split.holdout(config.data.val_fraction, config.run.seed)
    return whole.part(kept), whole.part(held), skipped


def make_accelerator(config: Config, out: Path) -> Accelerator:
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device = 'cuda': torch sees no CUDA device here; use auto or cpu")
    loss = config.loss
    if not any((loss.multi, loss.inter, loss.intra_sketch, loss.intra_photo)):
        raise ConfigError("loss.multi, inter, intra_sketch and intra_photo are all 0: nothing would be learnt")
    # Accelerate keeps one state a process; without this, a second run in a notebook with another
    # precision or device is refused.
    AcceleratorState._reset_state(reset_partial_state=True)
    cpu = config.run.device == "cpu"
    precision = "bf16" if wants_bf16(config.run.precision, PartialState(cpu=cpu).device) else "no"
    tracker = None if config.run.tracker == "none" else config.run.tracker
    # Some CNNs have weights that are not used here, for which processes would wait; plain ViTs have none.
    unused = DistributedDataParallelKwargs(find_unused_parameters=not is_plain_vit(config.model.backbone))
    return Accelerator(cpu=cpu, mixed_precision=precision, log_with=tracker, project_dir=out,
                       kwargs_handlers=[unused])


def check_exactness(model: ARNet, config: Config, processes: int) -> None:
    """Refuses to split a batch where its images see each other outside the loss. Raises ConfigError."""
    if processes == 1 and not config.optim.chunk:
        return
    way = f"optim.chunk = {config.optim.chunk}" if config.optim.chunk else f"{processes} processes"
    if config.mstr.enabled and config.mstr.attention == "batch":
        raise ConfigError(f"mstr.attention = 'batch' lets the images of a batch see each other; {way} would split it")
    # Each process keeps statistics of its own, as is usual; a chunk would count its images twice.
    if config.optim.chunk and any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ConfigError(f"{config.model.backbone} has BatchNorm, whose statistics {way} would change; use "
                          "optim.chunk = 0, or a backbone with LayerNorm or GroupNorm such as a ViT")


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


@contextmanager
def interrupts_wait() -> Iterator[threading.Event]:
    """Holds Ctrl-C (or the kernel's interrupt) back and notes it; a second one is not held back.

    A step that is cut in the middle would leave weights and optimiser of different steps. Outside the
    main thread, which gets all interrupts, nothing is held back.
    """
    noted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        if noted.is_set():
            raise KeyboardInterrupt
        noted.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
