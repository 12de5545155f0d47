"""Ablations: variants of a configuration trained over seeds, scored on the same queries, compared in pairs.

Every finished run leaves its ranks in a file of its own, so a grid that was stopped goes on where it was,
processes with different seeds may share one folder, and any two runs can be compared afterwards.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate import PartialState
from pydantic import TypeAdapter, ValidationError

from sbirlib.config.config import Config, differing_settings
from sbirlib.data.pairs import PairFolder
from sbirlib.errors import ConfigError, InputError, printable
from sbirlib.experiments.grids import Variant
from sbirlib.methods import METHODS, build
from sbirlib.methods.base import Method
from sbirlib.retrieval.intervals import Difference, bootstrap_accuracy, paired_bootstrap
from sbirlib.retrieval.scores import evaluate
from sbirlib.runs.atomic import replacing_file, write_csv, write_text
from sbirlib.runs.folder import Run
from sbirlib.runs.model import load_frozen
from sbirlib.training.trainer import TrainingError, train

RESULT = "result.json"
_SCORED = {"acc@1", "hits@1", "queries", "protocol"}  # what tables and messages take from a score
UNTRAINED, LAST = -1, 10**6  # seed and place of a row that no training made


class RunScore(NamedTuple):
    """One finished run: its variant and seed, the score by name, and the rank of every query.

    `place` is that of the variant in its grid, 0 = what the others are compared with; `sketches` and `photos`
    (q,) name each query and its true photo, `ranks` (q,) are its places; `config` is the run's, as a dict.
    """

    variant: str
    place: int
    seed: int
    score: dict[str, Any]
    sketches: list[str]
    photos: list[str]
    ranks: list[int]
    config: dict[str, Any]


class _Job(NamedTuple):
    variant: str
    place: int
    seed: int
    config: Config
    out: Path

    @property
    def folder(self) -> Path:
        return self.out / "runs" / f"{re.sub(r'[^A-Za-z0-9._+=-]+', '_', self.variant)}@{self.seed}"

    @property
    def result(self) -> Path:
        return self.folder / RESULT


def ablate(
    base: Config, variants: Sequence[Variant], seeds: Sequence[int], *, out: str | Path
) -> Iterator[RunScore]:
    """Trains and scores on the test split every variant with every seed that `out` does not hold yet.

    Yields a row for each, done before or now; `out` gets `runs/`, `results.csv` with one row a run, and
    `ablation.png`. A run that was stopped half-way goes on from its checkpoint. Before anything is trained,
    data and models of all variants are tried: raises ConfigError for a change that does not fit, InputError
    if `out` holds runs of that variant with another configuration, and what `train` does. A training that
    diverges is passed over, and named in a TrainingError at the end.
    """
    jobs = [
        _Job(name, place, seed, base.updated({**changes, "run.seed": seed}), Path(out))
        for seed in seeds
        for place, (name, changes) in enumerate(variants)
    ]
    _check(jobs, dict(variants))
    diverged = []
    for job in jobs:
        try:
            row = _read(job.result) if job.result.is_file() else _run(job)
        except TrainingError as error:
            diverged.append(f"{job.folder.name}: {error}")
            continue
        write_tables(out)
        yield row
    if diverged:
        raise TrainingError("; ".join(diverged))


def score_frozen(base: Config, backbone: str, *, weights: str | Path = "", out: str | Path) -> RunScore:
    """Adds the row of a timm backbone that nobody trained, scored on the data of `base`.

    `weights` is a local file instead of the published ones. The row has no seed: compared with a variant, it
    stands beside each of its runs. Raises what `load_frozen` and `evaluate` do, and InputError if `out` holds
    that row for other data.
    """
    job = _Job(f"frozen {backbone}", LAST, UNTRAINED, base, Path(out))
    frozen = None if job.result.is_file() else load_frozen(backbone, weights=weights)
    row = _read(job.result) if frozen is None else _score(job, frozen, 0.0)
    if row.config["data"] != base.to_dict()["data"]:
        raise InputError(f"{job.folder} was scored with other settings of the data; choose another --out")
    write_tables(out)
    return row


def _check(jobs: Sequence[_Job], changes: dict[str, dict[str, Any]]) -> None:
    """Finds what would stop a grid half-way, before an hour is spent on the first half."""
    if not jobs:
        raise ConfigError("nothing to do: name a grid or fields to vary, and at least one seed")
    if len({job.folder for job in jobs}) < len(jobs):
        raise ConfigError("two variants have the same name, or names that make the same folder; rename one")
    if any("run.seed" in fields for fields in changes.values()):
        raise ConfigError("run.seed is no variant: every variant is trained with each of the seeds (--seeds)")
    by_name = {job.variant: job.config.updated({"run.seed": 0}) for job in jobs}
    for path in sorted(jobs[0].out.glob(f"runs/*/{RESULT}")):
        row = _read(path)
        found = Config.recorded(row.config).updated({"run.seed": 0})
        if different := differing_settings([found, by_name.get(row.variant, found)]):
            changed = "; ".join(f"{name} {old}, now {new}" for name, (old, new) in different.items())
            what = f"was trained with another configuration ({changed})"
            raise InputError(f"{path.parent} {what}; choose another --out, or remove it")
    models = {}
    for name, config in by_name.items():
        if unused := changes[name].keys() - config.flat():
            raise ConfigError(f"{name}: method {config.method} has no {', '.join(sorted(unused))}")
        pairs = PairFolder(config.data.root, pattern=config.data.pattern)
        pairs.split("test")
        METHODS[config.method].needs.check(config.method, pairs, config)
        models[repr(config.to_dict() | {"data": None, "optim": None, "run": None})] = config
    for config in models.values():
        build(config.updated({"model.pretrained": False, "model.weights": ""}))


def read_rows(out: str | Path) -> list[RunScore]:
    """Every finished run in `out`, by variant in the order of their grid, then by seed.

    Raises InputError if there is none, or for one that cannot be read.
    """
    rows = [_read(path) for path in Path(out).glob(f"runs/*/{RESULT}")]
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
    one, two = _pick(rows, first), _pick(rows, second)
    seeds = [{row.seed for row in chosen} for chosen in (one, two)]
    if {UNTRAINED} in seeds:
        # What was not trained has no seed, and stands beside every run of the other.
        one, two = one * len(two), two * len(one)
    elif "@" not in first + second:
        one, two = ([row for row in chosen if row.seed in seeds[0] & seeds[1]] for chosen in (one, two))
    if len(places := _test_data(one + two)) > 1:
        other = f"{first!r} and {second!r} were scored on different data ({', '.join(sorted(places))})"
        raise InputError(f"{out}: {other}: queries of one name are not the same, so there is nothing to pair")
    ranks, photos = _shared(one + two)
    if len(one) != len(two) or not photos:
        raise InputError(f"{out}: {first!r} and {second!r} have no seeds or no queries in common")
    return paired_bootstrap(ranks[: len(one)], ranks[len(one) :], photos, k)


def write_tables(out: str | Path) -> None:
    """Writes `results.csv` and `ablation.png` from the finished runs in `out`."""
    from sbirlib.figures.curves import interval_plot  # takes seconds to import
    from sbirlib.figures.style import save_figure

    out, rows = Path(out), read_rows(out)
    table = [{"variant": row.variant, "seed": row.seed} | row.score for row in rows]
    columns = dict.fromkeys(itertools.chain(*table))
    write_csv(out / "results.csv", [{_cell(c): _cell(row.get(c, "")) for c in columns} for row in table])
    variants = _by_variant(rows)
    figure = interval_plot(
        [f"{printable(name)} ({len(runs)}){_warning(runs)}" for name, runs in variants.items()],
        *zip(*(bootstrap_accuracy(*_shared(runs)) for runs in variants.values()), strict=True),
        points=[[run.score["acc@1"] for run in runs] for runs in variants.values()],
        title="variant (runs); dots: single runs; bars: 95 % intervals over runs and photos",
    )
    with replacing_file(out / "ablation.png") as fresh:
        save_figure(figure, fresh)


def summary(out: str | Path) -> str:
    """One line per variant: Acc@1/5/10 over its runs with intervals, and the difference to the first."""
    rows = read_rows(out)
    variants = _by_variant(rows)
    first, lines = rows[0].variant, []
    for name, runs in variants.items():
        scores = ", ".join(f"Acc@{k} {bootstrap_accuracy(*_shared(runs), k)}" for k in (1, 5, 10))
        lines.append(f"{name}{_warning(runs)}: {len(runs)} runs x {len(runs[0].ranks)} queries, {scores}")
        seeds = {run.seed for run in runs}
        if len(_test_data([*runs, *variants[first]])) > 1:
            lines.append(f"  not compared with {first!r}, which was scored on other data")
        elif name != first and (UNTRAINED in seeds or seeds & {run.seed for run in variants[first]}):
            lines.append(f"  Acc@1 less that of {first!r}, paired: {compare(out, first, name)}")
    return "\n".join(map(printable, [*lines, *dict.fromkeys(row.score["protocol"] for row in rows)]))


def _cell(value: Any) -> Any:
    """What a table holds: text that a spreadsheet would run as a formula gets an apostrophe.

    Source: OWASP, CSV Injection.
    """
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{value}" if formula else value


def _run(job: _Job) -> RunScore:
    # A run that was stopped goes on exactly, or is refused if its settings are not these.
    run = Run(job.folder)
    begun = bool(run.checkpoints)
    list(train(job.config.data.root, job.config, out=job.folder, overwrite=not begun, resume=begun))
    row = _score(job, run.model(), sum(run.history()["seconds"]))
    shutil.rmtree(run.states, ignore_errors=True)
    return row


def _score(job: _Job, model: Method, seconds: float) -> RunScore:
    """Scores on the test split and leaves the result in the job's folder."""
    data = job.config.data
    device = "cpu" if job.config.run.device == "cpu" else PartialState().device
    scores = evaluate(model.to(device), PairFolder(data.root, pattern=data.pattern), on_fault=data.on_fault)
    score: dict[str, Any] = {}
    for k, a in scores.accuracy.items():
        score |= {f"acc@{k}": a.percent, f"hits@{k}": a.hits, f"low@{k}": a.low, f"high@{k}": a.high}
    score |= {"queries": len(scores.ranks), "gallery": scores.gallery, "median_rank": scores.median_rank}
    score |= {"mrr": scores.mrr, "seconds": seconds, "protocol": scores.protocol}
    sketches, photos, ranks = list(scores.sketches), list(scores.photos), scores.ranks.tolist()
    config = job.config.to_dict()
    row = RunScore(job.variant, job.place, job.seed, score, sketches, photos, ranks, config)
    job.folder.mkdir(parents=True, exist_ok=True)
    write_text(job.result, json.dumps(row._asdict()))
    return _read(job.result)  # as the next look at this folder will find it


def _read(path: Path) -> RunScore:
    """What `_score` left."""
    try:
        row = TypeAdapter(RunScore).validate_json(path.read_bytes())
        if len({len(row.sketches), len(row.photos), len(row.ranks)}) > 1 or _SCORED - row.score.keys():
            raise ValueError("its queries or its score are not complete")
        return row
    except ValueError as error:
        why = "{msg} {loc}".format(**error.errors()[0]) if isinstance(error, ValidationError) else error
        raise InputError(f"{path} cannot be read ({why}); remove it, and its run is done again") from None


def _warning(runs: Sequence[RunScore]) -> str:
    """What every table and figure must say of scores that the test set chose."""
    return " [TEST SET chose the epoch]" if any("CHOSEN ON" in run.score["protocol"] for run in runs) else ""


def _by_variant(rows: Sequence[RunScore]) -> dict[str, list[RunScore]]:
    return {name: list(runs) for name, runs in itertools.groupby(rows, key=lambda row: row.variant)}


def _shared(runs: Sequence[RunScore]) -> tuple[np.ndarray, list[str]]:
    """Ranks (runs, q) and photos (q,) of the queries that all runs have: files may have been left out."""
    by_name = [dict(zip(run.sketches, run.ranks, strict=True)) for run in runs]
    photo_of = {name: photo for run in runs for name, photo in zip(run.sketches, run.photos, strict=True)}
    names = [name for name in sorted(photo_of) if all(name in found for found in by_name)]
    ranks = np.array([[found[name] for name in names] for found in by_name])
    return ranks, [photo_of[name] for name in names]


def _test_data(runs: Sequence[RunScore]) -> set[str]:
    """Where the test sketches of these runs lie; a link leads to what it stands for."""
    return {str(Path(Config.from_dict(run.config).data.root, "testA").resolve()) for run in runs}


def _pick(rows: Sequence[RunScore], name: str) -> list[RunScore]:
    chosen = [row for row in rows if name in (row.variant, f"{row.variant}@{row.seed}")]
    if not chosen:
        known = ", ".join(dict.fromkeys(row.variant for row in rows))
        raise InputError(f"no finished run {name!r}; variants: {known} (or one run of them as variant@seed)")
    return chosen
