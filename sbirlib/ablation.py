"""Ablations: variants of a configuration trained over seeds, scored on the same queries, compared in pairs.

Every finished run leaves its ranks in a file of its own, so a grid that was stopped goes on where it
was, several processes may share one folder, and any two rows can be compared afterwards.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from sbirlib.checkpoints import load_run
from sbirlib.config import RELEASED, Config
from sbirlib.fields import ConfigError, InputError
from sbirlib.pairs import PairFolder
from sbirlib.plots import interval_plot, save_figure
from sbirlib.retrieval import evaluate
from sbirlib.statistics import Difference, bootstrap_accuracy, paired_bootstrap
from sbirlib.train import train

GRIDS = ("losses", "views", "mstr", "released")
RESULT = "result.json"


class Variant(NamedTuple):
    """A name and the dotted fields that it changes."""

    name: str
    changes: dict[str, Any]


class Row(NamedTuple):
    """One finished run: its variant and seed, the score by name, and the rank of every query.

    `sketches` and `photos` (q,) name each query and its true photo, `ranks` (q,) are its places.
    """

    variant: str
    seed: int
    score: dict[str, Any]
    sketches: list[str]
    photos: list[str]
    ranks: list[int]


def grid(name: str, base: Config) -> list[Variant]:
    """The variants of a ready-made grid; the first is what the others are compared with.

    `losses`: each term off; `views`: one and two views as in the paper's figure; `mstr`: recycling
    off, its scales, share, loss and similarity; `released`: each behaviour of the released code alone,
    but for its file pattern, which changes the queries. Raises ConfigError for another name, or where
    `base` does not use what the grid is about.
    """
    if name in ("mstr", "released") and not base.mstr.enabled:
        raise ConfigError(f"grid {name!r} needs token recycling: use preset mini_full or full")
    if name == "losses":
        terms = ["multi", "inter", "intra_sketch", "intra_photo"]
        terms += ["recyc_sketch", "recyc_photo"] if base.mstr.enabled else []
        both = Variant("without intra", {"loss.intra_sketch": 0, "loss.intra_photo": 0})
        return [Variant("all terms", {}), *(Variant(f"without {term}", {f"loss.{term}": 0}) for term in terms), both]
    if name == "views":
        # One view alone has nothing to be matched with inside its domain.
        alone = [Variant(view, {"data.first_view": view, "data.second_view": view, "loss.intra_sketch": 0,
                                "loss.intra_photo": 0}) for view in ("A0", "A1", "A2")]
        return alone + [Variant(f"{first}+{second}", {"data.first_view": first, "data.second_view": second})
                        for first, second in (("A0", "A1"), ("A0", "A2"), ("A1", "A2"), ("A2", "A1"))]
    if name == "mstr":
        scales = base.mstr.scales
        return [Variant("with MSTR", {}), Variant("without MSTR", {"mstr.enabled": False}),
                *(Variant(f"scales {' '.join(map(str, scales[:k]))}", {"mstr.scales": scales[:k]})
                  for k in range(1, len(scales))),
                *(Variant(f"weight {weight}", {"mstr.weight": weight}) for weight in (0.3, 0.5, 1.0)),
                Variant("learned weight", {"mstr.learn_weight": True}),
                Variant("without L_recyc", {"loss.recyc_sketch": 0, "loss.recyc_photo": 0}),
                Variant("dot similarity", {"mstr.similarity": "dot"})]
    if name == "released":
        options = {field: value for field, value in RELEASED.items() if field != "data.pattern"}
        return [Variant("default", {}), *(Variant(field, {field: value}) for field, value in options.items()),
                Variant("all of these", options)]
    raise ConfigError(f"unknown grid {name!r}; known: {', '.join(GRIDS)}")


def vary(settings: Sequence[str]) -> list[Variant]:
    """Every combination of `field=value,value`: `vary(["mstr.weight=0.1,0.5", "optim.lr=1e-3"])`.

    Values are read as YAML; a list goes in brackets: `mstr.scales=[1],[1,2]`. Raises ConfigError.
    """
    axes = []
    for setting in settings:
        field, sign, text = setting.partition("=")
        try:
            # Number by number: YAML takes 1e-3, which Python writes, for a word.
            values = [_number(value) for value in yaml.safe_load(f"[{text}]")]
        except yaml.YAMLError:
            values = []
        if not sign or not values:
            raise ConfigError(f"--vary {setting}: expected field=value,value such as mstr.weight=0.1,0.5")
        axes.append([(field, value) for value in values])
    return [Variant(" ".join(f"{field}={_word(value)}" for field, value in combination), dict(combination))
            for combination in itertools.product(*axes)]


def ablate(base: Config, variants: Sequence[Variant], seeds: Sequence[int], *, out: str | Path) -> Iterator[Row]:
    """Trains and scores on the test split every variant with every seed that `out` does not hold yet.

    Yields a row for each, done before or now; `out` gets `runs/`, `results.csv` with one row a run,
    and `ablation.png`. A run that was stopped half-way is trained anew. Raises ConfigError for a
    change that does not fit, InputError if `out` holds another run of that name, and what `train` does.
    """
    if not variants or not seeds:
        raise ConfigError("nothing to do: name a grid or fields to vary, and at least one seed")
    out = Path(out)
    jobs = [(variant, seed, base.updated({**variant.changes, "run.seed": seed}))
            for seed in seeds for variant in variants]
    for variant, seed, config in jobs:
        _finished(_folder(out, variant, seed), config)  # a clash is found before an hour is spent
    for variant, seed, config in jobs:
        folder = _folder(out, variant, seed)
        row = _finished(folder, config) or _run(variant, seed, config, folder)
        write_tables(out)
        yield row


def read_rows(out: str | Path) -> list[Row]:
    """Every finished run in `out`, by variant in the order of their first run, then by seed.

    Raises InputError if there is none.
    """
    files = sorted(Path(out).glob(f"runs/*/{RESULT}"), key=lambda path: path.stat().st_mtime)
    rows = [_row(json.loads(path.read_text(encoding="utf-8"))) for path in files]
    if not rows:
        raise InputError(f"{out}: holds no finished run; `python -m sbirlib ablate --out {out} --grid mstr` makes some")
    order = list(dict.fromkeys(row.variant for row in rows))
    return sorted(rows, key=lambda row: (order.index(row.variant), row.seed))


def compare(out: str | Path, first: str, second: str, k: int = 1) -> Difference:
    """How much better `second` is than `first`: names of variants, or of single runs as `variant@seed`.

    Variants are paired over the seeds that both have, queries over the sketches that both scored.
    Raises InputError for a name that `out` does not hold, or if nothing is left to pair.
    """
    rows = read_rows(out)
    one, two = _pick(rows, first), _pick(rows, second)
    if "@" not in first and "@" not in second:
        seeds = {row.seed for row in one} & {row.seed for row in two}
        one, two = ([row for row in chosen if row.seed in seeds] for chosen in (one, two))
    shared = sorted(set.intersection(*(set(row.sketches) for row in one + two))) if one and len(one) == len(two) else []
    if not shared:
        raise InputError(f"{out}: {first!r} and {second!r} have no seeds or no queries in common")
    photo_of = dict(zip(one[0].sketches, one[0].photos, strict=True))
    return paired_bootstrap(_ranks(one, shared), _ranks(two, shared), [photo_of[name] for name in shared], k)


def write_tables(out: str | Path) -> None:
    """Writes `results.csv` and `ablation.png` from the finished runs in `out`."""
    out, rows = Path(out), read_rows(out)
    fresh = out / f".results.{os.getpid()}.csv"
    with fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, {"variant": "", "seed": 0} | rows[0].score)
        writer.writeheader()
        writer.writerows({"variant": row.variant, "seed": row.seed} | row.score for row in rows)
    fresh.replace(out / "results.csv")
    estimates, points = [], []
    for name, runs in _by_variant(rows).items():
        estimates.append(_estimate(runs, 1))
        points.append([run.score["acc@1"] for run in runs])
        estimates[-1] = (f"{name} ({len(runs)})", *estimates[-1])
    note = " TEST SET CHOSE CHECKPOINTS" if any("CHOSEN ON" in row.score["protocol"] for row in rows) else ""
    figure = interval_plot(*zip(*estimates, strict=True), points=points,
                           title=f"variant (runs); dots: single runs;{note} 95 % intervals over runs and photos")
    save_figure(figure, out / "ablation.png")


def summary(out: str | Path) -> str:
    """A line a variant: Acc@1/5/10 over its runs with intervals, and the difference to the first variant."""
    rows = read_rows(out)
    variants = _by_variant(rows)
    first, lines = next(iter(variants)), []
    for name, runs in variants.items():
        scores = ", ".join(f"Acc@{k} {_estimate(runs, k)}" for k in (1, 5, 10))
        lines.append(f"{name}: {len(runs)} runs x {len(runs[0].ranks)} queries, {scores}")
        if name != first and {run.seed for run in runs} & {run.seed for run in variants[first]}:
            lines.append(f"  Acc@1 less that of {first!r}, paired: {compare(out, first, name)}")
    return "\n".join([*lines, *dict.fromkeys(row.score["protocol"] for row in rows)])


def _run(variant: Variant, seed: int, config: Config, folder: Path) -> Row:
    started = time.perf_counter()
    pairs = PairFolder(config.data.root, pattern=config.data.pattern)
    for _ in train(pairs, config, out=folder, overwrite=True):
        pass
    seconds = time.perf_counter() - started
    scores, split = evaluate(load_run(folder), pairs, on_fault=config.data.on_fault), pairs.split("test")
    used = {sketch.path.name: sketch.photo_id for sketch in split.sketches}
    score = {}
    for k, accuracy in scores.accuracy.items():
        score |= {f"acc@{k}": accuracy.percent, f"hits@{k}": accuracy.hits, f"low@{k}": accuracy.low,
                  f"high@{k}": accuracy.high}
    score |= {"queries": len(scores.ranks), "gallery": scores.gallery, "median_rank": scores.median_rank,
              "mrr": scores.mrr, "seconds": seconds, "protocol": scores.protocol}
    result = {"variant": variant.name, "seed": seed, "score": score, "sketches": list(used),
              "photos": list(used.values()), "ranks": scores.ranks.tolist(), "config": config.to_dict()}
    fresh = folder / f".{RESULT}"
    fresh.write_text(json.dumps(result), encoding="utf-8")
    fresh.replace(folder / RESULT)
    return _row(result)


def _finished(folder: Path, config: Config) -> Row | None:
    path = folder / RESULT
    if not path.is_file():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    if Config.from_dict(result["config"]) != config:
        raise InputError(f"{folder} was trained with another configuration; choose another --out, or remove it")
    return _row(result)


def _row(result: dict) -> Row:
    return Row(**{name: result[name] for name in Row._fields})


def _folder(out: Path, variant: Variant, seed: int) -> Path:
    return out / "runs" / f"{re.sub(r'[^A-Za-z0-9._+=-]+', '_', variant.name)}@{seed}"


def _by_variant(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {name: list(runs) for name, runs in itertools.groupby(rows, key=lambda row: row.variant)}


def _estimate(runs: Sequence[Row], k: int):
    return bootstrap_accuracy([run.ranks for run in runs], runs[0].photos, k)


def _ranks(rows: Sequence[Row], sketches: Sequence[str]) -> np.ndarray:
    return np.array([[rank[name] for name in sketches] for row in rows
                     for rank in [dict(zip(row.sketches, row.ranks, strict=True))]])


def _pick(rows: Sequence[Row], name: str) -> list[Row]:
    chosen = [row for row in rows if name in (row.variant, f"{row.variant}@{row.seed}")]
    if not chosen:
        known = ", ".join(dict.fromkeys(row.variant for row in rows))
        raise InputError(f"no finished run {name!r}; variants: {known} (or one run of them as variant@seed)")
    return chosen


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _word(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
