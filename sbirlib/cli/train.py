"""The commands `train` and `report`."""

import shlex
import signal
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState
from tyro.conf import Positional

from sbirlib.cli.flags import Flags, Start, flags_of, taking
from sbirlib.errors import InputError, printable
from sbirlib.runs.folder import Run
from sbirlib.runs.report import describe, write_page
from sbirlib.training.signals import Stop, noted
from sbirlib.training.trainer import train


def train_from(start: Start) -> Callable[..., int]:
    """The `train` command with the values of `start` as defaults of its flags."""
    base = flags_of(start.config)

    def train_command(
        out: Path, config: Flags = base, preset: str = start.preset, overwrite: bool = False,
        resume: bool = False,
    ) -> int:  # fmt: skip
        """Train a model on the train split of a folder.

        Args:
            out: Folder for the run: last/ or best/, history.csv, and state/ to go on from.
            config: Hyper-parameters.
            preset: Where the defaults of all other flags come from: mini and mini_full (from scratch, minutes
                on a CPU), lite and lite_full (pretrained, for real drawings), basic and full (the paper's);
                the full ones with token recycling.
            overwrite: Replace the run that OUT already holds.
            resume: Go on with the run in OUT, with its own settings, as if it had never stopped.
        """
        interrupted, stop, settings = False, Stop(), config.config()
        # A scheduler ends the job with SIGTERM: save a checkpoint.
        with noted(signal.SIGTERM, lambda: stop.ask(now=True)):
            root = settings.data.root
            if resume and not Path(root).is_dir():
                lost = f"{out} learns from {root}, which is not found from here"
                raise InputError(f"{lost}; name the folder by --data.root, wherever it is now")
            records = train(root, settings, out=out, overwrite=overwrite, resume=resume, stop=stop)
            epochs, first = settings.run.epochs, Run(out).next_epoch if resume else 1
            if first <= epochs:
                what = f"{settings.method} on {settings.model.backbone}"
                how = "going on with" if resume else "training"
                _tell(f"{how} {what}, epochs {first} to {epochs}, one line for each")
            try:
                for record in records:
                    _tell(record)
            except KeyboardInterrupt:
                interrupted = True
        if Run(out).epochs >= epochs:
            _tell(f"The run is in {out}")
        else:
            again = f"`python -m sbirlib train --out {shlex.quote(str(out))} --resume` goes on from here"
            _tell(f"stopped; {again if Run(out).checkpoints else 'there is no checkpoint to go on from'}")
        return 130 if interrupted else 0

    return taking(train_command, base)


def _tell(what: object) -> None:
    if PartialState().is_main_process:
        print(printable(str(what)), flush=True)


def report_command(run: Positional[Path], out: Path | None = None) -> int:
    """Print a run's report: result, settings, data, weights, versions; with its curves in RUN/report.html.

    Args:
        run: Folder that `train --out` wrote.
        out: Write the page with the curves to this file instead.
    """
    print(describe(run))
    print(f"\nwrote {write_page(run, out)}")
    return 0
