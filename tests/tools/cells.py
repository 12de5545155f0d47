"""A notebook's code cells run in one namespace, as in a kernel, so that tests can ask what came out."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
from tools.pages import FOLDER


class Page:
    """A notebook that was run: `page["scores"]` is a variable, `page.printed` what each cell printed.

    `skip` says of a cell's source whether it is left out, such as a training that takes minutes.
    """

    def __init__(self, name: str, where: Path, skip: Callable[[str], bool] = lambda source: False) -> None:
        self.printed: dict[str, str] = {}
        self.names: dict[str, Any] = {"__name__": "__main__"}
        cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
        with working_in(where):
            for cell in cells:
                if cell.cell_type == "code" and not skip(cell.source):
                    self.printed[cell.id] = self._run(cell.source, f"{name}, cell {cell.id}")

    def __getitem__(self, name: str) -> Any:
        return self.names[name]

    def _run(self, source: str, title: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(source, title, "exec"), self.names)
        plt.close("all")
        return out.getvalue()


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """The paths of a notebook begin where it lies."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
