"""The command line: `python -m sbirlib` and data, train, evaluate, search, picture, report, ablate, compare, bench."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from accelerate import PartialState
from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from sbirlib import ablation, grids
from sbirlib.commands import bench_command, evaluate_command, picture_command, search_command
from sbirlib.config import Config
from sbirlib.fields import InputError
from sbirlib.garments import draw_miniclothes
from sbirlib.images import printable
from sbirlib.pairs import PairFolder
from sbirlib.report import describe, write_page
from sbirlib.runs import HISTORY, read_history
from sbirlib.sources import Source, import_dataset
from sbirlib.state import saved_config
from sbirlib.train import train


@dataclass(frozen=True)
class Demo:
    """Draw MiniClothes, the embedded data set."""

    out: Path = Path("data/MiniClothes")
    """Folder to draw into; the same drawing already there is kept."""
    seed: int = 0
    """Another seed draws other garments."""
    photos: tuple[int, int] = (380, 120)
    """Photos of the training and of the test split."""
    sketches: tuple[int, int] = (925, 275)
    """Sketches of both; each photo has one to seven."""

    def run(self) -> int:
        """Draws; exit code 0."""
        folder = draw_miniclothes(self.out, seed=self.seed, photos=self.photos, sketches=self.sketches)
        print(f"MiniClothes is in {folder}")
        return 0


@dataclass(frozen=True)
class Check:
    """Report what a data folder holds; exit code 1 if any file would be left out or a split is empty."""

    folder: Positional[Path]
    """Folder with trainA/ trainB/ testA/ testB/ (A sketches, B photos)."""

    def run(self) -> int:
        """Prints the report; exit code 1 if any file would be left out."""
        report = PairFolder(self.folder).report()
        print(report)
        return 1 if report.left_out or report.empty else 0


@dataclass(frozen=True)
class Import:
    """Bring in a public data set that you have downloaded, and compare its counts with the published ones."""

    source: Positional[Source]
    """Which data set."""
    archive: Positional[Path]
    """What was downloaded: a .zip, .tar or .tar.gz, or a folder."""
    out: Path
    """Folder to write trainA/ trainB/ testA/ testB/ into, such as data/ClothesV1."""

    def run(self) -> int:
        """Prints the report; exit code 0, also where counts differ."""
        try:
            print(import_dataset(self.source, self.archive, self.out))
        except KeyboardInterrupt:
            print(f"stopped; nothing was imported to {self.out}", file=sys.stderr)
            return 130
        return 0


def data(command: Annotated[Demo, subcommand("demo")] | Annotated[Check, subcommand("check")]
         | Annotated[Import, subcommand("import")]) -> int:
    """Draw the embedded data set, check a folder of one's own, or bring in a public data set."""
    return command.run()


def train_from(preset: str, base: Config):
    """The `train` command with the values of `base` as defaults of its flags."""

    def train_command(out: Path, config: Annotated[Config, arg(name="")] = base, preset: str = preset,
                      overwrite: bool = False, resume: bool = False) -> int:
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
                tell(f"{'going on with' if resume else 'training'} {config.model.backbone}, epochs {begun + 1} to "
                     f"{config.run.epochs}, a line after each", flush=True)
            try:
                for record in records:
                    tell(record, flush=True)
            except KeyboardInterrupt:
                interrupted = True
        tell(f"The run is in {out}" if _epochs_done(out) >= config.run.epochs else
             f"stopped; `python -m sbirlib train --out {out} --resume` goes on from here")
        return 130 if interrupted else 0

    return train_command


def _epochs_done(run: Path) -> int:
    return len(read_history(run)["epoch"]) if (run / HISTORY).is_file() else 0


def _silent(*words: object, **options: object) -> None:
    """Stands for `print` in all processes but the first."""


@contextmanager
def _terminated() -> Iterator[threading.Event]:
    """Set when a scheduler ends the job (SIGTERM): time for a checkpoint."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread is sent signals
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def ablate_from(preset: str):
    """The `ablate` command with the values of `preset` as defaults of its flags."""
    base = Config.preset(preset)

    def ablate_command(out: Path, config: Annotated[Config, arg(name="")] = base, preset: str = preset,
                       grid: Literal[grids.GRIDS] | None = None, vary: tuple[str, ...] = (),
                       seeds: tuple[int, ...] = (0, 1, 2), frozen: str | None = None,
                       weights: Path | None = None) -> int:
        """Train variants over seeds and compare them; a run that OUT already holds is not done again.

        Args:
            out: Folder for runs/, results.csv (a row a run) and ablation.png.
            config: Hyper-parameters of every variant.
            preset: Where the defaults of all other flags come from.
            grid: A ready-made grid of variants; the first is what the others are compared with.
            vary: Instead of a grid: fields and their values, such as mstr.weight=0.1,0.5 (all combinations).
            seeds: Seeds of weights, data order, views and validation split.
            frozen: Also a row for this timm backbone as it is, without any training.
            weights: With frozen: a local file instead of the published weights.
        """
        if (grid is not None) + bool(vary) != 1 and not (frozen and grid is None and not vary):
            raise InputError("name either --grid or --vary (or --frozen alone)")
        if frozen is not None:
            ablation.score_frozen(config, frozen, weights=weights or "", out=out)
        variants = grids.grid(grid, config) if grid else grids.vary(vary) if vary else []
        for row in ablation.ablate(config, variants, seeds, out=out) if variants else ():
            print(f"{row.variant}, seed {row.seed}: Acc@1 {row.score['acc@1']:.1f} % "
                  f"({row.score['hits@1']}/{row.score['queries']})"
                  f"{', TEST SET chose the epoch' if row.score['protocol'].count('CHOSEN ON') else ''}", flush=True)
        print(ablation.summary(out))
        return 0

    return ablate_command


def report_command(run: Positional[Path]) -> int:
    """Tell a run on one page: result, settings, data, weights, versions; with its curves in RUN/report.html.

    Args:
        run: Folder that `train --out` wrote.
    """
    text = describe(run)
    page = write_page(run)
    print(f"{text}\n\nwrote {page}")
    return 0


def compare_command(out: Positional[Path], first: Positional[str], second: Positional[str], k: int = 1) -> int:
    """Paired bootstrap between two variants of an ablation, or two runs as variant@seed.

    Args:
        out: Folder that `ablate --out` wrote.
        first: What to compare with.
        second: What is compared.
        k: Acc@k is compared.
    """
    print(f"Acc@{k} of {second!r} less that of {first!r}: {ablation.compare(out, first, second, k)}")
    for protocol in dict.fromkeys(row.score["protocol"] for row in ablation.read_rows(out)
                                  if {row.variant, f"{row.variant}@{row.seed}"} & {first, second}):
        print(protocol)
    return 0


# Commands whose flags take their defaults from a preset, and the one they start from.
_PRESET_COMMANDS = {"train": "mini", "ablate": "mini_full"}


def _preset(argv: Sequence[str]) -> str:
    """The preset that these words ask for."""
    command = argv[0] if argv else ""
    if command not in _PRESET_COMMANDS:
        return "mini"

    def preset_of(preset: str = _PRESET_COMMANDS[command]) -> str:
        return preset

    flags = [word for word in argv[1:] if word not in ("-h", "--help")]
    return tyro.cli(preset_of, args=flags, return_unknown_args=True)[0]


def _base(argv: Sequence[str], preset: str) -> Config:
    """What the flags of `train` start from: the preset, or with --resume the settings of the run."""
    def run_of(out: Path = Path(), resume: bool = False) -> Path | None:
        return out if resume else None

    flags = [word for word in argv[1:] if word not in ("-h", "--help")]
    run = tyro.cli(run_of, args=flags, return_unknown_args=True)[0] if argv and argv[0] == "train" else None
    return Config.preset(preset) if run is None else saved_config(run)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code, 2 for bad input (with one message on stderr)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A name of a file may have letters that this terminal has not; a notebook's stream takes all.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        # The preset decides the defaults of the other flags, so it is read first.
        preset = _preset(argv)
        commands = {"data": data, "train": train_from(preset, _base(argv, preset)), "evaluate": evaluate_command,
                    "search": search_command, "picture": picture_command, "report": report_command,
                    "ablate": ablate_from(preset), "compare": compare_command, "bench": bench_command}
        return tyro.extras.subcommand_cli_from_dict(
            commands, prog="python -m sbirlib", description=__doc__, args=argv, config=(OmitSubcommandPrefixes,))
    except BrokenPipeError:
        # Whoever read the output (`| head`) has seen enough; the exit must not write to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (InputError, OSError) as error:
        print("\n".join(map(printable, f"error: {error}".split("\n"))), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was written stays", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
