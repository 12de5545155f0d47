"""A run on one page: its result, curves, settings, data, weights and versions."""

from __future__ import annotations

import base64
import html
import math
from pathlib import Path
from typing import Any

from sbirlib.config.config import Config, knobs
from sbirlib.runs.history import read_config, read_history
from sbirlib.runs.provenance import read_beginning
from sbirlib.runs.state import checkpoints

_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}pre{white-space:pre-wrap;"
    "background:#f6f6f6;padding:1em}img{max-width:100%}"
)


def describe(run: str | Path) -> str:
    """The page as plain text: result, settings other than the paper's, and what the run began from.

    Raises RunError if `run` is not a run, or has not finished an epoch.
    """
    run, history, config = Path(run), read_history(run), read_config(run)
    parts = [
        f"Run {run}",
        *_result(history, config, run),
        "",
        "Settings that differ from the paper's defaults:",
        *_settings(config),
        "",
        "Began from:",
        *_lines(read_beginning(run)),
    ]
    return "\n".join(parts)


def write_page(run: str | Path) -> Path:
    """Writes the report with its curves to `report.html` in the run folder; one file that needs no other."""
    # Seaborn takes two seconds to import, for which only a picture should make one wait.
    from sbirlib.plots import png_bytes, training_curves

    run = Path(run)
    picture = base64.b64encode(png_bytes(training_curves(read_history(run)))).decode()
    page = (
        f"<!doctype html><meta charset='utf-8'><title>{html.escape(run.name)}</title><style>{_STYLE}</style>"
        f"<pre>{html.escape(describe(run))}</pre><img alt='training curves' src='data:image/png;base64,{picture}'>"
    )
    (run / "report.html").write_text(page, encoding="utf-8")
    return run / "report.html"


def _result(history: dict[str, list[Any]], config: Config, run: Path) -> list[str]:
    epochs = len(history["epoch"])
    lines = [
        f"{epochs} of {config.run.epochs} epochs, {sum(history['seconds']) / 60:.1f} minutes of training"
    ]
    if epochs < config.run.epochs and checkpoints(run):
        lines.append(f"goes on with: python -m sbirlib train --out {run} --resume")
    chosen = max((row for row in range(epochs) if history["best"][row]), default=epochs - 1)
    line = f"kept epoch {int(history['epoch'][chosen])}, chosen on {history['selected_on'][chosen]}"
    scores = [
        f"Acc@{k} {history[f'val_acc@{k}'][chosen]:.1f} %"
        for k in (1, 5, 10)
        if not math.isnan(history[f"val_acc@{k}"][chosen])
    ]
    lines.append(f"{line}: {', '.join(scores)}" if scores else line)
    if history["skipped"][-1]:
        lines.append(
            f"{int(history['skipped'][-1])} files of the training data were left out because of faults"
        )
    return lines


def _settings(config: Config) -> list[str]:
    return [
        f"  {own.name} = {own.default}"
        for own, paper in zip(knobs(config), knobs(), strict=True)
        if own.default != paper.default
    ]


def _lines(values: dict[str, Any], indent: str = "  ") -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {value}")
    return lines
