"""The parts of the benchmark that train and score: input, step, evaluation, accuracy."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.layers import Attention
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from sbirlib.bench.measure import LONG, Ceilings, Result, Row, Spread, attempt, in_turn, in_turn_warm, seconds
from sbirlib.bench.recipe import ReleasedEvaluation, ReleasedRecipe, decoding, pair_loader
from sbirlib.config.config import Config
from sbirlib.data.batches import Epoch, Views, epoch_batches
from sbirlib.data.loading import LoadedSplit, load_split
from sbirlib.data.pairs import PairFolder, Split
from sbirlib.layers.precision import choose_attention
from sbirlib.retrieval.scores import score_split
from sbirlib.training.setup import make_accelerator
from sbirlib.training.trainer import VIEWS_A_PAIR, Trainer, train

NAMES = {
    "mini": "mini",
    "mini_full": "mini_full",
    "basic": "ViT-B/16 (basic)",
    "full": "ViT-B/16 with MSTR (full)",
}
ENOUGH = 1.0  # seconds that one measurement should take at least
FEW_PHOTOS = 16  # that a large backbone is scored on
TARGET = 50.0  # percent, validation Acc@1


class Setup(NamedTuple):
    """What is measured on: data, the device (auto, cpu, cuda), how often, and how large a step.

    `pairs` is None where no part needs data. `limits` gives the ceilings of a kind of device, measured when
    they are first asked for. `batches` are the pairs of a ViT-B/16 step. `changes` are fields that every
    preset is given.
    """

    pairs: PairFolder | None
    limits: Callable[[str], Ceilings]
    device: str = "auto"
    repeats: int = 5
    batches: tuple[int, ...] = (16,)
    changes: dict[str, Any] = {}  # noqa: RUF012  (a NamedTuple's default, never written to)

    def config(self, preset: str) -> Config:
        """The preset on this data, from scratch: weights do not change speed."""
        root = {"data.root": str(self.pairs.root)} if self.pairs else {}
        return Config.preset(preset).updated(
            root
            | {"model.pretrained": False, "run.device": self.device, "run.tracker": "none"}
            | self.changes
        )


def label(preset: str, config: Config) -> str:
    return f"{NAMES[preset]} at {config.model.image_size} px"


def input_rows(setup: Setup) -> Iterator[Result]:
    """Views a second of a whole epoch, once there has been one."""
    for preset in ("basic", "mini"):
        part = f"input, {label(preset, setup.config(preset))}"
        yield from attempt(part, partial(_input_rows, setup, part, setup.config(preset)))


def _input_rows(setup: Setup, part: str, config: Config) -> Iterator[Row]:
    split, device = setup.pairs.split("train"), make_accelerator(config, Path()).device
    loaded, loader = load_split(split, config.data, config.model.image_size), pair_loader(split, config)
    batch = min(config.optim.batch_size, len(split.sketches))
    views = VIEWS_A_PAIR * batch * len(loader)

    def kit() -> None:
        for _ in epoch_batches(loaded, config.data, seed=0, epoch=1, batch_size=batch, device=device):
            pass

    def released() -> None:
        for values in loader:
            Views(*(value.to(device) for value in values))

    with decoding(loader):
        # The call that warms up is the first epoch, in which workers are started.
        ours, theirs = in_turn(_rate(kit, views), _rate(released, views), setup.repeats)
    yield Row(part, "views/s", "higher", ours, theirs)


def step_rows(setup: Setup) -> Iterator[Result]:
    """Views a second of one training step whose views are ready, the FLOP/s of the kit's, and what views cost it."""
    for preset in ("basic", "mini", "mini_full"):
        for batch in setup.batches if preset == "basic" else (setup.config(preset).optim.batch_size,):
            config = setup.config(preset).updated({"optim.batch_size": batch})
            part = f"step, {label(preset, config)}"
            yield from attempt(f"{part}, batch {batch}", partial(_step_rows, setup, part, config))


def attention_rows(setup: Setup) -> Iterator[Result]:
    """Milliseconds of one attention layer of ViT-B/16, forward and back: the kernel chosen and the other.

    In the precision in which the kit trains here, with as many images as an encoder sees in a step.
    """
    images = 2 * setup.batches[0]  # the two views of a domain
    yield from attempt(f"attention, {images} images", partial(_attention_rows, setup, images))


def _attention_rows(setup: Setup, images: int) -> Iterator[Row]:
    accelerator = make_accelerator(setup.config("basic"), Path())
    device, bf16 = accelerator.device, accelerator.mixed_precision == "bf16"
    layer, x = (
        Attention(768, num_heads=12, qkv_bias=True).to(device),
        torch.randn(images, 197, 768).to(device),
    )
    choose_attention(layer, device, bf16)
    chosen = layer.fused_attn

    def run(fused: bool) -> float:
        layer.fused_attn = fused
        with accelerator.autocast():
            return 1000 * seconds(lambda: layer(x).float().sum().backward())

    ours, theirs = in_turn(lambda: run(chosen), lambda: run(not chosen), setup.repeats)
    yield Row(
        f"attention, {images} images, {_format(bf16)}, {'fused' if chosen else 'plain'} kernel",
        "ms",
        "lower",
        ours,
        theirs,
        against="plain kernel" if chosen else "fused kernel",
    )


def evaluation_rows(setup: Setup) -> Iterator[Result]:
    """Images a second of scoring test photos, once that has been done; and the evaluation that follows an epoch."""
    for preset in ("mini", "basic"):
        part = f"evaluation, {label(preset, setup.config(preset))}"
        yield from attempt(part, partial(_evaluation_rows, setup, part, preset))


def _evaluation_rows(setup: Setup, part: str, preset: str) -> Iterator[Row]:
    pairs, config = setup.pairs, setup.config(preset)
    split = pairs.split("test") if preset == "mini" else _first_photos(pairs.split("test"), FEW_PHOTOS)
    trainer = Trainer(pairs, config, Path())
    recipe = ReleasedRecipe(config, trainer.steps, trainer.accelerator.device)
    loaded, anew = load_split(split, config.data, config.model.image_size), ReleasedEvaluation(split, config)
    train_anew = ReleasedEvaluation(pairs.split("train"), config)
    images, held_out = len(split.sketches) + len(split.photos), trainer.held_out
    with decoding(*anew.loaders, *train_anew.loaders):
        ours, theirs = _in_turn(
            lambda: _validate(trainer, loaded), lambda: anew(recipe.model), images, setup.repeats
        )
        yield Row(f"{part}, {images} images", "images/s", "higher", ours, theirs)
        if preset == "mini":
            ours, theirs = in_turn(
                lambda: seconds(lambda: _validate(trainer, held_out)),
                lambda: seconds(lambda: (train_anew(recipe.model), anew(recipe.model))),
                setup.repeats,
            )
            yield Row(f"{part}, after an epoch", "s", "lower", ours, theirs)


def accuracy_rows(setup: Setup, target: float = TARGET) -> Iterator[Row]:
    """Minutes and epochs until the Acc@1 of held-out photos passes `target` percent, measured once each.

    Counted from nothing but the files on disk. Where the preset's epochs do not suffice, the row says so.
    """
    config = setup.config("mini")
    ours, theirs = _kit_until(setup.pairs, config, target), _released_until(setup.pairs, config, target)
    part = f"accuracy, {label('mini', config)}, until validation Acc@1 > {target:g} %"
    for unit, kit, released in zip(("min", "epochs"), ours, theirs, strict=True):
        yield Row(part, unit, "lower", Spread.of([kit]), Spread.of([released]))


class Reached(NamedTuple):
    """When an accuracy was passed: minutes and epochs, infinite if it was not."""

    minutes: float
    epochs: float


NEVER = Reached(math.inf, math.inf)


def _kit_until(pairs: PairFolder, config: Config, target: float) -> Reached:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        records = train(pairs, config, out=Path(folder) / "run")
        for record in records:
            spent = time.perf_counter() - started
            _tell("kit", record.epoch, record.validation["acc@1"], spent)
            if record.validation["acc@1"] > target:
                records.close()
                return Reached(spent / 60, record.epoch)
    return NEVER


def _released_until(pairs: PairFolder, config: Config, target: float) -> Reached:
    kept, held = pairs.split("train").holdout(config.data.val_fraction, config.run.seed)
    # Only there to know when to stop: the recipe itself has no held-out photos, so their time is not counted.
    held_out, device = (
        load_split(held, config.data, config.model.image_size),
        make_accelerator(config, Path()).device,
    )
    started = time.perf_counter()
    loader = pair_loader(kept, config)
    anew = [ReleasedEvaluation(split, config) for split in (kept, pairs.split("test"))]
    recipe = ReleasedRecipe(config, len(loader), device)
    spent = time.perf_counter() - started
    with decoding(loader, *anew[0].loaders, *anew[1].loaders):
        for epoch in range(1, config.run.epochs + 1):
            spent += seconds(lambda: (recipe.epoch(loader), *(part(recipe.model) for part in anew)))
            found = score_split(recipe.model, held_out, device=device).accuracy[1].percent
            _tell("released recipe", epoch, found, spent)
            if found > target:
                return Reached(spent / 60, epoch)
    return NEVER


class _Ready(Epoch):
    """An epoch whose every step has the views of its first, already made."""

    def __init__(self, trainer: Trainer) -> None:
        config = trainer.config
        super().__init__(trainer.data, config.data, seed=config.run.seed, epoch=1)
        self.made = super().views(self.rows(0, trainer.batch_size), trainer.accelerator.device)

    def views(self, rows: torch.Tensor, device: torch.device | str) -> Views:
        return self.made


def _step_rows(setup: Setup, part: str, config: Config) -> Iterator[Result]:
    trainer = Trainer(setup.pairs, config, Path())
    trainer.model.train()
    ready, plan = _Ready(trainer), Epoch(trainer.data, config.data, seed=config.run.seed, epoch=1)
    part, views = f"{part}, batch {trainer.batch_size}", VIEWS_A_PAIR * trainer.batch_size

    def kit() -> None:
        trainer._step(ready, 0)

    def beside() -> Iterator[Row]:
        recipe = ReleasedRecipe(config, trainer.steps, trainer.accelerator.device)
        yield Row(
            part, "views/s", "higher", *_in_turn(kit, lambda: recipe.step(ready.made), views, setup.repeats)
        )

    # The recipe needs more memory: where it has not enough, the kit's own rows are there all the same.
    yield from attempt(f"{part}, beside the released recipe", beside)
    bf16 = trainer.accelerator.mixed_precision == "bf16"
    count = flops(kit)
    whole, still = _in_turn(lambda: trainer._step(plan, 0), kit, views, setup.repeats)
    rate = Spread(*(count / views * value for value in still))
    limits = setup.limits(trainer.accelerator.device.type)
    yield Row(
        f"{part}, {_format(bf16)}",
        "GFLOP/s",
        "higher",
        Spread(*(value / 1e9 for value in rate)),
        share_of_ceiling=rate.median / (limits.bf16 if bf16 else limits.fp32),
    )
    yield Row(f"{part}, with making the views", "views/s", "higher", whole, still, against="views ready")


def flops(action: Callable[[], object]) -> int:
    """The floating-point operations of matrix products, convolutions and attention in `action`, counted."""
    aten = torch.ops.aten
    # torch counts the attention kernels of GPUs, not (in 2.14) that of CPUs.
    mapping = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *rest, **options: (
            sdpa_flop_count(query, key, value)
        ),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda gradient, query, key, value, *rest, **options: (
            sdpa_backward_flop_count(gradient, query, key, value)
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        action()
    return counter.get_total_flops()


def _in_turn(
    kit: Callable[[], object], other: Callable[[], object], items: int, repeats: int
) -> tuple[Spread, Spread]:
    """Items a second of two ways to do something with `items`, as many times over as take `ENOUGH`."""
    rates = []
    for action in (kit, other):
        once = seconds(action)
        # The first time is the slow one; only what is long enough anyway can do without a second look.
        once = once if once > LONG else seconds(action)
        times = max(1, round(ENOUGH / once))
        rates.append(
            _rate(lambda action=action, times=times: [action() for _ in range(times)], times * items)
        )
    return in_turn_warm(*rates, repeats)


def _format(bf16: bool) -> str:
    return "bf16" if bf16 else "fp32"


def _rate(action: Callable[[], object], items: int) -> Callable[[], float]:
    return lambda: items / seconds(action)


def _validate(trainer: Trainer, data: LoadedSplit) -> dict[str, float]:
    """What the trainer does after its last epoch, with `data` for the photos held out."""
    trainer.held_out = data
    return trainer._validate(trainer.config.run.epochs)


def _first_photos(split: Split, count: int) -> Split:
    photos = split.photos[:count]
    known = {photo.id for photo in photos}
    return Split(split.name, tuple(sketch for sketch in split.sketches if sketch.photo_id in known), photos)


def _tell(who: str, epoch: int, percent: float, spent: float) -> None:
    # A row comes only after minutes; meanwhile it shows that something happens.
    print(
        f"{who}: epoch {epoch}, validation Acc@1 {percent:.1f} % after {spent / 60:.1f} min",
        file=sys.stderr,
        flush=True,
    )
