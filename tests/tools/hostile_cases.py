"""Kinds of hostile input, the command or call that meets them, and what it answers."""

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.io import savemat
from tools.hostile_files import picture, safetensors

from sbirlib import load_run
from sbirlib.cli.app import main
from sbirlib.errors import InputError
from sbirlib.methods.base import fingerprint
from sbirlib.retrieval.gallery import Gallery

GOOD = {
    f"{folder}/{name}.png": picture()
    for folder, name in [
        ("trainA", "a_1"),
        ("trainB", "a"),
        ("trainA", "b_1"),
        ("trainB", "b"),
        ("testA", "c_01"),
        ("testB", "c"),
    ]
}


class Bench(NamedTuple):
    """Where a case is built: its folder `root`, a trained model `run`, and the `mark` of evil code."""

    root: Path
    run: Path

    @property
    def mark(self):
        return self.root / "owned"

    def data(self, name="", content=b""):
        """A sound data folder, and one hostile file in it."""
        for good, data in GOOD.items():
            (self.root / "data" / good).parent.mkdir(parents=True, exist_ok=True)
            (self.root / "data" / good).write_bytes(data)
        if name:
            (self.root / "data" / name).write_bytes(content)
        return self.root / "data"

    def import_chairs(self, name="", out="out"):
        """Imports what is called `name`."""
        words = ["data", "import", "qmulv1", str(self.root / name), "--category", "chairs"]
        return [*words, "--out", str(self.root / out)]

    def evaluate(self, change: Callable[[Path], object]):
        """Scores a copy of the run after `change` has changed its `best` folder."""
        shutil.copytree(self.run / "best", self.root / "run" / "best")
        change(self.root / "run" / "best")
        return ["evaluate", "--run", f"{self.root}/run", "--data.root", str(self.data())]


class Case(NamedTuple):
    """One kind of hostile input: `build` makes it and returns the command or call; `words` are said."""

    kind: str
    build: Callable
    code: int
    words: str


def image(kind, name, content, code, words):
    """A picture among the photos of a data folder, which is then checked."""
    return Case(
        kind, lambda bench: ["data", "check", str(bench.data(f"testB/{name}", content()))], code, words
    )


def special(kind, make, words):
    """Something that is named like a picture and is no file."""

    def build(bench):
        make(bench.data() / "testB" / "x.png")
        return ["data", "check", f"{bench.root}/data"]

    return Case(kind, build, 1, words)


def download(kind, name, content, words):
    """A file to import, which is no folder: its bytes, or what makes it."""

    def build(bench):
        make = content if callable(content) else lambda path: path.write_bytes(content)
        make(bench.root / name)
        return bench.import_chairs(name)

    return Case(kind, build, 2, words)


def unpacked(kind, files, words):
    """A folder to import, of {name: bytes}."""

    def build(bench):
        for name, data in files.items():
            (bench.root / "down" / name).parent.mkdir(parents=True, exist_ok=True)
            (bench.root / "down" / name).write_bytes(data)
        return bench.import_chairs("down")

    return Case(kind, build, 2, words)


def matrix(kind, change, words):
    """A MAT-file of QMUL-V1 to import, from the bytes of a sound one."""

    def build(bench):
        sound = io.BytesIO()
        savemat(sound, {"data": np.full((2, 256, 256), 255, np.uint8)}, do_compression=False)
        for side, content in (("sketch", sound.getvalue()), ("edge", change(sound.getvalue()))):
            (bench.root / f"chairs_{side}_db_train.mat").write_bytes(content)
        return bench.import_chairs()

    return Case(kind, build, 2, words)


def config(kind, content, words, code=2):
    """The config.yaml of a run."""

    def change(best):
        (best / "config.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())

    return Case(kind, lambda bench: bench.evaluate(change), code, words)


def weights(kind, change, words):
    """The model.safetensors of a run."""
    return Case(kind, lambda bench: bench.evaluate(lambda best: change(best / "model.safetensors")), 2, words)


def checkpoint(kind, make, words):
    """A file from elsewhere with the weights of a backbone."""

    def build(bench):
        make(bench.root / "model.pth", bench.mark)
        start = ["--model.backbone", "resnet18", "--model.weights", f"{bench.root}/model.pth"]
        data = ["--data.root", str(bench.data()), "--data.val_fraction", "0"]
        return ["train", *start, *data, "--out", f"{bench.root}/out"]

    return Case(kind, build, 2, words)


def resume(kind, make, words):
    """The state of a stopped run, with the checksums of what it holds."""

    def build(bench):
        folder = bench.root / "run/state/000001-000001"
        folder.mkdir(parents=True)
        make(folder / "trainer.pt", bench.mark)
        (folder / "model.safetensors").write_bytes(b"")
        sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        (folder / "checksums.json").write_text(json.dumps(sums))
        return ["train", "--out", f"{bench.root}/run", "--resume"]

    return Case(kind, build, 2, words)


def beginning(kind, content, words, code=2):
    """The start.yaml of a run."""

    def build(bench):
        shutil.copytree(bench.run, bench.root / "run")
        (bench.root / "run" / "start.yaml").write_text(content)
        return ["report", f"{bench.root}/run"]

    return Case(kind, build, code, words)


def result(kind, content, words):
    """The result.json of a run in an ablation."""

    def build(bench):
        for name in ("a@0", "b@0"):
            (bench.root / "grid/runs" / name).mkdir(parents=True)
            (bench.root / "grid/runs" / name / "result.json").write_text(content)
        return ["compare", f"{bench.root}/grid", "a", "b"]

    return Case(kind, build, 2, words)


def demo(kind, content, words):
    """The record of MiniClothes, in the folder where it is to be drawn."""

    def build(bench):
        (bench.root / "clothes").mkdir()
        (bench.root / "clothes" / "miniclothes.json").write_text(content)
        return ["data", "demo", "--out", f"{bench.root}/clothes"]

    return Case(kind, build, 2, words)


def call(kind, name, make, read, words):
    """A file that only notebooks read, by the function that they call."""

    def build(bench):
        make(bench.root / name)
        return lambda: read(bench, bench.root / name)

    return Case(kind, build, 2, words)


def gallery(kind, content, words, *, rows=2, own=True):
    """A saved gallery: its bytes, or the lines of its stamps in a file otherwise like that of `Gallery.save`.

    `own`: it says that it is of the model with which it is read.
    """

    def build(bench):
        path, model = bench.root / "photos.safetensors", load_run(bench.run)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            owner = fingerprint(model.photo_encoder) if own else "another"
            lines, end = content.encode(), 4 * rows
            safetensors(
                path,
                {
                    "__metadata__": {"model": owner, "view": f"{model.image_size} px, {model.fit}"},
                    "embeddings": {"dtype": "F32", "shape": [rows, 1], "data_offsets": [0, end]},
                    "stamps": {"dtype": "U8", "shape": [len(lines)], "data_offsets": [end, end + len(lines)]},
                },
                bytes(end) + lines,
            )
        return lambda: Gallery.load(path, model)

    return Case(kind, build, 2, words)


def search(kind, name, content, words):
    """A sketch to search with."""

    def build(bench):
        (bench.root / name).write_bytes(content)
        return [
            "search",
            f"{bench.root}/{name}",
            "--run",
            str(bench.run),
            "--photos",
            f"{bench.data()}/testB",
        ]

    return Case(kind, build, 2, words)


class Result(NamedTuple):
    """The exit code and everything that was printed."""

    code: int
    text: str


def execute(case, bench, encoding="utf-8"):
    """Runs the command of a case, or the call as a command would, in a terminal of this encoding."""
    words = case.build(bench)
    printed = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        contextlib.chdir(bench.root),
    ):
        try:
            code = main(words) if isinstance(words, list) else int(words() is None)
        except InputError as error:
            print(f"error: {error}")
            code = 2
    printed.flush()
    return Result(code, printed.buffer.getvalue().decode(encoding))


def snapshot(root):
    """Everything below a folder: a hash for a file, the kind of anything else."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file() and not path.is_symlink()
        else path.lstat().st_mode
        for path in root.rglob("*")
    }
