"""What the trainer writes: by the first process alone, but all hear of it if it cannot."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from sbirlib.config.config import Config
from sbirlib.errors import InputError
from sbirlib.runs import Run, save_model_folder
from sbirlib.runs.atomic import Owner, RunError, unwritable, write_csv, write_text
from sbirlib.runs.state import Progress, save_state
from sbirlib.training.setup import make_accelerator


class RunFiles:
    """Writes a run folder. All processes must call a method that writes at the same step.

    Raises RunError in all of them if the first cannot write.
    """

    def __init__(self, out: Path, config: Config) -> None:
        out = out.absolute()  # whatever becomes of the working directory
        self.accelerator, self.run, self.config = make_accelerator(config, out), Run(out), config
        self._saved_at, self._saved = (0, 0), time.monotonic()
        self._owner: Owner | None = None

    @property
    def due(self) -> bool:
        """Whether it is time for another checkpoint."""
        return time.monotonic() - self._saved > 60 * self.config.run.save_minutes

    def claim(self, *, overwrite: bool = False, resume: bool = False) -> None:
        """Makes this the only run that writes the folder, until `release`.

        Raises FileExistsError if there is something that this run would replace without being told to.
        """
        self._owner = self._first(lambda: Owner(self.run.path))
        if resume or not self.run.present:
            return
        holds = f"{self.run.path} already holds {', '.join(self.run.present)}"
        if not self.run.is_run:
            raise FileExistsError(f"{holds}, but no run that could be replaced; choose another folder")
        if not overwrite:
            ways = "go on with it by resume (--resume), choose another folder"
            raise FileExistsError(f"{holds}, a run; {ways}, or pass overwrite (--overwrite) to replace it")

    def release(self) -> None:
        """Lets other runs write the folder."""
        if self._owner is not None:
            self._owner.release(begun=self.run.is_run)

    def begin(self, start: dict[str, Any]) -> None:
        """Clears what another run left, and writes what this run begins from."""

        def write() -> None:
            for path in self.run.everything() if self.run.is_run else ():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            write_text(self.run.start_file, yaml.safe_dump(start, sort_keys=False))

        self._first(write)

    def take_up(self, progress: Progress) -> None:
        """Brings history.csv back to where the checkpoint was."""
        self._first(lambda: write_csv(self.run.history_file, progress.rows))

    def keep_epoch(self, model: nn.Module, progress: Progress, *, best: bool) -> None:
        """Writes last/, best/ if this epoch is the best, and the history."""

        def write() -> None:
            bare, queries = self.accelerator.unwrap_model(model), progress.rows[-1]["val_queries"]
            save_model_folder(self.run.path / "last", bare, self.config)
            if best:
                save_model_folder(self.run.path / "best", bare, self.config, queries=queries)
            write_csv(self.run.history_file, progress.rows)

        self._first(write)

    def save(self, model: nn.Module, progress: Progress, rest: dict[str, Any]) -> None:
        """Saves a checkpoint, unless there is one of this step, or the loss is no longer a number."""
        place = (progress.epoch, progress.step)
        if place == self._saved_at or (progress.terms and not torch.stack(progress.terms).isfinite().all()):
            return  # broken weights must not become the newest checkpoint
        rest = rest | {"processes": self.accelerator.num_processes}
        bare = self.accelerator.unwrap_model(model)
        self._first(lambda: save_state(self.run.states, bare, self.config, progress, rest))
        self._saved_at, self._saved = place, time.monotonic()

    def anyone(self, *here: bool) -> tuple[bool, ...]:
        """For each of these questions, whether any process says yes; all get the same answers."""
        if self.accelerator.num_processes == 1:
            return here
        asked = torch.tensor([float(value) for value in here], device=self.accelerator.device)
        return tuple(value > 0 for value in self.accelerator.reduce(asked).tolist())

    def _first(self, write: Callable[[], Any]) -> Any:
        done = error = None
        if self.accelerator.is_main_process:
            try:
                if self._owner is not None:
                    self._owner.check()
                done = write()
            except InputError as caught:
                error = caught
            except OSError as caught:
                error = RunError(unwritable(self.run.path, caught))
        if self.anyone(error is not None)[0]:
            raise error or RunError(f"{self.run.path} cannot be written; the first process says why")
        return done
