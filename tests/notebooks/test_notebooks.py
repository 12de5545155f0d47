"""The notebooks run from top to bottom, show their figures, and are committed clean."""

import ast
import time

import nbformat
import pytest
from nbclient import NotebookClient
from tools.browser import find_chromium
from tools.pages import FIGURES, FOLDER, NAMES, alt_text

# Where there is a browser, its tests run every cell of those with panels; the one without is run headless.
ALWAYS = ("08",)
ONCE_MORE = [pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name[:2] not in ALWAYS]
HEADLESS = [name for name in NAMES if name[:2] in ALWAYS] + ONCE_MORE if find_chromium() else NAMES


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_is_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_committed_without_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None


@pytest.mark.parametrize("name", NAMES)
def test_code_cells_are_short(name):
    for cell in code_cells(read(name)):
        assert len(cell.source.splitlines()) <= 10, cell.source


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_import_in_one_statement_from_the_top_level(name):
    cells = [cell.source for cell in code_cells(read(name)) if cell.id != "00-install"]
    code = ast.parse("\n".join(cells))
    whole = [alias.name for node in ast.walk(code) if isinstance(node, ast.Import) for alias in node.names]
    origins = [node.module for node in ast.walk(code) if isinstance(node, ast.ImportFrom)]
    # First of all: it sets how torch's threads wait, before torch is there.
    assert code.body[0].module == "sbirlib"
    assert [module for module in [*whole, *origins] if module.startswith("sbirlib")] == ["sbirlib"]


@pytest.mark.parametrize("name", NAMES)
def test_alt_texts_are_sentences_of_their_own(name):
    texts = [text for cell in code_cells(read(name)) if (text := alt_text(cell))]
    assert len(set(texts)) == len(texts)
    assert all(len(text) > 30 and text.endswith(".") for text in texts), texts


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_open_with_what_why_and_how_long(name):
    opening = read(name).cells[0].source
    for phrase in ("What you will learn", "Time on a CPU", "You need"):
        assert f"**{phrase}" in opening


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the notebooks run one after the other: what one draws or trains, the next one finds."""
    folder = tmp_path_factory.mktemp("course") / "notebooks"
    folder.mkdir()
    (folder / "results").symlink_to(FOLDER / "results")
    (folder.parent / "data").mkdir()
    (folder.parent / "data" / "models").symlink_to(FOLDER.parent / "data" / "models")
    return folder


@pytest.mark.parametrize("name", HEADLESS)
def test_notebooks_run_headless_in_time(name, folder, monkeypatch):
    monkeypatch.setenv("SBIR_FAST", "1")
    limit = 300 if name.startswith("08") else 120  # s; it trains thirteen models, beside other tests
    notebook = read(name)
    started = time.monotonic()
    # Outputs are kept as they come: the widgets' live state is of no use here.
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=limit,
        store_widget_state=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    assert time.monotonic() - started < limit
    figures = []
    for cell, following in zip(notebook.cells, notebook.cells[1:], strict=False):
        shown = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        figures += shown
        assert not any(
            output.output_type == "stream" and output.name == "stderr" and "Error" in output.text
            for output in cell.get("outputs", [])
        )
        assert not shown or alt_text(cell), f"no alt text: {cell.source}"
        if shown and "panel" not in cell.source:
            assert following.cell_type == "code" or "What to notice" in following.source, cell.source
    assert len(figures) >= FIGURES[name]
