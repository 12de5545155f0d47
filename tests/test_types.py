"""Types hold: for who uses the public API, and in the rooms that pyproject.toml lists."""

import ast
import subprocess
import sys
from pathlib import Path

import sbirlib

ROOT = Path(__file__).parents[1]
USER = ROOT / "tests" / "tools" / "public_api.py"


def mypy(*words):
    """mypy with the settings and `files` of pyproject.toml; its cache makes the second call quick."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_public_api_has_the_types_that_the_readme_uses():
    mypy(str(USER))


def test_all_of_the_public_api_is_checked():
    imports = [node for node in ast.parse(USER.read_text()).body if isinstance(node, ast.ImportFrom)]
    [public] = [node for node in imports if node.module == "sbirlib"]
    assert {name.name for name in public.names} == set(sbirlib.__all__)


def test_the_rooms_are_typed():
    mypy()
