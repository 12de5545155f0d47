"""The trainer, on Hugging Face Accelerate: one record an epoch, so that a notebook can plot and stop."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from sbirlib.config.config import Config
from sbirlib.data.batches import Epoch
from sbirlib.data.loading import load_data
from sbirlib.data.pairs import PairFolder
from sbirlib.errors import ConfigError, InputError
from sbirlib.layers.precision import choose_attention
from sbirlib.methods.arnet import ARNet, LossTerms
from sbirlib.retrieval.scores import score_split
from sbirlib.runs.atomic import RunError
from sbirlib.runs.folder import OUTPUTS, RunFiles
from sbirlib.runs.history import HELD_OUT, NOTHING, TEST_SET, EpochRecord
from sbirlib.runs.provenance import beginning, read_beginning
from sbirlib.runs.state import Progress, load_state, set_random_state
from sbirlib.training.setup import check_exactness, lr_factor, make_accelerator, make_optimizer
from sbirlib.training.signals import interrupts_wait
from sbirlib.training.steps import backward

VIEWS_A_PAIR = 4
UNSCORED = (-1.0, -1.0)  # validation Acc@1 and mean reciprocal rank before the first search


class TrainingError(InputError):
    """Training cannot go on; the message says where it was and what to try."""


def train(
    pairs: PairFolder | str | Path,
    config: Config,
    *,
    out: str | Path,
    overwrite: bool = False,
    resume: bool = False,
    stop: threading.Event | None = None,
) -> Iterator[EpochRecord]:
    """Trains an ARNet on the train split and yields a record after each epoch.

    `out` gets `best/` and `last/` (model.safetensors, config.yaml each), `history.csv`, `start.yaml`
    with what the run began from, `state/` with checkpoints to go on from, and the tracker's files.
    However the iteration ends, what is there is kept: closing it, an interrupt of the keyboard or
    setting `stop` leaves a checkpoint after the step under way, and `resume=True` goes on from the
    newest one as if nothing had happened. In several processes (`accelerate launch`) the batch of a
    step is that of all processes together.

    Data, model and folder are checked before this returns: PairError, BackboneError, MSTRError,
    ConfigError, FileExistsError, RunError. While iterating, TrainingError if the loss is no longer a
    number, RunError if the disk refuses. One run at a time in a process.
    Source: paper, section 4; the validation split by photo is ours.
    """
    if not isinstance(pairs, PairFolder) or pairs.pattern != config.data.pattern:
        # The configuration decides: it is what the run records.
        pairs = PairFolder(
            pairs.root if isinstance(pairs, PairFolder) else pairs, pattern=config.data.pattern
        )
    config = config.updated({"data.root": str(pairs.root)})
    out = Path(out)
    present = [name for name in OUTPUTS if (out / name).exists()]
    if resume and overwrite:
        raise ConfigError("resume goes on with a run, overwrite begins it anew: choose one of them")
    if present and not overwrite and not resume:
        raise FileExistsError(
            f"{out} already holds a run ({', '.join(present)}); go on with it by resume (--resume), "
            "choose another folder, or pass overwrite (--overwrite) to replace it"
        )
    trainer = Trainer(pairs, config, out, stop)
    if resume:
        trainer.resume()
    return trainer.epochs()


class Trainer:
    """Everything one run needs; made and driven by `train`."""

    def __init__(
        self, pairs: PairFolder, config: Config, out: Path, stop: threading.Event | None = None
    ) -> None:
        self.config, self.out = config, out
        self.stop = stop or threading.Event()
        self.data, self.held_out, self.skipped = load_data(pairs, config)
        self.selected_on = (
            NOTHING if self.held_out is None else TEST_SET if config.run.protocol == "released" else HELD_OUT
        )
        self.accelerator = make_accelerator(config, out)
        set_seed(config.run.seed)
        model = ARNet.from_config(config)
        check_exactness(model, config, self.accelerator.num_processes)
        # In fp32 nothing is exchanged for speed: it is what the fast path is compared with.
        bf16 = self.accelerator.mixed_precision == "bf16"
        choose_attention(model, self.accelerator.device, bf16)
        self.start = beginning(model, config, [part for part in (self.data, self.held_out) if part])
        optimizer = make_optimizer(model, config.optim, fused=bf16)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        self.batch_size = min(config.optim.batch_size * processes, len(self.data.sketches))
        if self.batch_size % processes:
            raise ConfigError(
                f"{len(self.data.sketches)} sketches are fewer than a batch of "
                f"{config.optim.batch_size} in each of {processes} processes; use fewer"
            )
        self.steps = len(self.data.sketches) // self.batch_size
        self.schedule = LambdaLR(optimizer, lr_factor(config, self.steps))
        self.files = RunFiles(self.accelerator, out, config)
        self.progress, self.resumed = Progress(), False
        if rank:
            # Weights are the same everywhere, dropout is not.
            set_seed(config.run.seed + rank)

    def resume(self) -> None:
        """Takes up the newest checkpoint of `out`. Raises RunError if there is none, or if it does not fit."""
        began = read_beginning(self.out)
        progress, rest = load_state(self.out, self.config, self.accelerator.unwrap_model(self.model))
        for name, now in self.start["data"].items():
            before = began.get("data", {}).get(name)
            if before != now:
                raise RunError(
                    f"{self.out} cannot be resumed: its data had {name} {before}, {self.config.data.root} "
                    f"has {now}. Resume with the data of before, or start another run"
                )
        self.start, self.progress, self.resumed = began, progress, True
        progress.terms = [term.to(self.accelerator.device) for term in progress.terms]
        self.optimizer.load_state_dict(rest["optimizer"])
        self.schedule.load_state_dict(rest["schedule"])
        states = rest["random"]
        if len(states) != self.accelerator.num_processes:
            raise RunError(
                f"{self.out} was trained in {len(states)} processes, these are "
                f"{self.accelerator.num_processes}; start as many"
            )
        set_random_state(states[self.accelerator.process_index], self.accelerator.device)

    def epochs(self) -> Iterator[EpochRecord]:
        """Runs all epochs; closing the iterator ends the run in good order."""
        if self.resumed:
            self.files.take_up(self.progress)
        else:
            self.files.begin(self.start)
        self.accelerator.init_trackers("tensorboard")
        try:
            while (
                self.progress.epoch <= self.config.run.epochs and not self.files.anyone(self.stop.is_set())[0]
            ):
                record = self._epoch()
                if record is None:
                    return
                try:
                    yield record
                except GeneratorExit:
                    self._save()
                    raise
            self._save()
        finally:
            self.accelerator.end_training()

    def _epoch(self) -> EpochRecord | None:
        """Trains until the end of the epoch under way; None, and a checkpoint, if asked to stop before."""
        config, progress, record = self.config, self.progress, None
        plan = Epoch(self.data, config.data, seed=config.run.seed, epoch=progress.epoch)
        self.model.train()
        steps = tqdm(
            range(progress.step, self.steps),
            desc=f"epoch {progress.epoch}/{config.run.epochs}",
            unit="step",
            disable=None if self.accelerator.is_main_process else True,
            leave=False,
        )
        with interrupts_wait() as interrupted:
            for step in steps:
                self._step(plan, step)
                stopped, due = self.files.anyone(self.stop.is_set() or interrupted.is_set(), self.files.due)
                if due or (stopped and progress.step < self.steps):
                    self._save()
                if stopped and progress.step < self.steps:
                    break
            else:
                record = self._finish(plan)
            (stopped,) = self.files.anyone(interrupted.is_set())
        if stopped:
            self._save()
            raise KeyboardInterrupt
        return record

    def _step(self, plan: Epoch, step: int) -> None:
        config, progress, started = self.config, self.progress, time.perf_counter()
        rows = plan.rows(step, self.batch_size).chunk(self.accelerator.num_processes)
        terms = backward(
            self.accelerator,
            self.model,
            plan,
            rows[self.accelerator.process_index],
            config.loss,
            config.optim.chunk,
        )
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), config.optim.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        # A gradient that is no number spoils the weights though the loss was one.
        progress.terms.append(torch.where(norm.isfinite(), terms, torch.nan))
        progress.step += 1
        progress.seconds += time.perf_counter() - started

    def _finish(self, plan: Epoch) -> EpochRecord:
        """Scores and keeps an epoch whose steps are all done."""
        progress, started = self.progress, time.perf_counter()
        losses = self._mean_terms(plan)
        seconds = progress.seconds + time.perf_counter() - started
        views = VIEWS_A_PAIR * self.steps * self.batch_size
        validation = self._validate(progress.epoch)
        score = (validation["acc@1"], validation["mrr"]) if validation else UNSCORED
        # Until a first search there is nothing better than the latest weights, and a run that is
        # stopped then must hold some.
        best = score > progress.best or progress.best == UNSCORED
        record = EpochRecord(
            progress.epoch,
            losses,
            self.schedule.get_last_lr()[0],
            views / seconds,
            seconds,
            validation,
            best,
            self.selected_on,
            self.skipped,
        )
        self.progress = Progress(
            epoch=progress.epoch + 1, best=max(progress.best, score), rows=[*progress.rows, record.as_row()]
        )
        self._keep(record)
        return record

    def _mean_terms(self, plan: Epoch) -> dict[str, float]:
        # Read once an epoch: a look at each step would make the device wait.
        terms = torch.stack(self.progress.terms)
        finite = terms.isfinite().all(dim=1)
        if not finite.all():
            step = int((~finite).int().argmax())
            rows = plan.rows(step, self.batch_size).tolist()
            files = ", ".join(self.data.split.sketches[row].path.name for row in rows)
            raise TrainingError(
                f"the loss or its gradient is no longer a number in epoch {self.progress.epoch}, step "
                f"{step + 1}, with the sketches {files}. What earlier epochs wrote is kept. Look at "
                "these files, or try a smaller optim.lr, a longer optim.warmup or fp32"
            )
        return dict(zip(LossTerms._fields, terms.mean(dim=0).tolist(), strict=True))

    def _validate(self, epoch: int) -> dict[str, float]:
        run = self.config.run
        if self.held_out is None or (epoch % run.eval_every and epoch != run.epochs):
            return {}
        with self.accelerator.autocast():
            scores = score_split(
                self.accelerator.unwrap_model(self.model),
                self.held_out,
                device=self.accelerator.device,
                batch=run.eval_batch,
            )
        return {f"acc@{k}": accuracy.percent for k, accuracy in scores.accuracy.items()} | {"mrr": scores.mrr}

    def _keep(self, record: EpochRecord) -> None:
        numbers = {k: v for k, v in record.as_row().items() if not isinstance(v, str) and not math.isnan(v)}
        self.accelerator.log(numbers, step=record.epoch)
        self.files.keep_epoch(self.model, self.progress, best=record.best)
        if self.files.anyone(self.files.due)[0]:
            self._save()

    def _save(self) -> None:
        rest = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
        self.files.save(self.model, self.progress, rest)
