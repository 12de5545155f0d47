"""The trainer, on Hugging Face Accelerate: a record for each epoch, so that a notebook can plot and stop."""

import dataclasses
import math
import signal
import threading
import time
import weakref
from collections.abc import Generator, Iterator, MutableMapping
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from sbirlib.config.config import Config
from sbirlib.data import Epoch, PairFolder, load_data, training_folder
from sbirlib.errors import ConfigError, InputError
from sbirlib.layers.chance import drawing
from sbirlib.methods import METHODS, Method, build
from sbirlib.retrieval.scores import score_split
from sbirlib.runs import Progress, RunError, load_state
from sbirlib.runs.records import HELD_OUT, NOTHING, PSEUDO, TEST_SET, EpochRecord, beginning
from sbirlib.training.files import RunFiles
from sbirlib.training.setup import check_exactness, lr_factor, make_optimizer, stage_ends
from sbirlib.training.signals import Stop, held, noted
from sbirlib.training.steps import backward

UNSCORED = (-1.0, -1.0)  # validation Acc@1 and mean reciprocal rank before the first search
# Iterations that have not ended: where they write, and the thread that began them.
_UNFINISHED: MutableMapping[Generator[EpochRecord], tuple[RunFiles, int]] = weakref.WeakKeyDictionary()


class TrainingError(InputError):
    """Training cannot go on; the message says where it was and what to try."""


def train(
    pairs: PairFolder | str | Path, config: Config, *, out: str | Path, overwrite: bool = False,
    resume: bool = False, stop: Stop | None = None,
) -> Iterator[EpochRecord]:  # fmt: skip
    """Trains the method of `config` on the train split and yields a record after each epoch.

    `out` becomes a run folder (`runs.folder.Run`). However the iteration ends, what is there is kept: closing
    it, Ctrl-C or `stop` leaves a checkpoint, and `resume=True` goes on from the newest one as if nothing had
    happened. In several processes (`accelerate launch`) the batch of a step is that of all of them together.

    Folder, data and model are checked before this returns: FileExistsError, RunError, PairError,
    BackboneError, MSTRError, ConfigError. While iterating, TrainingError if the loss is no longer a number,
    RunError if the run cannot be written. `out` is this iteration's alone until it ends; trainings side by
    side in a process need one device and precision.
    Source: paper, section 4; the validation split by photo is the kit's own.
    """
    data = config.data  # the configuration decides: it is what the run records
    if not isinstance(pairs, PairFolder) or pairs.pattern != data.pattern or data.sketches != "pairs":
        root = pairs.root if isinstance(pairs, PairFolder) else pairs
        pairs = training_folder(root, data.pattern, data.sketches)
    config = config.updated({"data.root": str(pairs.root)})
    if resume and overwrite:
        raise ConfigError("resume goes on with a run, overwrite starts it again: choose one of them")
    for left, (files, thread) in list(_UNFINISHED.items()):
        # A notebook keeps the iteration of a cell that an error ended.
        if thread == threading.get_ident() and files.run.path.resolve() == Path(out).resolve():
            left.close()
            files.release()  # what was never begun does not end
    files = RunFiles(Path(out), config)
    with ExitStack() as unless_begun:
        unless_begun.callback(files.release)
        files.claim(overwrite=overwrite, resume=resume)
        trainer = Trainer(pairs, files, stop, fetch=not resume)
        if resume:
            trainer.resume()
        epochs = trainer.epochs()
        _UNFINISHED[epochs] = files, threading.get_ident()
        unless_begun.pop_all()
    return epochs


class Trainer:
    """Everything one run needs; made and driven by `train`."""

    def __init__(
        self, pairs: PairFolder, files: RunFiles, stop: Stop | None = None, *, fetch: bool = True
    ) -> None:
        self.files, self.stop, self.config = files, stop or Stop(), files.config
        config, self.accelerator, self.out = files.config, files.accelerator, files.run.path
        needs = METHODS[config.method].needs
        needs.check(config.method, pairs, config)
        self.data, self.held_out, self.skipped = load_data(pairs, config, needs.unlabelled)
        self._resized = lru_cache(1)(self.data.resized)  # for all epochs of that size
        chosen_by = PSEUDO if self.held_out and self.held_out.made.any() else HELD_OUT
        chosen_by = TEST_SET if config.run.protocol == "released" else chosen_by
        self.selected_on = NOTHING if self.held_out is None else chosen_by
        self.chooses = config.chooses_best and self.held_out is not None
        processes = self.accelerator.num_processes
        with drawing(config.run.seed):
            model = build(config, fetch=fetch)  # a checkpoint replaces what would be fetched
        check_exactness(model, config, processes)
        model.labels = torch.tensor([photo.attributes for photo in self.data.split.photos])
        self.bf16 = self.accelerator.mixed_precision == "bf16"
        parts = (self.data, self.held_out, self.data.unlabelled)
        self.start = beginning(model, config, [part.split for part in parts if part])
        self.batch_size = min(config.optim.batch_size * processes, len(self.data.sketches))
        if self.batch_size % processes:
            few = f"{len(self.data.sketches)} sketches are fewer than a batch of {config.optim.batch_size}"
            raise ConfigError(f"{few} in each of {processes} processes; use fewer")
        self.steps = len(self.data.sketches) // self.batch_size
        self.stages, self.learning = model.stages(), [p for p in model.parameters() if p.requires_grad]
        self.ends = stage_ends(self.stages, config.run.epochs)
        self.model: nn.Module = self.accelerator.prepare(model)
        self._begin_stage(epoch=1)
        self.progress, self.resumed = Progress(), False

    @property
    def method(self) -> Method:
        """The model without Accelerate around it."""
        return self.accelerator.unwrap_model(self.model)

    def resume(self) -> None:
        """Takes up the newest checkpoint. Raises RunError if there is none, or it does not fit."""
        began = self.files.run.start()
        progress, rest = load_state(self.files.run.states, self.config, self.method)
        for name, now in self.start["data"].items():
            before = began.get("data", {}).get(name)
            if before != now:
                differs = f"its data had {name} {before}, {self.config.data.root} has {now}"
                advice = "Resume with the data of before, or start another run"
                raise RunError(f"{self.out} cannot be resumed: {differs}. {advice}")
        self.start, self.progress, self.resumed = began, progress, True
        progress.terms = [term.to(self.accelerator.device) for term in progress.terms]
        self._begin_stage(progress.epoch)
        self.optimizer.load_state_dict(rest["optimizer"])
        self.schedule.load_state_dict(rest["schedule"])
        before, now = rest["processes"], self.accelerator.num_processes
        if before != now:
            raise RunError(f"{self.out} was trained in {before} processes, not {now}; start as many")

    def _begin_stage(self, epoch: int) -> None:
        """Optimiser and learning rate of the stage that this epoch belongs to."""
        place = next((i for i, end in enumerate(self.ends) if epoch <= end), len(self.ends) - 1)
        stage, begin = self.stages[place], self.ends[place - 1] if place else 0
        parts = stage.parts[0] if len(stage.parts) == 1 else nn.ModuleList(stage.parts)
        chosen = {id(weight) for weight in parts.parameters()}
        for weight in self.learning if len(self.stages) > 1 else ():
            weight.requires_grad_(id(weight) in chosen)
        self.method.stage = stage.name
        # In fp32 nothing is changed for speed: it is what the fast path is compared with.
        optim = dataclasses.replace(self.config.optim, lr=stage.rate * self.config.optim.lr)
        optimizer = make_optimizer(parts, optim, fused=self.bf16)
        factor = lr_factor(self.config.optim, self.steps, self.ends[place] - begin)
        self.schedule = LambdaLR(optimizer, factor)
        self.optimizer = self.accelerator.prepare(optimizer)
        if place:
            self.method.enter(stage.name, self.data)

    def epochs(self) -> Generator[EpochRecord]:
        """Runs all epochs; closing the iterator ends the run in good order."""
        try:
            if self.resumed:
                self.files.take_up(self.progress)
            else:
                self.files.begin(self.start)
            self.accelerator.init_trackers("tensorboard")
            while self.progress.epoch <= self.config.run.epochs and not self.files.anyone(self.stop.asked)[0]:
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
            self.files.release()

    def plan(self, epoch: int) -> Epoch:
        """The order and the views of an epoch, counted from 1."""
        run, views, sisters = self.config.run, self.method.second_views, self.method.needs.sisters
        # Of a few epochs each takes the last size of its part, so that the last is trained in any case.
        share = run.sizes[math.ceil(epoch * len(run.sizes) / run.epochs) - 1] if run.sizes else 1
        data, config = self._resized(round(share * self.method.image_size)), self.config.data
        return Epoch(data, config, seed=run.seed, epoch=epoch, second_views=views, sisters=sisters)

    def _epoch(self) -> EpochRecord | None:
        """Trains to the end of the current epoch; None, and a checkpoint, if asked to stop before."""
        progress, record = self.progress, None
        plan, left = self.plan(progress.epoch), range(progress.step, self.steps)
        self.model.train()
        what = f"epoch {progress.epoch}/{self.config.run.epochs}"
        silent = None if self.accelerator.is_main_process else True
        steps = tqdm(left, desc=what, unit="step", disable=silent, leave=False)
        with noted(signal.SIGINT) as interrupted:
            for step in steps:
                self.step(plan, step)
                stopped, due = self.files.anyone(self.stop.now or interrupted.is_set(), self.files.due)
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

    def step(self, plan: Epoch, step: int) -> None:
        """One step of the optimiser on the pairs that `plan` gives it."""
        config, progress, started = self.config, self.progress, time.perf_counter()
        rows = plan.rows(step, self.batch_size).chunk(self.accelerator.num_processes)
        own = rows[self.accelerator.process_index]
        # Counted over all epochs: a short one might else have them in each of its steps.
        turn = (self.steps * (progress.epoch - 1) + step) % self.method.second_every
        plan.second_views = self.method.second_views and turn == 0
        self.method.view_size = plan.data.photos.shape[-1]
        # Weights are the same in every process, dropout is not.
        key = (config.run.seed, progress.epoch, step, self.accelerator.process_index)
        terms = backward(self.accelerator, self.model, plan, own, key, config.optim.chunk)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), config.optim.clip)
        self.optimizer.step()
        self.method.after_step()
        self.optimizer.zero_grad()
        self.schedule.step()
        # A gradient that is not a number spoils the weights even if the loss is one.
        progress.terms.append(torch.where(norm.isfinite(), terms, torch.nan))
        progress.step += 1
        progress.seconds += time.perf_counter() - started

    def _finish(self, plan: Epoch) -> EpochRecord:
        """Scores and keeps an epoch whose steps are all done."""
        progress, started = self.progress, time.perf_counter()
        losses = self._mean_terms(plan)
        seconds = progress.seconds + time.perf_counter() - started
        views = self.method.passes * self.steps * self.batch_size
        validation = self.validate(progress.epoch)
        score = (validation["acc@1"], validation["mrr"]) if validation else UNSCORED
        # Until a first search the latest weights are the best, and a run that stops then needs some.
        # Of equals the later: it has learnt longer.
        best = self.chooses and (score >= progress.best or progress.best == UNSCORED)
        queries, lr = len(self.held_out.sketches) if self.held_out else 0, self.schedule.get_last_lr()[0]
        record = EpochRecord(
            progress.epoch, losses, float(lr), views / seconds, seconds, validation, best, self.selected_on,
            self.skipped, queries,
        )  # fmt: skip
        row = record.as_row()
        rows = [*progress.rows, row]
        self.progress = Progress(epoch=progress.epoch + 1, best=max(progress.best, score), rows=rows)
        numbers = {k: v for k, v in row.items() if not isinstance(v, str) and not math.isnan(v)}
        self.files.keep_epoch(self.model, self.progress, best=best)
        self.accelerator.log(numbers, step=record.epoch)
        if progress.epoch in self.ends[:-1]:
            # A checkpoint of the next epoch holds the optimiser of the next stage.
            self._begin_stage(progress.epoch + 1)
        if self.files.anyone(self.files.due)[0]:
            self._save()
        return record

    def _mean_terms(self, plan: Epoch) -> dict[str, float]:
        # Read once per epoch: a look at every step would make the device wait.
        terms = torch.stack(self.progress.terms)
        finite = terms.isfinite().all(dim=1)
        if not finite.all():
            step = int((~finite).int().argmax())
            rows = plan.rows(step, self.batch_size).tolist()
            files = ", ".join(self.data.split.sketches[row].path.name for row in rows)
            where = f"in epoch {self.progress.epoch}, step {step + 1}, with the sketches {files}"
            ways = "Look at these files, or try a smaller optim.lr, a longer optim.warmup or fp32"
            what = f"the loss or its gradient is no longer a number {where}"
            raise TrainingError(f"{what}. What earlier epochs wrote is kept. {ways}")
        return dict(zip(self.method.terms, terms.mean(dim=0).tolist(), strict=True))

    def validate(self, epoch: int) -> dict[str, float]:
        """Scores of the photos that choose the checkpoint; empty if this epoch is not scored."""
        run = self.config.run
        if self.held_out is None or (epoch % run.eval_every and epoch != run.epochs):
            return {}
        # Layers of the released code keep their dropout when they are scored.
        with self.accelerator.autocast(), drawing(run.seed, epoch, device=self.accelerator.device):
            scores = score_split(self.method, self.held_out, batch=run.eval_batch)
        return {f"acc@{k}": accuracy.percent for k, accuracy in scores.accuracy.items()} | {"mrr": scores.mrr}

    def _save(self) -> None:
        rest = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
        with held(signal.SIGINT):
            self.files.save(self.model, self.progress, rest)
