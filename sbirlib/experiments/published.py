"""Published tables and training curves, to stand beside a run of one's own."""

from pathlib import Path
from typing import Any

from sbirlib.errors import InputError

FOLDER = Path(__file__).resolve().parent / "papers"


def results(dataset: str | None = None) -> Any:
    """What was published on ClothesV1, ChairV2, ShoeV2 (the ARNet paper), ShoeV1, ChairV1, HandbagV1, or all.

    A table of method, venue and acc1, acc5, acc10 in percent, NaN where none is given, and the number of
    queries, NA where it is not stated; `kit` is the kit's name of the method, if it has it. Raises InputError
    for other data. `papers/README.md` says where each was printed.
    """
    return _rows("results.csv", {} if dataset is None else {"dataset": dataset})


def training_curve(dataset: str, method: str = "ARNet+MSTR") -> Any:
    """The published log of "ARNet basic" or "ARNet+MSTR", as a table: test_acc1 in percent by epoch.

    Chair-V2 was scored on 281 queries, as the released code's file pattern finds them. Raises InputError for
    an unknown pair.
    """
    return _rows("training_curves.csv", {"dataset": dataset, "method": method})


def _rows(name: str, wanted: dict[str, str]) -> Any:
    """The rows of a file with these values, as a table. Raises InputError if there is none."""
    import pandas as pd  # slow to import

    rows = pd.read_csv(FOLDER / name, dtype={"queries": "Int64"})
    chosen = rows[(rows[list(wanted)] == list(wanted.values())).all(axis=1)]
    if len(chosen):
        return chosen.reset_index(drop=True)
    known = sorted({" ".join(row) for row in rows[list(wanted)].to_numpy()})
    raise InputError(f"nothing published about {' '.join(wanted.values())!r}; known: {', '.join(known)}")
