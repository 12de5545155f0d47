"""The trainer, on Hugging Face Accelerate: one record an epoch, so that a notebook can plot and stop."""

from __future__ import annotations

import csv
import hashlib
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from timm.optim import param_groups_weight_decay
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from sbirlib.arnet import ARNet
from sbirlib.checkpoints import fingerprint, load_run, save_model_folder
from sbirlib.config import Config, OptimConfig
from sbirlib.fields import ConfigError, InputError
from sbirlib.losses import LossTerms, arnet_loss
from sbirlib.pairs import PairError, PairFolder
from sbirlib.retrieval import score_split
from sbirlib.views import LoadedSplit, epoch_batches, load_split

VIEWS_A_PAIR = 4
HELD_OUT, TEST_SET, NOTHING = "held-out photos", "TEST SET", "nothing"  # what the checkpoint is chosen on
UNSCORED = (-1.0, -1.0)  # validation Acc@1 and mean reciprocal rank before the first search
_OUTPUTS = ("best", "last", "history.csv", "start.yaml", "tensorboard")


class TrainingError(InputError):
    """Training cannot go on; the message says where it was and what to try."""


class EpochRecord(NamedTuple):
    """One epoch, counted from 1: mean losses by term, learning rate at its end, speed, and score.

    `validation` has acc@1, acc@5, acc@10 (percent) and mrr of the photos that choose the checkpoint,
    and is empty in epochs without a search; `selected_on` names them: "held-out photos", "TEST SET" or
    "nothing"; `best` tells whether this epoch became RUN/best; `skipped` counts the files left out of
    the training data because of faults.
    """

    epoch: int
    losses: dict[str, float]
    lr: float
    views_per_second: float
    seconds: float
    validation: dict[str, float]
    best: bool
    selected_on: str
    skipped: int = 0

    def as_row(self) -> dict[str, float]:
        """The record as one flat row of history.csv."""
        return {"epoch": self.epoch, **{f"loss_{k}": v for k, v in self.losses.items()}, "lr": self.lr,
                "views_per_second": self.views_per_second, "seconds": self.seconds,
                **{f"val_{k}": self.validation.get(k, math.nan) for k in ("acc@1", "acc@5", "acc@10", "mrr")},
                "best": int(self.best), "selected_on": self.selected_on, "skipped": self.skipped}

    def __str__(self) -> str:
        text = (f"epoch {self.epoch:3d}  loss {self.losses['total']:.3f}  lr {self.lr:.1e}  "
                f"{self.views_per_second:.0f} views/s  {self.seconds:.1f} s")
        if self.validation:
            where = "TEST" if self.selected_on == TEST_SET else "val"
            text += f"  {where} Acc@1 {self.validation['acc@1']:.1f} %  Acc@5 {self.validation['acc@5']:.1f} %"
        text += "  best" if self.best else ""
        return text + (f"  ({self.skipped} files skipped)" if self.skipped else "")


def train(pairs: PairFolder | str | Path, config: Config, *, out: str | Path,
          overwrite: bool = False) -> Iterator[EpochRecord]:
    """Trains an ARNet on the train split and yields a record after each epoch.

    `out` gets `best/` and `last/` (model.safetensors, config.yaml each), `history.csv`, the hashes of
    the backbones' first weights in `start.yaml`, and the tracker's files; stopping the iteration keeps
    what is there. Data, model and folder are checked before this returns: PairError, BackboneError,
    MSTRError, ConfigError, FileExistsError. While iterating, TrainingError if the loss is no longer a
    number. One run at a time in a process.
    Source: paper, section 4; the validation split by photo is ours.
    """
    if not isinstance(pairs, PairFolder) or pairs.pattern != config.data.pattern:
        # The configuration decides: it is what the run records.
        pairs = PairFolder(pairs.root if isinstance(pairs, PairFolder) else pairs, pattern=config.data.pattern)
    config = config.updated({"data.root": str(pairs.root)})
    out = Path(out)
    present = [name for name in _OUTPUTS if (out / name).exists()]
    if present and not overwrite:
        raise FileExistsError(f"{out} already holds a run ({', '.join(present)}); choose another folder, "
                              "or pass overwrite (--overwrite) to replace it")
    return Trainer(pairs, config, out).epochs()


def load_or_train(pairs: PairFolder | str | Path, config: Config, *, out: str | Path) -> ARNet:
    """The best model of run `out`; where `out` holds none yet, it is trained first, a line an epoch.

    An unfinished run without `best/` is replaced. Raises what `train` and `load_run` raise.
    """
    if not (Path(out) / "best").is_dir():
        print(f"{out} holds no run yet: training one, {config.run.epochs} epochs", flush=True)
        for record in train(pairs, config, out=out, overwrite=True):
            print(record, flush=True)
    return load_run(out)


class Trainer:
    """Everything one run needs; made and driven by `train`."""

    def __init__(self, pairs: PairFolder, config: Config, out: Path) -> None:
        self.config, self.out = config, out
        self.data, self.held_out, self.skipped = _load(pairs, config)
        self.selected_on = (NOTHING if self.held_out is None else
                            TEST_SET if config.run.protocol == "released" else HELD_OUT)
        self.accelerator = _accelerator(config, out)
        set_seed(config.run.seed)
        model = ARNet.from_config(config)
        self.start = _start(model, config)
        optimizer = _optimizer(model, config.optim)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.batch_size = min(config.optim.batch_size, len(self.data.sketches))
        self.steps = len(self.data.sketches) // self.batch_size
        self.schedule = LambdaLR(optimizer, _lr_factor(config, self.steps))
        self.best = UNSCORED

    def epochs(self) -> Iterator[EpochRecord]:
        """Runs all epochs; closing the iterator ends the run in good order."""
        self.out.mkdir(parents=True, exist_ok=True)
        for name in _OUTPUTS:
            path = self.out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        (self.out / "start.yaml").write_text(yaml.safe_dump(self.start, sort_keys=False), encoding="utf-8")
        self.accelerator.init_trackers("tensorboard")
        try:
            for epoch in range(1, self.config.run.epochs + 1):
                record = self._epoch(epoch)
                self._keep(record)
                yield record
        finally:
            self.accelerator.end_training()

    def _epoch(self, epoch: int) -> EpochRecord:
        config, device = self.config, self.accelerator.device
        started, terms = time.perf_counter(), []
        self.model.train()
        batches = epoch_batches(self.data, config.data, seed=config.run.seed, epoch=epoch,
                                batch_size=self.batch_size, device=device)
        for *views, photo_ids in tqdm(batches, desc=f"epoch {epoch}/{config.run.epochs}", total=self.steps,
                                      unit="step", disable=None, leave=False):
            output = self.model(*views)
            loss = arnet_loss(output, photo_ids, config.loss)
            self.accelerator.backward(loss.total)
            self.accelerator.clip_grad_norm_(self.model.parameters(), config.optim.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.schedule.step()
            terms.append(torch.stack([term.detach() for term in loss]))
        losses = _mean_terms(terms, epoch)
        seconds = time.perf_counter() - started
        views = VIEWS_A_PAIR * self.steps * self.batch_size
        validation = self._validate(epoch)
        score = (validation["acc@1"], validation["mrr"]) if validation else UNSCORED
        # Until a first search there is nothing better than the latest weights, and a run that is
        # stopped then must hold some.
        best = score > self.best or self.best == UNSCORED
        self.best = max(self.best, score)
        return EpochRecord(epoch, losses, self.schedule.get_last_lr()[0], views / seconds, seconds, validation, best,
                           self.selected_on, self.skipped)

    def _validate(self, epoch: int) -> dict[str, float]:
        run = self.config.run
        if self.held_out is None or (epoch % run.eval_every and epoch != run.epochs):
            return {}
        with self.accelerator.autocast():
            scores = score_split(self.accelerator.unwrap_model(self.model), self.held_out,
                                 device=self.accelerator.device, batch=run.eval_batch)
        return {f"acc@{k}": accuracy.percent for k, accuracy in scores.accuracy.items()} | {"mrr": scores.mrr}

    def _keep(self, record: EpochRecord) -> None:
        row = record.as_row()
        numbers = {k: v for k, v in row.items() if not isinstance(v, str) and not math.isnan(v)}
        self.accelerator.log(numbers, step=record.epoch)
        if not self.accelerator.is_main_process:
            return
        model = self.accelerator.unwrap_model(self.model)
        for name in ("last", "best") if record.best else ("last",):
            save_model_folder(self.out / name, model, self.config)
        history = self.out / "history.csv"
        is_new = not history.exists()
        with history.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if is_new:
                writer.writeheader()
            writer.writerow(row)


def _load(pairs: PairFolder, config: Config) -> tuple[LoadedSplit, LoadedSplit | None, int]:
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


def _start(model: ARNet, config: Config) -> dict[str, str]:
    """What the weights are at the beginning: where they come from, and their hashes."""
    source = model.sketch_encoder.backbone.source
    result = {"backbone": config.model.backbone,
              "weights": f"{source}, seed {config.run.seed}" if source == "from scratch" else source}
    if config.model.weights:
        with open(config.model.weights, "rb") as file:
            result["weights_file_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return result | {"sketch_backbone_sha256": fingerprint(model.sketch_encoder.backbone),
                     "photo_backbone_sha256": fingerprint(model.photo_encoder.backbone)}


def _accelerator(config: Config, out: Path) -> Accelerator:
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device = 'cuda': torch sees no CUDA device here; use auto or cpu")
    loss = config.loss
    if not any((loss.multi, loss.inter, loss.intra_sketch, loss.intra_photo)):
        raise ConfigError("loss.multi, inter, intra_sketch and intra_photo are all 0: nothing would be learnt")
    # Accelerate keeps one state a process; without this, a second run in a notebook with another
    # precision or device is refused.
    AcceleratorState._reset_state(reset_partial_state=True)
    cpu = config.run.device == "cpu"
    if PartialState(cpu=cpu).num_processes > 1:
        raise ConfigError("training in several processes is not supported yet: start one process")
    precision = "bf16" if _wants_bf16(config.run.precision, PartialState(cpu=cpu).device) else "no"
    tracker = None if config.run.tracker == "none" else config.run.tracker
    return Accelerator(cpu=cpu, mixed_precision=precision, log_with=tracker, project_dir=out)


def _wants_bf16(precision: str, device: torch.device) -> bool:
    if precision != "auto":
        return precision == "bf16"
    # Older GPUs only emulate bf16, slower than fp32.
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


def _optimizer(model: ARNet, config: OptimConfig) -> Optimizer:
    if config.name == "adamw":
        groups = param_groups_weight_decay(model, config.weight_decay)
        return AdamW(groups, lr=config.lr)
    return Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


def _lr_factor(config: Config, steps: int):
    """Factor on the peak learning rate by step: linear warm-up, then constant or half a cosine."""
    warmup, total = round(config.optim.warmup * steps), config.run.epochs * steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if config.optim.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return factor


def _mean_terms(terms: list[Tensor], epoch: int) -> dict[str, float]:
    # Read once an epoch: a look at each step would make the device wait.
    means = torch.stack(terms).mean(dim=0).tolist()
    losses = dict(zip(LossTerms._fields, means, strict=True))
    if not math.isfinite(losses["total"]):
        raise TrainingError(f"the loss is no longer a number in epoch {epoch} ({losses}); what earlier epochs wrote "
                            "is kept. Try a smaller optim.lr, a longer optim.warmup or fp32")
    return losses
