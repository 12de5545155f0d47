"""Read run folders back: their curves, and the settings in which they differ."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sbirlib.config.config import Config, knobs
from sbirlib.runs.atomic import RunError, settled
from sbirlib.runs.model import CONFIG

HISTORY = "history.csv"


def find_runs(folder: str | Path) -> list[Path]:
    """Every run below a folder that has finished an epoch, sorted by path; empty if there is none."""
    return sorted(path.parent for path in Path(folder).rglob(HISTORY))


def read_history(run: str | Path) -> dict[str, list[Any]]:
    """The columns of a run's history.csv, one entry an epoch, as `plots.training_curves` takes them.

    Numbers are floats, NaN where nothing was measured. Raises RunError if the file is not there or
    cannot be read.
    """
    path = Path(run) / HISTORY
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
        return {
            name: values if name == "selected_on" else [float(value or "nan") for value in values]
            for name, values in columns.items()
        }
    except OSError:
        raise RunError(f"{path}: no such file; a run writes it after its first epoch") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise RunError(f"{path}: cannot be read ({error}); train again, or leave this run out") from None


def read_config(run: str | Path) -> Config:
    """The configuration of a run folder. Raises RunError if it is not a run, ConfigError if it cannot be read."""
    # The last model has the settings that the run had last: it may have been trained on for longer.
    for folder in (settled(Path(run) / "last"), settled(Path(run) / "best"), Path(run)):
        if (folder / CONFIG).is_file():
            return Config.from_yaml(folder / CONFIG)
    raise RunError(f"{run} is not a run: it has no {CONFIG} in best/ or last/")


def differences(configs: Mapping[str, Config]) -> dict[str, dict[str, Any]]:
    """The fields in which configurations differ, each with its value by name of the configuration."""
    values = {
        name: {field.name: field.default for field in knobs(config)} for name, config in configs.items()
    }
    return {
        field.name: {name: values[name][field.name] for name in configs}
        for field in knobs()
        if len({repr(values[name][field.name]) for name in configs}) > 1
    }


def short_names(runs: Sequence[Path]) -> dict[str, Path]:
    """Runs by the last parts of their path, as many as it takes to tell them apart."""
    runs = list(dict.fromkeys(runs))
    for parts in range(1, max(len(run.parts) for run in runs) + 1) if runs else ():
        names = {"/".join(run.parts[-parts:]): run for run in runs}
        if len(names) == len(runs):
            return names
    return {}


HELD_OUT, TEST_SET, NOTHING = "held-out photos", "TEST SET", "nothing"  # what the checkpoint is chosen on


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
        return {
            "epoch": self.epoch,
            **{f"loss_{k}": v for k, v in self.losses.items()},
            "lr": self.lr,
            "views_per_second": self.views_per_second,
            "seconds": self.seconds,
            **{f"val_{k}": self.validation.get(k, math.nan) for k in ("acc@1", "acc@5", "acc@10", "mrr")},
            "best": int(self.best),
            "selected_on": self.selected_on,
            "skipped": self.skipped,
        }

    def __str__(self) -> str:
        text = (
            f"epoch {self.epoch:3d}  loss {self.losses['total']:.3f}  lr {self.lr:.1e}  "
            f"{self.views_per_second:.0f} views/s  {self.seconds:.1f} s"
        )
        if self.validation:
            where = "TEST" if self.selected_on == TEST_SET else "val"
            text += (
                f"  {where} Acc@1 {self.validation['acc@1']:.1f} %  Acc@5 {self.validation['acc@5']:.1f} %"
            )
        # Where nothing chooses, each epoch is the best so far, which says nothing.
        text += "  best" if self.best and self.validation else ""
        return text + (f"  ({self.skipped} files skipped)" if self.skipped else "")
