"""Student copies, solutions and tests of the exercises, from one source: `python tests/tools/exercises.py`.

A master in `notebooks/exercises/masters/` holds text, solutions and tests. otter makes of it a student copy
with its tests, in `notebooks/exercises/`, committed so that a clone has them, and the solution, in
`notebooks/solutions/`, which is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode
from otter.assign import main as assign

FOLDER = Path(__file__).parents[2] / "notebooks" / "exercises"
MASTERS = sorted((FOLDER / "masters").glob("*.ipynb"))
SOLUTIONS = FOLDER.parent / "solutions"


class Built(NamedTuple):
    """What a master makes: a notebook with three dots, one with answers, and a test file by exercise."""

    student: NotebookNode
    solution: NotebookNode
    tests: dict[str, str]


def build(master: Path) -> Built:
    """All of it, the same at every call."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        assign(str(master), folder, no_pdfs=True, no_run_tests=True)
        student, solution = (Path(folder) / name for name in ("student", "autograder"))
        tests = {path.stem: path.read_text() for path in sorted(student.glob("tests/*.py"))}
        return Built(_tidy(student / master.name), _tidy(solution / master.name), tests)


def _tidy(path: Path) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if check := re.fullmatch(r'grader\.check\("(\w+)"\)', cell.source):
            cell.id = f"check-{check[1]}"  # otter names it by chance
        # Marks for otter, of no use to a reader.
        marks = r"^ *# (BEGIN|END) SOLUTION\n?|  # SOLUTION$"
        cell.source = re.sub(marks, "", cell.source, flags=re.MULTILINE).rstrip()
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


def write(notebook: NotebookNode, tests: dict[str, str], path: Path) -> None:
    """Writes a notebook, and its tests beside it where checks look for them."""
    path.with_name("tests").mkdir(parents=True, exist_ok=True)
    path.write_text(text(notebook), encoding="utf-8")
    for exercise, source in tests.items():
        (path.with_name("tests") / f"{exercise}.py").write_text(source, encoding="utf-8")


def main() -> None:
    """Writes all copies and solutions; copies with answers in them stay as they are."""
    kept = []
    for master in MASTERS:
        student, solution, tests = build(master)
        write(solution, tests, SOLUTIONS / master.name)
        if worked_in(FOLDER / master.name):
            kept.append(master.name)
        else:
            write(student, tests, FOLDER / master.name)
    if kept:
        print(
            f"Not written anew, because there are answers in them: {', '.join(kept)}. Rename or delete these."
        )
    print(f"Exercises: {FOLDER}. Solutions: {SOLUTIONS}.")


if __name__ == "__main__":
    main()
