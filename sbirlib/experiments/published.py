"""Published tables and training curves, to stand beside a run of one's own."""

import csv
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from sbirlib.errors import InputError

FOLDER = Path(__file__).resolve().parent / "papers"
T = TypeVar("T")


class PublishedResult(NamedTuple):
    """One row of a table; Acc@1, Acc@5, Acc@10 in percent, NaN where none is given; 0 queries: not stated."""

    dataset: str
    method: str
    venue: str
    acc1: float
    acc5: float
    acc10: float
    queries: int = 0


class Curve(NamedTuple):
    """Acc@1 on the test set, in percent, by epoch, of one published training run; arrays (epochs,)."""

    epoch: np.ndarray
    test_acc1: np.ndarray


def results(dataset: str | None = None) -> list[PublishedResult]:
    """The table of ClothesV1, ChairV2, ShoeV2 (of the ARNet paper), ShoeV1, ChairV1 or HandbagV1.

    None gives all. Raises InputError for another. `papers/README.md` says where each was printed.
    """
    rows = [
        PublishedResult._make((name, method, venue, *(float(v or "nan") for v in values), int(count or 0)))
        for name, method, venue, *values, count in (row.values() for row in _read("results.csv"))
    ]
    chosen = [row for row in rows if dataset in (None, row.dataset)]
    return _known(chosen, dataset, {row.dataset for row in rows})


def training_curve(dataset: str, method: str = "ARNet+MSTR") -> Curve:
    """The published log of "ARNet basic" or "ARNet+MSTR". Raises InputError for an unknown pair.

    Chair-V2 was scored on 281 queries, as the released code's file pattern finds them.
    """
    rows = _read("training_curves.csv")
    chosen = [row for row in rows if (row["dataset"], row["method"]) == (dataset, method)]
    _known(chosen, f"{dataset} {method}", {f"{row['dataset']} {row['method']}" for row in rows})
    epochs, accuracies = [int(row["epoch"]) for row in chosen], [float(row["test_acc1"]) for row in chosen]
    return Curve(np.array(epochs), np.array(accuracies))


def _known(chosen: list[T], wanted: str | None, known: set[str]) -> list[T]:
    if not chosen:
        raise InputError(f"nothing published about {wanted!r}; known: {', '.join(sorted(known))}")
    return chosen


def _read(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
