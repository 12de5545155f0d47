"""Finished runs of an ablation: read back, compared in pairs, shown in tables."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from sbirlib.errors import InputError, printable
from sbirlib.methods.cards import CARDS
from sbirlib.retrieval.intervals import KS, Difference, bootstrap_accuracy, paired_bootstrap
from sbirlib.runs.atomic import replacing_file, write_csv

RESULT, TABLE = "result.json", "results.csv"
UNTRAINED = -1  # seed of a row that no training made
_SCORED = {"acc@1", "hits@1", "queries", "protocol"}  # what tables and messages take from a score


class RunScore(NamedTuple):
    """One finished run: its variant and seed, the score by name, and the rank of every query.

    `place` is that of the variant in its grid, 0 = what the others are compared with; `sketches` and `photos`
    (q,) name each query and its true photo, `ranks` (q,) are its places; `config` is the run's, as a dict;
    `tested` is the hash of the test split.
    """

    variant: str
    place: int
    seed: int
    score: dict[str, Any]
    sketches: list[str]
    photos: list[str]
    ranks: list[int]
    config: dict[str, Any]
    tested: str


def read_rows(out: str | Path) -> list[RunScore]:
    """Every finished run in `out`, by variant in the order of their grid, then by seed.

    Raises InputError if there is none, or for one that cannot be read.
    """
    rows = [read_row(path) for path in Path(out).glob(f"runs/*/{RESULT}")]
    if not rows:
        raise InputError(f"{out} holds no finished run; see `python -m sbirlib ablate --help`")
    return sorted(rows, key=lambda row: (row.place, row.variant, row.seed))


def compare(out: str | Path, first: str, second: str, k: int = 1) -> Difference:
    """How much better `second` is than `first`: names of variants, or of single runs as `variant@seed`.

    Variants are paired over the seeds that both have, queries over the sketches that both scored. Raises
    InputError for a name that `out` does not hold, if nothing is left to pair, or for queries of other data.
    """
    if k < 1:
        raise InputError(f"k = {k}: Acc@k needs a k of at least 1")
    rows = read_rows(out)
    one, two = pick(rows, first), pick(rows, second)
    seeds = [{row.seed for row in chosen} for chosen in (one, two)]
    if {UNTRAINED} in seeds:
        # What was not trained has no seed, and stands beside every run of the other.
        one, two = one * len(two), two * len(one)
    elif "@" not in first + second:
        one, two = ([row for row in chosen if row.seed in seeds[0] & seeds[1]] for chosen in (one, two))
    if len({row.tested for row in one + two}) > 1:
        roots = " and ".join(sorted({row.config["data"]["root"] for row in one + two}))
        other = f"{first!r} and {second!r} were scored on different pictures ({roots})"
        raise InputError(f"{out}: {other}: queries of one name are not the same, so there is nothing to pair")
    ranks, photos = _shared(one + two)
    if len(one) != len(two) or not photos:
        raise InputError(f"{out}: {first!r} and {second!r} have no seeds or no queries in common")
    return paired_bootstrap(ranks[: len(one)], ranks[len(one) :], photos, k)


def write_tables(out: str | Path) -> None:
    """Writes `results.csv` and `ablation.png` from the finished runs in `out`."""
    from sbirlib.figures.curves import interval_plot  # takes seconds to import

    out, rows = Path(out), read_rows(out)
    write_csv(out / TABLE, [{"variant": row.variant, "seed": row.seed} | row.score for row in rows])
    variants = _by_variant(rows)
    names = [f"{printable(name)} ({len(runs)}){warning(runs)}" for name, runs in variants.items()]
    intervals = zip(*(bootstrap_accuracy(*_shared(runs)) for runs in variants.values()), strict=True)
    points = [[run.score["acc@1"] for run in runs] for runs in variants.values()]
    title = "variant (runs); dots: single runs; bars: 95 % intervals over runs and photos"
    figure = interval_plot(names, *intervals, points=points, title=title)
    with replacing_file(out / "ablation.png") as fresh:
        figure.savefig(fresh, dpi=150)


def summary(out: str | Path) -> str:
    """A row per variant: Acc@1/5/10 over its runs with intervals, and what it takes.

    Below it, the difference of each variant to the first.
    """
    import pandas as pd  # slow to import

    rows = read_rows(out)
    variants, first = _by_variant(rows), rows[0].variant
    names = [f"{printable(name)}{warning(runs)}" for name, runs in variants.items()]
    table = pd.DataFrame(map(_line, variants.values()), index=names).dropna(axis=1, how="all")
    lines = table.to_string(na_rep="-").splitlines()
    takes = "; minutes of training of a run" if "minutes" in table else ""
    lines.append(f"in percent, with 95 % intervals over runs and photos{takes}")
    for name in dict.fromkeys(row.config.get("method", "") for row in rows):
        if name in CARDS and "reconstruction" in CARDS[name].paper.source:
            lines.append(f"{name}: {CARDS[name].paper.source}")
    lines, width = [*lines, "", f"Acc@1 less that of {first!r}, paired:"], max(map(len, names))
    for (name, runs), title in zip(variants.items(), names, strict=True):
        seeds = {run.seed for run in runs}
        if len({run.tested for run in [*runs, *variants[first]]}) > 1:
            lines.append(f"{title:<{width}}  not compared: it was scored on other data")
        elif name != first and (UNTRAINED in seeds or seeds & {run.seed for run in variants[first]}):
            lines.append(f"{title:<{width}}  {compare(out, first, name)}")
    return "\n".join(map(printable, [*lines, "", *dict.fromkeys(row.score["protocol"] for row in rows)]))


def _line(runs: Sequence[RunScore]) -> dict[str, Any]:
    """A variant's row of the summary."""
    cells: dict[str, Any] = {"runs": len(runs), "queries": len(runs[0].ranks)}
    for k in KS:
        percent, low, high = bootstrap_accuracy(*_shared(runs), k)
        interval = "(one photo)" if math.isnan(low) else f"({low:.1f}-{high:.1f})"
        cells[f"Acc@{k}"] = f"{percent:.1f} {interval}"
    for name, key, share in (("minutes", "seconds", 60), ("ms a query", "ms_query", 1)):
        values = [run.score[key] / share for run in runs if run.score.get(key)]
        cells[name] = f"{np.mean(values):.1f}" if values else None
    return cells


def read_row(path: Path) -> RunScore:
    """What `_score` left."""
    try:
        row = TypeAdapter(RunScore).validate_json(path.read_bytes())
        if len({len(row.sketches), len(row.photos), len(row.ranks)}) > 1 or _SCORED - row.score.keys():
            raise ValueError("its queries or its score are not complete")
        return row
    except ValueError as error:
        why = "{msg} {loc}".format(**error.errors()[0]) if isinstance(error, ValidationError) else error
        raise InputError(f"{path} cannot be read ({why}); remove it, and its run is done again") from None


def warning(runs: Sequence[RunScore]) -> str:
    """What every table and figure must say: the test set chose, or a method lacked photos that it wants."""
    lacking = " (no unlabelled)" if any(run.score.get("unlabelled") == 0 for run in runs) else ""
    chosen = any("CHOSEN ON" in run.score["protocol"] for run in runs)
    return f"{lacking} [TEST SET chose the epoch]" if chosen else lacking


def _by_variant(rows: Sequence[RunScore]) -> dict[str, list[RunScore]]:
    return {name: list(runs) for name, runs in itertools.groupby(rows, key=lambda row: row.variant)}


def _shared(runs: Sequence[RunScore]) -> tuple[np.ndarray, list[str]]:
    """Ranks (runs, q) and photos (q,) of the queries that all runs have: files may have been left out."""
    by_name = [dict(zip(run.sketches, run.ranks, strict=True)) for run in runs]
    photo_of = {name: photo for run in runs for name, photo in zip(run.sketches, run.photos, strict=True)}
    names = [name for name in sorted(photo_of) if all(name in found for found in by_name)]
    ranks = np.array([[found[name] for name in names] for found in by_name])
    return ranks, [photo_of[name] for name in names]


def pick(rows: Sequence[RunScore], name: str) -> list[RunScore]:
    """The runs of a variant, or the one that is called variant@seed. Raises InputError if there is none."""
    chosen = [row for row in rows if name in (row.variant, f"{row.variant}@{row.seed}")]
    if not chosen:
        known = ", ".join(dict.fromkeys(row.variant for row in rows))
        raise InputError(f"no finished run {name!r}; variants: {known} (or one run of them as variant@seed)")
    return chosen
