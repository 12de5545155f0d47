"""The result of each epoch of a run: one record, and one row of history.csv."""

import csv
import math
from pathlib import Path
from typing import Any, NamedTuple

from sbirlib.runs.atomic import RunError

# What is searched after an epoch.
HELD_OUT, TEST_SET, NOTHING = "held-out photos", "TEST SET", "nothing"
PSEUDO = "held-out photos, by sketches made of them"
_SHORT = {TEST_SET: "TEST", PSEUDO: "val (no real sketch)"}


class EpochRecord(NamedTuple):
    """One epoch, counted from 1: mean losses by term, learning rate at its end, speed, and score.

    `validation` has acc@1, acc@5, acc@10 (percent) and mrr of the photos that are searched after an epoch,
    and is empty in epochs without a search; `selected_on` names them, such as "held-out photos";
    `queries` counts their sketches; `best` tells whether this epoch became RUN/best; `skipped` counts the
    files left out of the training data because of faults.
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
    queries: int = 0

    def as_row(self) -> dict[str, Any]:
        """The record as one flat row of history.csv."""
        return {
            "epoch": self.epoch, **{f"loss_{k}": v for k, v in self.losses.items()},
            "lr": self.lr, "views_per_second": self.views_per_second, "seconds": self.seconds,
            **{f"val_{k}": self.validation.get(k, math.nan) for k in ("acc@1", "acc@5", "acc@10", "mrr")},
            "val_queries": self.queries, "best": int(self.best), "selected_on": self.selected_on,
            "skipped": self.skipped,
        }  # fmt: skip

    def __str__(self) -> str:
        speed = f"{self.views_per_second:.0f} views/s  {self.seconds:.1f} s"
        text = f"epoch {self.epoch:3d}  loss {self.losses['total']:.3f}  lr {self.lr:.1e}  {speed}"
        if self.validation:
            where, first, fifth = self.selected_on, self.validation["acc@1"], self.validation["acc@5"]
            text += f"  {_SHORT.get(where, 'val')} Acc@1 {first:.1f} %  Acc@5 {fifth:.1f} %"
            text += f" of {self.queries}"
        text += "  best" if self.best else ""
        return text + (f"  ({self.skipped} files skipped)" if self.skipped else "")


_COUNTS = ("epoch", "seconds", "best", "skipped")  # which every epoch has
_COLUMNS = {*_COUNTS, "selected_on", "val_acc@1", "val_acc@5", "val_acc@10"}  # and every version wrote


def read_history(path: Path) -> dict[str, list[Any]]:
    """The columns of a history.csv, one entry per epoch. Raises RunError if it cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns: dict[str, list[Any]] = {
            name: [row[name] if name == "selected_on" else float(row[name] or "nan") for row in rows]
            for name in (rows[0] if rows else ())
        }
        if missing := _COLUMNS - columns.keys():
            raise ValueError(f"it holds no {', '.join(sorted(missing))}" if rows else "it holds no epoch")
        if not all(math.isfinite(value) for name in _COUNTS for value in columns[name]):
            raise ValueError("an epoch in it is not complete")
        return columns
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; a run writes it after its first epoch") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise RunError(f"{path}: cannot be read ({error}); train again, or leave this run out") from None
