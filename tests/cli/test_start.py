"""Commands that compute nothing start without the libraries that take seconds to import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLOW = {
    "accelerate", "IPython", "ipywidgets", "joblib", "matplotlib", "pandas", "scipy.ndimage", "scipy.sparse",
    "scipy.spatial", "scipy.special", "scipy.stats", "seaborn", "sklearn", "tensorboard", "timm", "torch",
    "torchvision", "voila",
}  # fmt: skip
COMMANDS = (
    "data", "train", "evaluate", "embed", "search", "app", "report", "methods", "weights", "ablate",
    "compare", "bench",
)  # fmt: skip
HELP = ["--help", *(f"{command} --help" for command in COMMANDS)]
DONE = [*HELP, "methods", "data check clothes", "report run"]


@pytest.mark.parametrize(("words", "code"), [*((words, 0) for words in DONE), ("compare nowhere a b", 2)])
def test_what_computes_nothing_imports_nothing_slow(words, code, clothes, run, tmp_path):
    (tmp_path / "clothes").symlink_to(clothes)
    (tmp_path / "run").symlink_to(run)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sbirlib", *words.split()],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "sbirlib.cli.app" in imported
    assert imported & SLOW == set()


KEPT = """
import sys
from pathlib import Path
from sbirlib.cli import app
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
if "keep" in sys.argv:
    app.keep_memory()
before = resident()
freed = bytearray(2**27)
del freed
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux's memory is read here")
@pytest.mark.parametrize("word", ["keep", "leave"])
def test_memory_that_is_freed_stays(word):
    printed = subprocess.check_output([sys.executable, "-c", KEPT, word], text=True, cwd=ROOT)
    assert (int(printed) > 2**26) == (word == "keep")
