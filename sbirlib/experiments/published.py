"""The paper's tables and training curves, to stand beside a run of one's own."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sbirlib.errors import InputError

FOLDER = Path(__file__).resolve().parent / "papers"


class Result(NamedTuple):
    """One row of the paper's tables; Acc@1, Acc@5, Acc@10 in percent, NaN where none is given."""

    dataset: str
    method: str
    venue: str
    acc1: float
    acc5: float
    acc10: float


class Curve(NamedTuple):
    """Acc@1 on the test set, in percent, by epoch, of one published training run; arrays (epochs,)."""

    epoch: np.ndarray
    test_acc1: np.ndarray


def results(dataset: str) -> list[Result]:
    """The paper's table of one data set: ClothesV1, ChairV2 or ShoeV2. Raises InputError for another."""
    rows = [
        Result(
            row["dataset"],
            row["method"],
            row["venue"],
            *(float(row[name] or math.nan) for name in ("acc1", "acc5", "acc10")),
        )
        for row in _read("results.csv")
    ]
    return _known([row for row in rows if row.dataset == dataset], dataset, {row.dataset for row in rows})


def training_curve(dataset: str, method: str = "ARNet+MSTR") -> Curve:
    """The published log of "ARNet basic" or "ARNet+MSTR". Raises InputError for an unknown pair.

    Chair-V2 was scored on 281 queries, as the released code's file pattern finds them.
    """
    rows = _read("training_curves.csv")
    chosen = [row for row in rows if (row["dataset"], row["method"]) == (dataset, method)]
    _known(chosen, f"{dataset} {method}", {f"{row['dataset']} {row['method']}" for row in rows})
    return Curve(
        np.array([int(row["epoch"]) for row in chosen]), np.array([float(row["test_acc1"]) for row in chosen])
    )


def _known(chosen: list, wanted: str, known: set[str]) -> list:
    if not chosen:
        raise InputError(f"nothing published about {wanted!r}; known: {', '.join(sorted(known))}")
    return chosen


def _read(name: str) -> list[dict[str, str]]:
    path = FOLDER / name
    if not path.is_file():
        raise InputError(
            f"{path}: not found; the published numbers come with a clone of the project, "
            "installed with pip install -e ."
        )
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
