"""Installed as a wheel, the kit works away from its checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What the build may see: a build in the checkout itself would leave its folders there.
SOURCES = ["pyproject.toml", "README.md", "LICENSE", "sbirlib", "tests"]

COMMANDS = {
    "data demo": "data demo --out clothes --photos 8 4 --sketches 16 8",
    "train": "train --preset mini --data.root clothes --out run --run.epochs 1 --run.tracker none"
    " --model.image_size 48 --optim.batch_size 8",
    "evaluate": "evaluate --run run --data.root clothes",
    "methods": "methods",
}


def python(*words, **options):
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(command, *words):
    python("-m", "pip", command, "--quiet", "--no-deps", "--no-index", *words)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built as pip builds it, from a copy, with the setuptools that is installed: nothing is fetched."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    [wheel] = out.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_package_and_its_data_alone(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    ends = ("css", "csv", "ipynb", "json", "pyi", "yaml", "typed")
    data = {path for end in ends for path in (ROOT / "sbirlib").rglob(f"*.{end}")}
    assert {path.relative_to(ROOT).as_posix() for path in data} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"sbirlib"}
    assert {name for name in names if name.endswith(".py")} == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "sbirlib").rglob("*.py")
    }


def test_every_command_runs_away_from_the_checkout(wheel, tmp_path):
    installed, work = tmp_path / "installed", tmp_path / "work"
    work.mkdir()
    pip("install", "--target", str(installed), str(wheel))
    here = {"cwd": work, "env": os.environ | {"PYTHONPATH": str(installed)}}
    where = python("-c", "from importlib.util import find_spec; print(find_spec('sbirlib').origin)", **here)
    assert Path(where.strip()).is_relative_to(installed)
    said = {name: python("-m", "sbirlib", *words.split(), **here) for name, words in COMMANDS.items()}
    assert "The run is in run" in said["train"]
    assert "/8, 95 % CI" in said["evaluate"]
    assert "b_siamese: Cross-Modal" in said["methods"]
    table = "from sbirlib import published; print(*published.results('ClothesV1').method, sep='\\n')"
    assert "ARNet+MSTR" in python("-c", table, **here).splitlines()
