"""The files that set the kit up agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from sbirlib.config.config import markdown_table

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_lists_what_pyproject_lists(project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    [pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == project["dependencies"]
    assert f"python{project['requires-python']}" in environment["dependencies"]


def test_constraints_pin_every_dependency_and_name_no_address(project):
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in lines)
    pinned = {line.split("==")[0].lower() for line in lines}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    assert {re.split(r"[<>=]", name)[0].lower() for name in wanted} <= pinned


def test_makefile_has_the_promised_targets():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "lab", "clean"} <= targets


def test_hyper_parameters_page_has_the_table_as_it_is_generated():
    page = ROOT / "notebooks/reference/hyper-parameters.md"
    assert markdown_table() in page.read_text(encoding="utf-8")


def test_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) < 16_000
