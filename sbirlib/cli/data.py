"""The command `data`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, subcommand

from sbirlib.data.pairs import PairFolder
from sbirlib.miniclothes.dataset import draw_miniclothes
from sbirlib.sources.importing import Category, Source, import_dataset


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


@dataclass(frozen=True)
class Check:
    """Report what a data folder holds; exit code 1 if any file would be left out or a split is empty."""

    folder: Positional[Path]
    """Folder with trainA/ trainB/ testA/ testB/ (A sketches, B photos)."""


@dataclass(frozen=True)
class Import:
    """Import a public data set that you have downloaded, and compare its counts with the published ones."""

    source: Positional[Source]
    """Which data set."""
    archive: Positional[Path]
    """What was downloaded: a .zip, or a folder; unpack other archives yourself."""
    out: Path
    """Folder to write trainA/ trainB/ testA/ testB/ into, such as data/ClothesV1."""
    category: Category | None = None
    """With qmulv1: which part of it."""


def data_command(
    command: Annotated[Demo, subcommand("demo")]
    | Annotated[Check, subcommand("check")]
    | Annotated[Import, subcommand("import")],
) -> int:
    """Draw the embedded data set, check a folder of your own, or bring in a public data set."""
    if isinstance(command, Check):
        report = PairFolder(command.folder).report()
        print(report)
        return 1 if report.left_out or report.empty else 0
    try:
        if isinstance(command, Demo):
            photos, sketches = command.photos, command.sketches
            folder = draw_miniclothes(command.out, seed=command.seed, photos=photos, sketches=sketches)
            print(f"MiniClothes is in {folder}")
        else:
            print(import_dataset(command.source, command.archive, command.out, command.category))
    except KeyboardInterrupt:
        print(f"stopped; nothing was written to {command.out}", file=sys.stderr)
        return 130
    return 0
