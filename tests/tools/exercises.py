"""Student copies and solutions of the exercises, from one source: `python tests/tools/exercises.py`.

A master in `notebooks/exercises/masters/` holds text, solutions and tests. otter makes two notebooks of it:
the student copy in `notebooks/exercises/`, which is committed so that a clone has it, and the solution in
`notebooks/solutions/`, which is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode
from otter.assign import main as assign

FOLDER = Path(__file__).parents[2] / "notebooks" / "exercises"
MASTERS = sorted((FOLDER / "masters").glob("*.ipynb"))
SOLUTIONS = FOLDER.parent / "solutions"


class Pair(NamedTuple):
    """What a master makes: the notebook with three dots, and the one with answers."""

    student: NotebookNode
    solution: NotebookNode


def build(master: Path) -> Pair:
    """Both notebooks, the same at every call."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        assign(str(master), folder, no_pdfs=True, no_run_tests=True)
        return Pair(*(_tidy(Path(folder) / which / master.name) for which in ("student", "autograder")))


def _tidy(path: Path) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if check := re.fullmatch(r'grader\.check\("(\w+)"\)', cell.source):
            cell.id = f"check-{check[1]}"  # otter names it by chance
        # Marks for otter, of no use to a reader.
        cell.source = re.sub(
            r"^ *# (BEGIN|END) SOLUTION\n?|  # SOLUTION$", "", cell.source, flags=re.M
        ).rstrip()
    notebook.metadata["sources"] = sources(notebook)
    return notebook


def sources(notebook: NotebookNode) -> str:
    """A mark of all cells' sources, by which a copy that somebody has worked in is told from a fresh one."""
    return hashlib.sha256("\0".join(cell.source for cell in notebook.cells).encode()).hexdigest()[:16]


def worked_in(path: Path) -> bool:
    """Whether a student copy holds more than what was built."""
    if not path.exists():
        return False
    notebook = nbformat.read(path, as_version=4)
    return notebook.metadata.get("sources") != sources(notebook)


def text(notebook: NotebookNode) -> str:
    """The notebook as it is committed."""
    return nbformat.writes(notebook, indent=1) + "\n"


def main() -> int:
    """Writes all copies and solutions; copies with answers in them stay as they are."""
    SOLUTIONS.mkdir(exist_ok=True)
    kept = []
    for master in MASTERS:
        student, solution = build(master)
        (SOLUTIONS / master.name).write_text(text(solution), encoding="utf-8")
        path = FOLDER / master.name
        if worked_in(path):
            kept.append(path.name)
        else:
            path.write_text(text(student), encoding="utf-8")
    if kept:
        print(
            f"Not written anew, because there are answers in them: {', '.join(kept)}. Rename or delete these."
        )
    print(f"Exercises: {FOLDER}. Solutions: {SOLUTIONS}.")
    return bool(kept)


if __name__ == "__main__":
    sys.exit(main())
