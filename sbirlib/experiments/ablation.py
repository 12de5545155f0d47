"""Ablations: variants of a configuration trained over seeds, scored on the same queries, compared in pairs.

Every finished run leaves its ranks in a file of its own, so a grid that was stopped goes on where it
was, processes with different seeds may share one folder, and any two rows can be compared afterwards.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate import PartialState
from pydantic import TypeAdapter

from sbirlib.config.config import Config, differing_settings
from sbirlib.data.pairs import PairFolder
from sbirlib.errors import ConfigError, InputError, first_line
from sbirlib.experiments.grids import Variant
from sbirlib.methods import METHODS, build
from sbirlib.methods.base import Method
from sbirlib.retrieval.intervals import Difference, Estimate, bootstrap_accuracy, paired_bootstrap
from sbirlib.retrieval.scores import evaluate
from sbirlib.runs.atomic import replacing_file
from sbirlib.runs.folder import Run
from sbirlib.runs.model import load_frozen
from sbirlib.training.trainer import TrainingError, train

RESULT = "result.json"
_SCORED = {"acc@1", "hits@1", "queries", "protocol"}  # what tables and messages take from a score
UNTRAINED = -1  # the seed of a row that no training made
_LAST = 10**6  # its place: never what others are compared with


class RunScore(NamedTuple):
    """One finished run: its variant and seed, the score by name, and the rank of every query.

    `place` is that of the variant in its grid, 0 = what the others are compared with; `sketches` and
    `photos` (q,) name each query and its true photo, `ranks` (q,) are its places.
    """

    variant: str
    place: int
    seed: int
    score: dict[str, Any]
    sketches: list[str]
    photos: list[str]
    ranks: list[int]


def ablate(
    base: Config, variants: Sequence[Variant], seeds: Sequence[int], *, out: str | Path
) -> Iterator[RunScore]:
    """Trains and scores on the test split every variant with every seed that `out` does not hold yet.

    Yields a row for each, done before or now; `out` gets `runs/`, `results.csv` with one row a run,
    and `ablation.png`. A run that was stopped half-way goes on from its checkpoint. Before anything is trained,
    data and models of all variants are tried: raises ConfigError for a change that does not fit,
    InputError if `out` holds runs of that variant with another configuration, and what `train` does.
    A training that diverges is passed over, and named in a TrainingError at the end.
    """
    out = Path(out)
    jobs = [
        _Job(
            variant,
            place,
            seed,
            base.updated({**variant.changes, "run.seed": seed}),
            _folder(out, variant, seed),
        )
        for seed in seeds
        for place, variant in enumerate(variants)
    ]
    _check(out, jobs)
    diverged = []
    for job in jobs:
        try:
            row = _finished(job) or _run(job)
        except TrainingError as error:
            diverged.append(f"{job.folder.name}: {error}")
            continue
        write_tables(out)
        yield row
    if diverged:
        raise TrainingError("; ".join(diverged))


def score_frozen(base: Config, backbone: str, *, weights: str | Path = "", out: str | Path) -> RunScore:
    """Adds the row of a timm backbone that nobody trained, scored on the data of `base`.

    `weights` is a local file instead of the published ones. The row has no seed: compared with a
    variant, it stands beside each of its runs. Raises what `load_frozen` and `evaluate` do, and
    InputError if `out` holds that row for other data.
    """
    out = Path(out)
    job = _Job(
        Variant(f"frozen {backbone}", {}),
        _LAST,
        UNTRAINED,
        base,
        _folder(out, Variant(f"frozen {backbone}", {}), UNTRAINED),
    )
    row = _finished(job)
    if row is not None and _read(job.folder / RESULT)["config"]["data"] != base.to_dict()["data"]:
        raise InputError(
            f"{job.folder} was scored with other settings of the data; choose another --out, or remove it"
        )
    if row is None:
        job.folder.mkdir(parents=True, exist_ok=True)
        row = _score(job, load_frozen(backbone, weights=weights), 0.0)
    write_tables(out)
    return row


class _Job(NamedTuple):
    variant: Variant
    place: int
    seed: int
    config: Config
    folder: Path


def _check(out: Path, jobs: Sequence[_Job]) -> None:
    """Finds what would stop a grid half-way, before an hour is spent on the first half."""
    if not jobs:
        raise ConfigError("nothing to do: name a grid or fields to vary, and at least one seed")
    if len({job.folder for job in jobs}) < len(jobs):
        raise ConfigError("two variants have the same name, or names that make the same folder; rename one")
    by_name = {job.variant.name: job.config for job in jobs}
    for path in sorted(out.glob(f"runs/*/{RESULT}")):
        result = _read(path)
        wanted = by_name.get(result["variant"])
        found = Config.from_dict(result["config"] | {"run": result["config"]["run"] | {"seed": 0}})
        different = differing_settings([found, wanted.updated({"run.seed": 0})]) if wanted else {}
        if different:
            changed = [f"{name} {old}, now {new}" for name, (old, new) in different.items()]
            raise InputError(
                f"{path.parent} was trained with another configuration ({'; '.join(changed)}); "
                "choose another --out, or remove it"
            )
    for root, pattern in {(job.config.data.root, job.config.data.pattern) for job in jobs}:
        pairs = PairFolder(root, pattern=pattern)
        pairs.split("train"), pairs.split("test")
    tried = []
    for config in by_name.values():
        METHODS[config.method].needs.check(config.method, PairFolder(config.data.root), config)
        parts = {
            name: value for name, value in config.to_dict().items() if name not in ("data", "optim", "run")
        }
        if parts not in tried:
            build(config.updated({"model.pretrained": False, "model.weights": ""}))
            tried.append(parts)


def read_rows(out: str | Path) -> list[RunScore]:
    """Every finished run in `out`, by variant in the order of their grid, then by seed.

    Raises InputError if there is none, or for one that cannot be read.
    """
    rows = [_row(_read(path)) for path in Path(out).glob(f"runs/*/{RESULT}")]
    if not rows:
        raise InputError(
            f"{out}: holds no finished run; `python -m sbirlib ablate --out {out} --grid mstr` makes some"
        )
    return sorted(rows, key=lambda row: (row.place, row.variant, row.seed))


def compare(out: str | Path, first: str, second: str, k: int = 1) -> Difference:
    """How much better `second` is than `first`: names of variants, or of single runs as `variant@seed`.

    Variants are paired over the seeds that both have, queries over the sketches that both scored.
    Raises InputError for a name that `out` does not hold, or if nothing is left to pair.
    """
    rows = read_rows(out)
    one, two = _pick(rows, first), _pick(rows, second)
    # What was not trained has no seed, and stands beside every run of the other.
    if {row.seed for row in one} == {UNTRAINED}:
        one = one * len(two)
    elif {row.seed for row in two} == {UNTRAINED}:
        two = two * len(one)
    elif "@" not in first and "@" not in second:
        seeds = {row.seed for row in one} & {row.seed for row in two}
        one, two = ([row for row in chosen if row.seed in seeds] for chosen in (one, two))
    shared = (
        sorted(set.intersection(*(set(row.sketches) for row in one + two)))
        if one and len(one) == len(two)
        else []
    )
    if k < 1:
        raise InputError(f"k = {k}: Acc@k needs a k of at least 1")
    if not shared:
        raise InputError(f"{out}: {first!r} and {second!r} have no seeds or no queries in common")
    photo_of = dict(zip(one[0].sketches, one[0].photos, strict=True))
    return paired_bootstrap(_ranks(one, shared), _ranks(two, shared), [photo_of[name] for name in shared], k)


def write_tables(out: str | Path) -> None:
    """Writes `results.csv` and `ablation.png` from the finished runs in `out`."""
    # Seaborn takes two seconds to import, for which only a picture should make one wait.
    from sbirlib.figures.curves import interval_plot
    from sbirlib.figures.style import save_figure

    out, rows = Path(out), read_rows(out)
    with replacing_file(out / "results.csv") as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, {"variant": "", "seed": 0} | rows[0].score)
        writer.writeheader()
        writer.writerows({"variant": row.variant, "seed": row.seed} | row.score for row in rows)
    variants = _by_variant(rows)
    lines = [
        (f"{name} ({len(runs)}){_warning(runs)}", *_estimate(runs, 1)) for name, runs in variants.items()
    ]
    figure = interval_plot(
        *zip(*lines, strict=True),
        points=[[run.score["acc@1"] for run in runs] for runs in variants.values()],
        title="variant (runs); dots: single runs; bars: 95 % intervals over runs and photos",
    )
    with replacing_file(out / "ablation.png") as fresh:
        save_figure(figure, fresh)


def summary(out: str | Path) -> str:
    """A line a variant: Acc@1/5/10 over its runs with intervals, and the difference to the first variant."""
    rows = read_rows(out)
    variants = _by_variant(rows)
    first, lines = next(iter(variants)), []
    for name, runs in variants.items():
        scores = ", ".join(f"Acc@{k} {_estimate(runs, k)}" for k in (1, 5, 10))
        lines.append(f"{name}{_warning(runs)}: {len(runs)} runs x {len(runs[0].ranks)} queries, {scores}")
        seeds = {run.seed for run in runs}
        if name != first and (UNTRAINED in seeds or seeds & {run.seed for run in variants[first]}):
            lines.append(f"  Acc@1 less that of {first!r}, paired: {compare(out, first, name)}")
    return "\n".join([*lines, *dict.fromkeys(row.score["protocol"] for row in rows)])


def _run(job: _Job) -> RunScore:
    config = job.config
    # A run that was stopped goes on exactly, or is refused if its settings are not these.
    run = Run(job.folder)
    begun = bool(run.checkpoints)
    for _ in train(config.data.root, config, out=job.folder, overwrite=not begun, resume=begun):
        pass
    row = _score(job, run.model(), sum(run.history()["seconds"]))
    shutil.rmtree(run.states, ignore_errors=True)
    return row


def _score(job: _Job, model: Method, seconds: float) -> RunScore:
    """Scores on the test split and leaves the result in the job's folder."""
    config = job.config
    device = "cpu" if config.run.device == "cpu" else PartialState().device
    pairs = PairFolder(config.data.root, pattern=config.data.pattern)
    scores = evaluate(model.to(device), pairs, on_fault=config.data.on_fault)
    score = {}
    for k, accuracy in scores.accuracy.items():
        score |= {
            f"acc@{k}": accuracy.percent,
            f"hits@{k}": accuracy.hits,
            f"low@{k}": accuracy.low,
            f"high@{k}": accuracy.high,
        }
    score |= {
        "queries": len(scores.ranks),
        "gallery": scores.gallery,
        "median_rank": scores.median_rank,
        "mrr": scores.mrr,
        "seconds": seconds,
        "protocol": scores.protocol,
    }
    row = RunScore(
        job.variant.name,
        job.place,
        job.seed,
        score,
        list(scores.sketches),
        list(scores.photos),
        scores.ranks.tolist(),
    )
    with replacing_file(job.folder / RESULT) as fresh:
        fresh.write_text(json.dumps(row._asdict() | {"config": config.to_dict()}), encoding="utf-8")
    return row


def _finished(job: _Job) -> RunScore | None:
    path = job.folder / RESULT
    return _row(_read(path)) if path.is_file() else None


def _read(path: Path) -> dict:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not {*RunScore._fields, "config"} <= result.keys() or not isinstance(result["config"], dict):
            raise ValueError("it lacks fields")
        row = TypeAdapter(RunScore).validate_python(_row(result))
        lengths = {len(row.sketches), len(row.photos), len(row.ranks)}
        if len(lengths) > 1 or _SCORED - row.score.keys():
            raise ValueError("its queries or its score are not complete")
        return result
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}); remove it, and its run is done again"
        ) from None


def _warning(runs: Sequence[RunScore]) -> str:
    """What every table and figure must say of scores that the test set chose."""
    return " [TEST SET chose the epoch]" if any("CHOSEN ON" in run.score["protocol"] for run in runs) else ""


def _row(result: dict) -> RunScore:
    return RunScore(**{name: result[name] for name in RunScore._fields})


def _folder(out: Path, variant: Variant, seed: int) -> Path:
    return out / "runs" / f"{re.sub(r'[^A-Za-z0-9._+=-]+', '_', variant.name)}@{seed}"


def _by_variant(rows: Sequence[RunScore]) -> dict[str, list[RunScore]]:
    return {name: list(runs) for name, runs in itertools.groupby(rows, key=lambda row: row.variant)}


def _estimate(runs: Sequence[RunScore], k: int) -> Estimate:
    """Over the queries that all runs have; one can lack some where files were left out."""
    shared = sorted(set.intersection(*(set(run.sketches) for run in runs)))
    photo_of = dict(zip(runs[0].sketches, runs[0].photos, strict=True))
    return bootstrap_accuracy(_ranks(runs, shared), [photo_of[name] for name in shared], k)


def _ranks(rows: Sequence[RunScore], sketches: Sequence[str]) -> np.ndarray:
    return np.array(
        [
            [rank[name] for name in sketches]
            for row in rows
            for rank in [dict(zip(row.sketches, row.ranks, strict=True))]
        ]
    )


def _pick(rows: Sequence[RunScore], name: str) -> list[RunScore]:
    chosen = [row for row in rows if name in (row.variant, f"{row.variant}@{row.seed}")]
    if not chosen:
        known = ", ".join(dict.fromkeys(row.variant for row in rows))
        raise InputError(f"no finished run {name!r}; variants: {known} (or one run of them as variant@seed)")
    return chosen
