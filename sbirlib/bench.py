"""Time the kit on the machine at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sbirlib.arnet import ARNet
from sbirlib.config import Config
from sbirlib.draw_panel import DrawPanel
from sbirlib.explorers import AttentionExplorer, TokenDiscardExplorer
from sbirlib.pairs import PairFolder
from sbirlib.retrieval import Gallery, score_split
from sbirlib.views import LoadedSplit
from sbirlib.widgets import InfoNCEPanel, PairBrowser, RetrievalBrowser, ViewExplorer

UPDATES = 20


class Latency(NamedTuple):
    """Seconds from a control's move to the new picture: `median` and 95th percentile `p95` of `updates`."""

    panel: str
    control: str
    median: float
    p95: float
    updates: int


def panel_latency(model: ARNet, data: LoadedSplit) -> list[Latency]:
    """How long the panels of the notebooks take to redraw on `data`, `UPDATES` moves of each control.

    In the kernel, without what the browser takes to show the picture. Source: ours.
    """
    attention, discard = AttentionExplorer(model, data), TokenDiscardExplorer(model, data)
    browser = RetrievalBrowser(model, data, score_split(model, data))
    pairs = PairBrowser(_folder(data))
    views, example = ViewExplorer(_folder(data), model.config or Config()), InfoNCEPanel((0, 90, 180), (0, 90, 200))
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
        (drawing, "stroke", (lambda k=k: drawing.stroke([(40, 10 * k), (200, 12 * k)]) for k in range(1, 99))),
    ]
    return [_time(type(panel).__name__, control, list(_first(actions))) for panel, control, actions in moves]


def table(rows: Sequence[Latency]) -> str:
    """The latencies as a Markdown table, in milliseconds."""
    lines = ["| panel | control | median (ms) | 95th percentile (ms) | updates |", "|---|---|---|---|---|"]
    lines += [f"| `{row.panel}` | {row.control} | {1000 * row.median:.0f} | {1000 * row.p95:.0f} | {row.updates} |"
              for row in rows]
    return "\n".join(lines)


def _set(control: object, values: Iterable) -> Iterable[Callable[[], None]]:
    return (lambda value=value: setattr(control, "value", value) for value in values)


def _first(actions: Iterable[Callable[[], None]]) -> Iterable[Callable[[], None]]:
    return (action for _, action in zip(range(UPDATES), actions, strict=False))


def _time(panel: str, control: str, actions: Sequence[Callable[[], None]]) -> Latency:
    seconds = []
    for action in actions:
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return Latency(panel, control, float(np.median(seconds)), float(np.percentile(seconds, 95)), len(seconds))


def _folder(data: LoadedSplit) -> PairFolder:
    return PairFolder(Path(data.split.photos[0].path).parent.parent)
