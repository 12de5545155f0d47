"""The part of the benchmark that times the panels of the notebooks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sbirlib.analysis.attention import recording
from sbirlib.bench.measure import Row, Spread
from sbirlib.config.config import Config
from sbirlib.data.loading import LoadedSplit
from sbirlib.data.pairs import PairFolder
from sbirlib.errors import InputError
from sbirlib.methods.arnet import ARNet
from sbirlib.panels.data import PairBrowser, ViewExplorer
from sbirlib.panels.draw import DrawPanel
from sbirlib.panels.retrieval import RetrievalBrowser
from sbirlib.panels.tokens import AttentionExplorer, TokenDiscardExplorer
from sbirlib.panels.training import InfoNCEPanel, RunComparer
from sbirlib.retrieval.gallery import Gallery
from sbirlib.retrieval.scores import score_split
from sbirlib.runs.history import read_config, read_history

UPDATES = 20


class Latency(NamedTuple):
    """Seconds from a control's move to the new picture, `times` of each of its moves."""

    panel: str
    control: str
    times: tuple[float, ...]


def check_panels(model: ARNet, run: Path) -> None:
    """Raises InputError if there is a panel that cannot show this model or its run."""
    read_config(run), read_history(run)
    for encoder in (model.sketch_encoder, model.photo_encoder):
        try:
            with recording(encoder.backbone):
                pass
        except InputError as error:
            raise InputError(
                f"{run}: the part panels cannot show this model: {error}. Name another run, or other "
                "parts with --part"
            ) from None


def panel_rows(model: ARNet, data: LoadedSplit, run: Path) -> Iterator[Row]:
    """Median (and range) and 95th percentile of `panel_latency`, in milliseconds."""
    for panel, control, times in panel_latency(model, data, run):
        milliseconds = [1000 * value for value in times]
        yield Row(f"panels, {panel}: {control}", "ms", "lower", Spread.of(milliseconds))
        yield Row(
            f"panels, {panel}: {control}, 95th percentile",
            "ms",
            "lower",
            Spread.of([float(np.percentile(milliseconds, 95))]),
        )


def panel_latency(model: ARNet, data: LoadedSplit, run: Path) -> Iterator[Latency]:
    """How long the panels of the notebooks take to redraw on `data`, `UPDATES` moves of each control.

    In the kernel, without what the browser takes to show the picture. `run` is the run folder that
    RunComparer shows. Source: ours.
    """
    attention, discard = AttentionExplorer(model, data), TokenDiscardExplorer(model, data)
    browser = RetrievalBrowser(model, data, score_split(model, data))
    pairs, comparer = PairBrowser(_folder(data)), RunComparer([run])
    views, example = (
        ViewExplorer(_folder(data), model.config or Config()),
        InfoNCEPanel((0, 90, 180), (0, 90, 200)),
    )
    drawing = DrawPanel(Gallery.from_files(model, [photo.path for photo in data.split.photos]))
    moves: list[tuple[object, str, Iterable[Callable[[], None]]]] = [
        (pairs, "photo", _set(pairs.photo, pairs.photo.options[1:])),
        (views, "rotation", _set(views.controls["data.rotation"], range(1, 91))),
        (example, "temperature", _set(example.temperature, np.geomspace(0.02, 9, UPDATES))),
        (browser, "query", _set(browser.query, range(1, browser.query.max + 1))),
        (attention, "image", _set(attention.image, range(1, attention.image.max + 1))),
        (attention, "query patch", _set(attention.query, range(1, attention.query.max + 1))),
        (discard, "tokens kept", _set(discard.keep, range(99))),
        (discard, "query", _set(discard.query, range(1, discard.query.max + 1))),
        (
            drawing,
            "stroke",
            (lambda k=k: drawing.stroke([(40, 10 * k), (200, 12 * k)]) for k in range(1, 99)),
        ),
        (comparer, "K", _set(comparer.k, itertools.cycle((5, 10, 1)))),
    ]
    for panel, control, actions in moves:
        yield Latency(type(panel).__name__, control, _times(list(_first(actions))))


def _set(control: object, values: Iterable) -> Iterable[Callable[[], None]]:
    return (lambda value=value: setattr(control, "value", value) for value in values)


def _first(actions: Iterable[Callable[[], None]]) -> Iterable[Callable[[], None]]:
    return (action for _, action in zip(range(UPDATES), actions, strict=False))


def _times(actions: Sequence[Callable[[], None]]) -> tuple[float, ...]:
    times = []
    for action in actions:
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return tuple(times)


def _folder(data: LoadedSplit) -> PairFolder:
    return PairFolder(Path(data.split.photos[0].path).parent.parent)
