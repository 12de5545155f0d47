"""Ablations: variants of a configuration trained over seeds, scored on the same queries, compared in pairs.

Every finished run leaves its ranks in a file of its own, so a grid that was stopped goes on where it was,
processes with different seeds may share one folder, and any two runs can be compared afterwards.
"""

import json
import re
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState

from sbirlib.config.config import Config, DataConfig, differing_settings
from sbirlib.data import LoadedSplit, load_split, training_folder
from sbirlib.errors import ConfigError, InputError
from sbirlib.experiments.finished import RESULT, TABLE, UNTRAINED, RunScore, read_row, write_tables
from sbirlib.experiments.grids import Variant
from sbirlib.methods import METHODS, Method, build
from sbirlib.retrieval import embed, evaluate, score_all
from sbirlib.runs import Run, data_fingerprint, frozen, write_text
from sbirlib.training import TrainingError, check_exactness, stage_ends, train

LAST = 10**6  # place of a row that no training made
TIMED = 50  # sketches that are searched with one at a time


class _Job(NamedTuple):
    variant: str
    place: int
    seed: int
    config: Config
    out: Path

    @property
    def folder(self) -> Path:
        return self.out / "runs" / f"{re.sub(r'[^A-Za-z0-9._+=-]+', '_', self.variant)}@{self.seed}"


def ablate(
    base: Config, variants: Sequence[Variant], seeds: Sequence[int], *, out: str | Path
) -> Iterator[RunScore]:
    """Trains and scores on the test split every variant with every seed that `out` does not hold yet.

    Yields a row for each, done before or now; `out` gets `runs/`, `results.csv` with one row a run, and
    `ablation.png`. A run that was stopped half-way goes on from its checkpoint. What is not trained has one
    row, which stands beside each run of another. Before anything is trained, data and models of all variants
    are tried: raises ConfigError for a change that does not fit, InputError if `out` holds runs of that
    variant with another configuration, and what `train` does. A training that diverges is passed over, and
    named in a TrainingError at the end.
    """
    jobs, diverged = [], []
    for place, (name, changes, trained) in enumerate(variants):
        for seed in seeds if trained else [UNTRAINED]:
            config = base.updated({**changes, "run.seed": seed} if trained else changes)
            jobs.append(_Job(name, place if trained else LAST, seed, config, Path(out)))
    jobs.sort(key=lambda job: job.seed)  # a table of all variants comes early
    _check(jobs, {variant.name: variant.changes for variant in variants})
    for job in jobs:
        try:
            result = job.folder / RESULT
            row = read_row(result) if result.is_file() else _run(job)
        except TrainingError as error:
            diverged.append(f"{job.folder.name}: {error}")
            continue
        write_tables(out)
        yield row
    if diverged:
        raise TrainingError("; ".join(diverged))


def _check(jobs: Sequence[_Job], changes: dict[str, dict[str, Any]]) -> None:
    """Finds what would stop a grid half-way, before an hour is spent on the first half."""
    if not jobs:
        raise ConfigError("nothing to do: name a grid or fields to vary, and at least one seed")
    if len({job.folder for job in jobs}) < len(jobs):
        raise ConfigError("two variants have the same name, or names that make the same folder; rename one")
    if any("run.seed" in fields for fields in changes.values()):
        raise ConfigError("run.seed is no variant: every variant is trained with each of the seeds (--seeds)")
    by_name, out = {job.variant: job.config.updated({"run.seed": 0}) for job in jobs}, jobs[0].out
    if (out / TABLE).exists() and not any(out.glob(f"runs/*/{RESULT}")):
        raise InputError(f"{out} holds a {TABLE}, but no runs; choose another --out, or move it away")
    ways = "choose another --out, or remove it"
    for path in sorted(out.glob(f"runs/*/{RESULT}")):
        row = read_row(path)
        found = Config.from_dict(row.config).updated({"run.seed": 0})
        if row.variant in by_name:  # what the folder holds counts, not its name
            root = by_name[row.variant].data.root
            if row.tested != _hash(by_name[row.variant].data):
                raise InputError(f"{path.parent} was scored on other pictures than {root} holds; {ways}")
            found = found.updated({"data.root": root})
        now = by_name.get(row.variant, found)
        if row.seed == UNTRAINED:  # how the others were trained is nothing to it
            found = replace(found, optim=now.optim, run=now.run)
        if different := differing_settings([found, now]):
            changed = "; ".join(f"{name} {old}, now {new}" for name, (old, new) in different.items())
            raise InputError(f"{path.parent} was trained with another configuration ({changed}); {ways}")
    for name, config in by_name.items():
        if unused := changes[name].keys() - config.flat():
            raise ConfigError(f"{name}: method {config.method} has no {', '.join(sorted(unused))}")
        idle = [field for field in changes[name] if field.startswith("mstr.") and field != "mstr.enabled"]
        if idle and not config.mstr.enabled:
            raise ConfigError(f"{name}: needs token recycling, as in preset mini_full, or mstr.enabled=true")
        pairs = training_folder(config.data.root, config.data.pattern, config.data.sketches)
        pairs.split("test")
        METHODS[config.method].needs.check(config.method, pairs, config)
        model = build(config, fetch=False)
        check_exactness(model, config, processes=1)
        stage_ends(model.stages(), config.run.epochs)


def _run(job: _Job) -> RunScore:
    if job.seed == UNTRAINED:
        return _score(job, frozen(job.config), 0.0)
    # A run that was stopped goes on exactly, or is refused if its settings are not these.
    run, epochs = Run(job.folder), job.config.run.epochs
    begun = bool(run.checkpoints)
    if begun and (before := run.saved()[0].run.epochs) != epochs:
        raise InputError(f"{run.path} was begun with run.epochs {before}, now {epochs}; go on with that")
    list(train(job.config.data.root, job.config, out=job.folder, overwrite=not begun, resume=begun))
    unlabelled = run.start().get("data", {}).get("without_sketch")
    row = _score(job, run.model(), sum(run.history()["seconds"]), unlabelled)
    shutil.rmtree(run.states, ignore_errors=True)
    return row


def _score(job: _Job, model: Method, seconds: float, unlabelled: int | None = None) -> RunScore:
    """Scores on the test split and leaves the result in the job's folder."""
    data = job.config.data
    device = "cpu" if job.config.run.device == "cpu" else PartialState().device
    folder = training_folder(data.root, data.pattern, data.sketches)
    scores = evaluate(model.to(device).eval(), folder, on_fault=data.on_fault)
    loaded = load_split(folder.split("test"), data, model.image_size)
    score: dict[str, Any] = {}
    for k, a in scores.accuracy.items():
        score |= {f"acc@{k}": a.percent, f"hits@{k}": a.hits, f"low@{k}": a.low, f"high@{k}": a.high}
    score |= {"queries": len(scores.ranks), "gallery": scores.gallery, "median_rank": scores.median_rank}
    score |= {"mrr": scores.mrr, "seconds": seconds, "ms_query": _milliseconds(model, loaded)}
    score["protocol"] = scores.protocol
    if unlabelled is not None:
        score["unlabelled"] = unlabelled
    queries = list(scores.sketches), list(scores.photos), scores.ranks.tolist()
    row = RunScore(job.variant, job.place, job.seed, score, *queries, job.config.to_dict(), _hash(data))
    job.folder.mkdir(parents=True, exist_ok=True)
    write_text(job.folder / RESULT, json.dumps(row._asdict()))
    return read_row(job.folder / RESULT)  # as the next look at this folder will find it


def _milliseconds(model: Method, data: LoadedSplit) -> float:
    """How long a query takes on its own: one sketch is embedded and scored against all photos; the median."""
    device = next(model.parameters()).device
    photos, times = embed(model.embed_photos, data.photos, device=device), []
    for sketch in data.sketches[:TIMED]:
        started = time.perf_counter()
        score_all(model.score, embed(model.embed_sketches, sketch[None], device=device), photos)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def _hash(data: DataConfig) -> str:
    """That of the test split: names and bytes of its files."""
    folder = training_folder(data.root, data.pattern, data.sketches)
    return data_fingerprint([folder.split("test")])["sha256"]
