"""The files that set the kit up agree with each other."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from tools.hyper_parameters import markdown_table

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_leaves_the_list_to_pyproject_and_names_a_python_that_binder_reads(project):
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    [pip] = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    assert pip == ["-e .[course]"]
    # repo2docker, which Binder runs, knows an exact version of Python only.
    [python] = [re.fullmatch(r"python=3\.(\d+)", entry)[1] for entry in dependencies if "python=" in entry]
    assert int(python) >= int(re.fullmatch(r">=3\.(\d+)", project["requires-python"])[1])
    wanted = [
        re.sub("^torch(?=>)", "pytorch", name) for name in project["dependencies"] if name.startswith("torch")
    ]
    assert wanted
    assert set(wanted) <= {entry for entry in dependencies if isinstance(entry, str)}


def test_constraints_pin_every_dependency_and_name_no_address(project):
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in lines)
    pinned = {line.split("==")[0].lower() for line in lines}
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["test"], *extras["book"]]
    assert {re.split(r"[<>=]", name)[0].lower() for name in wanted} <= pinned


def test_makefile_has_the_promised_targets():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert targets == {"demo", "exercises", "test", "test-slow", "lab", "book", "clean"}


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_clean_removes_what_the_targets_made_and_nothing_else(tmp_path):
    made = (
        ".venv/x sbirlib.egg-info/x data/MiniClothes/x data/MiniClothes-tiny/x "
        "outputs/demo/x outputs/notebook/x outputs/screens/x "
        "outputs/book/x outputs/.book/x notebooks/solutions/x "
        "outputs/01_one.html .pytest_cache/x .hypothesis/x .ruff_cache/x .mypy_cache/x"
    )
    kept = (
        "notebooks/01_one.ipynb notebooks/exercises/x outputs/mine.html outputs/mine/x outputs/README.md "
        "data/MiniClothes-mine/x data/Mine/x dist/x build/x"
    )
    for name in f"{made} {kept}".split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*kept.split(), "Makefile"}


def test_citation_names_this_version_and_the_paper(project):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert f"(c) 2026 {citation['authors'][0]['name']}" in (ROOT / "LICENSE").read_text()
    [paper] = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert [author["family-names"] for author in paper["authors"]] == ["Jiang", "Tang", "Jiang", "Yu", "Wu"]
    assert paper["identifiers"][0]["value"] == "arXiv:2406.11551"


def test_the_workflow_runs_what_a_clean_clone_must_pass(project):
    [job] = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"].values()
    assert f">={job['strategy']['matrix']['python'][0]}" == project["requires-python"]
    assert job["steps"][-1]["run"].split()[-1] == ".ci/run"
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make test")


def test_what_runs_before_a_commit_comes_with_the_environment():
    [local] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    tools = {hook["entry"].split()[0] for hook in local["hooks"]}
    assert tools == {"ruff", "jupyter"}
    assert {hook["language"] for hook in local["hooks"]} == {"system"}


def test_hyper_parameters_page_has_the_table_as_it_is_generated():
    page = ROOT / "notebooks/reference/hyper-parameters.md"
    assert markdown_table() in page.read_text(encoding="utf-8")


def test_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) < 16_000


@pytest.mark.parametrize("command", ["check", "format --check"])
def test_code_and_notebooks_have_one_hand(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command.split(), "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
