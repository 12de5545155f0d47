"""A run on one page: its result, curves, settings, data, weights and versions."""

import base64
import html
import math
import shlex
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from sbirlib.config.config import Config
from sbirlib.errors import printable
from sbirlib.runs.atomic import RunError, write_text
from sbirlib.runs.folder import Run

_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}pre{white-space:pre-wrap;"
    "background:#f6f6f6;padding:1em}img{max-width:100%}"
)


def describe(run: str | Path) -> str:
    """The page as plain text: result, settings other than the paper's, and what the run began from.

    Raises RunError if `run` is not a run, or has not finished an epoch.
    """
    place = Run(run)
    history, config = place.history(), place.config()
    paper = Config().updated({"method": config.method}).flat()
    settings = [f"  {name} = {value}" for name, value in config.flat().items() if value != paper[name]]
    parts = [f"Run {place.path}, method {config.method}", *_result(place, config, history), ""]
    parts += ["Settings that differ from the paper's defaults:", *settings, ""]
    start = yaml.safe_dump(place.start(), sort_keys=False, allow_unicode=True, width=math.inf)
    return "\n".join(map(printable, [*parts, "Began from:", *indent(start, "  ").splitlines()]))


def write_page(run: str | Path, out: str | Path | None = None) -> Path:
    """Writes the report with its curves to `out`, or `report.html` in the run folder; it needs no other file.

    Raises RunError as `describe`, or if the page cannot be written.
    """
    # Seaborn takes two seconds to import: only for a picture.
    from sbirlib.figures.curves import training_curves
    from sbirlib.figures.style import png_bytes

    place = Run(run)
    picture = base64.b64encode(png_bytes(training_curves(place.history()))).decode()
    page = (
        f"<!doctype html><meta charset='utf-8'><title>{html.escape(place.path.name)}</title>"
        f"<style>{_STYLE}</style><pre>{html.escape(describe(run))}</pre>"
        f"<img alt='training curves' src='data:image/png;base64,{picture}'>"
    )
    file = Path(out or place.report_file)
    try:
        write_text(file, page)
    except OSError as error:
        raise RunError(f"{file} cannot be written ({error.strerror}); name another file (--out)") from None
    return file


def _result(run: Run, config: Config, history: dict[str, list[Any]]) -> list[str]:
    epochs, minutes = len(history["epoch"]), sum(history["seconds"]) / 60
    lines = [f"{epochs} of {config.run.epochs} epochs, {minutes:.1f} minutes of training"]
    if epochs < config.run.epochs and run.checkpoints:
        lines.append(f"goes on with: python -m sbirlib train --out {shlex.quote(str(run.path))} --resume")
    chosen = max((row for row in range(epochs) if history["best"][row]), default=epochs - 1)
    percent = {k: history[f"val_acc@{k}"][chosen] for k in (1, 5, 10)}
    scores = ", ".join(f"Acc@{k} {value:.1f} %" for k, value in percent.items() if not math.isnan(value))
    queries, where = history.get("val_queries", [0])[-1], history["selected_on"][chosen]
    searched = f"{queries:.0f} sketches of {where}" if queries else where
    how = f"chosen on {searched}" if history["best"][chosen] else f"the last; on {searched}"
    line = f"kept epoch {int(history['epoch'][chosen])}, {how}"
    lines.append(f"{line}: {scores}" if scores else line)
    skipped = int(history["skipped"][-1])
    if skipped:
        lines.append(f"{skipped} files of the training data were left out because of faults")
    return lines
