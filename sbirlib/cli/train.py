"""The commands `train` and `report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from accelerate import PartialState
from tyro.conf import Positional, arg

from sbirlib.config.config import Config
from sbirlib.runs.history import HISTORY, read_history
from sbirlib.runs.report import describe, write_page
from sbirlib.runs.state import saved_config
from sbirlib.training.signals import _terminated
from sbirlib.training.trainer import train


def train_from(preset: str, base: Config):
    """The `train` command with the values of `base` as defaults of its flags."""

    def train_command(
        out: Path,
        config: Annotated[Config, arg(name="")] = base,
        preset: str = preset,
        overwrite: bool = False,
        resume: bool = False,
    ) -> int:
        """Train a model on the train split of a folder.

        Args:
            out: Folder for the run: best/, last/, history.csv, and state/ to go on from.
            config: Hyper-parameters.
            preset: Where the defaults of all other flags come from: mini and mini_full (CPU, minutes), basic and
                full (the paper's); full with token recycling.
            overwrite: Replace the run that OUT already holds.
            resume: Go on with the run in OUT, with its own settings, as if it had not been stopped.
        """
        interrupted = False
        with _terminated() as stop:
            records = train(config.data.root, config, out=out, overwrite=overwrite, resume=resume, stop=stop)
            tell = print if PartialState().is_main_process else _silent
            begun = _epochs_done(out) if resume else 0
            if begun < config.run.epochs:
                tell(
                    f"{'going on with' if resume else 'training'} {config.model.backbone}, epochs {begun + 1} to "
                    f"{config.run.epochs}, a line after each",
                    flush=True,
                )
            try:
                for record in records:
                    tell(record, flush=True)
            except KeyboardInterrupt:
                interrupted = True
        tell(
            f"The run is in {out}"
            if _epochs_done(out) >= config.run.epochs
            else f"stopped; `python -m sbirlib train --out {out} --resume` goes on from here"
        )
        return 130 if interrupted else 0

    return train_command


def _epochs_done(run: Path) -> int:
    return len(read_history(run)["epoch"]) if (run / HISTORY).is_file() else 0


def _silent(*words: object, **options: object) -> None:
    """Stands for `print` in all processes but the first."""


def report_command(run: Positional[Path]) -> int:
    """Tell a run on one page: result, settings, data, weights, versions; with its curves in RUN/report.html.

    Args:
        run: Folder that `train --out` wrote.
    """
    text = describe(run)
    page = write_page(run)
    print(f"{text}\n\nwrote {page}")
    return 0


def _base(argv: Sequence[str], preset: str) -> Config:
    """What the flags of `train` start from: the preset, or with --resume the settings of the run."""

    def run_of(out: Path = Path(), resume: bool = False) -> Path | None:
        return out if resume else None

    flags = [word for word in argv[1:] if word not in ("-h", "--help")]
    run = tyro.cli(run_of, args=flags, return_unknown_args=True)[0] if argv and argv[0] == "train" else None
    return Config.preset(preset) if run is None else saved_config(run)
