"""One run folder: where everything is in it, reading it back, and telling it on one page."""

import math
import shlex
from pathlib import Path
from textwrap import indent
from typing import Any, Literal

import yaml

from sbirlib import methods  # whose names are loaded late: a report needs no torch
from sbirlib.config import Config, read_yaml
from sbirlib.errors import ConfigError, printable
from sbirlib.runs.atomic import RunError, settled
from sbirlib.runs.records import CHECKSUMS, CONFIG, WEIGHTS, checkpoints, read_history


class Run:
    """A folder that `train` writes: `best/` and `last/` (a model each), `state/` with checkpoints to go on
    from, `history.csv`, `start.yaml` with what the run began from, and the tracker's files.

    One process at a time writes it, its `Owner`; reading changes nothing, and raises a RunError that names
    the file and says what to do.
    """

    OUTPUTS = ("best", "last", "state", "history.csv", "tensorboard", "start.yaml")
    MEASURED = ("test.json", "result.json")  # what other commands say of its models

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.history_file, self.start_file = self.path / "history.csv", self.path / "start.yaml"
        self.states = self.path / "state"

    def folder(self, which: str) -> Path:
        """`best/` or `last/`."""
        return settled(self.path / which)

    @property
    def chosen(self) -> Literal["best", "last"]:
        """Which model the run is for: best, unless the last was kept without choosing."""
        return "best" if self.folder("best").is_dir() else "last"

    @property
    def present(self) -> list[str]:
        """The names of a run's outputs that are there."""
        return [name for name in self.OUTPUTS if settled(self.path / name).exists()]

    @property
    def is_run(self) -> bool:
        """Whether `train` has written here, not somebody whose folders have the same names."""
        parts = [self.folder("best") / CONFIG, self.folder("last") / CONFIG]
        parts += [checkpoint / CHECKSUMS for checkpoint in self.checkpoints]
        return any(path.is_file() for path in (self.start_file, *parts))

    def everything(self) -> list[Path]:
        """The run's outputs that are there, with what was measured of it and what an interruption left."""
        half = [f".{name}.{end}" for name in self.OUTPUTS[:2] for end in ("new", "old")]
        places = [self.path / name for name in (*half, *self.MEASURED, *self.OUTPUTS)]
        return [place for place in places if place.exists()]

    @property
    def epochs(self) -> int:
        """The number of epochs done."""
        return len(self.history()["epoch"]) if self.history_file.is_file() else 0

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints to go on from, oldest first."""
        return checkpoints(self.states)

    def model(self, which: Literal["best", "last"] | None = None) -> "methods.Method":
        """The trained model, in eval mode on the CPU; `model.config` is its Config.

        `which` is "best" (highest validation score) or "last", by default what `chosen` says. The folder may
        also be one of the two itself.
        """
        from sbirlib.runs.model import load_model_folder

        which = which or self.chosen
        folder = self.path if (self.path / WEIGHTS).is_file() else self.folder(which)
        missing = [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]
        if missing:
            lacks = f"{which}/ has no {' and no '.join(missing)}" if self.path.exists() else "no such folder"
            advice = f"`python -m sbirlib train --out {self.path}` makes one"
            raise RunError(f"{self.path} is not a run: {lacks}; {advice}")
        return load_model_folder(folder)

    def config(self) -> Config:
        """The configuration of the last model: a resumed run may have been given more epochs."""
        for folder in (self.folder("last"), self.folder("best"), self.path):
            if (folder / CONFIG).is_file():
                return Config.from_yaml(folder / CONFIG)
        raise RunError(f"{self.path} is not a run: it has no {CONFIG} in best/ or last/")

    def history(self) -> dict[str, list[Any]]:
        """The columns of history.csv, one entry per epoch: floats, NaN where nothing was measured."""
        return read_history(self.history_file)

    def start(self) -> dict[str, Any]:
        """What the run began from. Raises RunError if start.yaml is missing or not a mapping."""
        try:
            start = read_yaml(self.start_file)
        except FileNotFoundError:
            raise RunError(f"{self.path} has no start.yaml: it is not a run; train again") from None
        except (ConfigError, OSError) as error:
            raise RunError(str(error)) from None
        if not isinstance(start, dict):
            raise RunError(f"{self.start_file} does not hold what a run began from")
        return start

    def saved(self) -> tuple[Config, int]:
        """Of the newest whole checkpoint: the configuration, and the epoch, from 1, that it goes on in."""
        from sbirlib.runs import state

        content = state.newest(self.states)[1]
        return Config.from_dict(content["config"]), content["progress"]["epoch"]


def load_run(run: str | Path, which: Literal["best", "last"] | None = None) -> "methods.Method":
    """The trained model of a run folder, as `Run.model` gives it."""
    return Run(run).model(which)


def describe(run: str | Path) -> str:
    """A run as plain text on one page: result, settings other than the paper's, and what the run began from.

    Raises RunError if `run` is not a run, or has not finished an epoch.
    """
    place = Run(run)
    history, config = place.history(), place.config()
    paper = Config().updated({"method": config.method}).flat()
    settings = [f"  {name} = {value}" for name, value in config.flat().items() if value != paper[name]]
    parts = [f"Run {place.path}, method {config.method}", *_result(place, config, history), ""]
    parts += ["Settings that differ from the paper's defaults:", *settings, ""]
    start = yaml.safe_dump(place.start(), sort_keys=False, allow_unicode=True, width=math.inf)
    return "\n".join(map(printable, [*parts, "Began from:", *indent(start, "  ").splitlines()]))


def _result(run: Run, config: Config, history: dict[str, list[Any]]) -> list[str]:
    epochs, minutes = len(history["epoch"]), sum(history["seconds"]) / 60
    lines = [f"{epochs} of {config.run.epochs} epochs, {minutes:.1f} minutes of training"]
    if epochs < config.run.epochs and run.checkpoints:
        lines.append(f"goes on with: python -m sbirlib train --out {shlex.quote(str(run.path))} --resume")
    chosen = max((row for row in range(epochs) if history["best"][row]), default=epochs - 1)
    percent = {k: history[f"val_acc@{k}"][chosen] for k in (1, 5, 10)}
    scores = ", ".join(f"Acc@{k} {value:.1f} %" for k, value in percent.items() if not math.isnan(value))
    queries, where = history["val_queries"][-1], history["selected_on"][chosen]
    searched = f"{queries:.0f} sketches of {where}" if queries else where
    how = f"chosen on {searched}" if history["best"][chosen] else f"the last; on {searched}"
    line = f"kept epoch {int(history['epoch'][chosen])}, {how}"
    lines.append(f"{line}: {scores}" if scores else line)
    if skipped := int(history["skipped"][-1]):
        lines.append(f"{skipped} files of the training data were left out because of faults")
    return lines
