"""The house keeps its order: rooms import downwards, and none grows beyond its subject."""

import ast
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sbirlib"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
# Python's own public names with an underscore.
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
MOST_LINES = 11_500
MOST_LINES_OF_A_FILE = 300


def lines(path):
    return path.read_text(encoding="utf-8").count("\n")


def imports(path):
    """The module and the names of each `from sbirlib... import ...`, the late ones too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sbirlib."):
            yield node.module, [name.name for name in node.names]


def test_imports_run_downwards_and_never_in_a_circle(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    # The layers are in pyproject.toml; what breaks them is printed.
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_no_private_name_crosses_rooms():
    crossing = []
    for path in PACKAGE.glob("*/*.py"):
        foreign = [
            (module, names) for module, names in imports(path) if module.split(".")[1] != path.parent.name
        ]
        used = [name for module, names in foreign for name in (*module.split("."), *names)]
        # What is private is out of reach as an attribute of what was imported, too.
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in used:
                used.append(node.attr)
        private = [name for name in used if name.startswith("_") and name not in OF_NAMED_TUPLES]
        crossing += [f"{path.relative_to(ROOT)}: {name}" for name in private]
    assert crossing == []


def test_what_is_imported_exists():
    # Late imports too, which fail only once somebody needs them.
    named = {(path, module) for path in FILES for module, _ in imports(path)}
    assert [
        f"{path.relative_to(ROOT)}: {module}" for path, module in sorted(named) if not exists(module)
    ] == []


def exists(module):
    return (
        ROOT.joinpath(*module.split(".")).is_dir()
        or ROOT.joinpath(f"{module.replace('.', '/')}.py").is_file()
    )


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_hands_out_its_names_and_nothing_else(room):
    init, stub = (PACKAGE / room / f"__init__.{end}" for end in ("py", "pyi"))
    # A stub says what a room loads only when it is asked for.
    docstring, *body = ast.parse((stub if stub.exists() else init).read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    imported = [name.name for node in body if isinstance(node, ast.ImportFrom) for name in node.names]
    [public] = [node for node in body if not isinstance(node, ast.ImportFrom)]
    assert ast.unparse(public.targets[0]) == "__all__"
    assert sorted(ast.literal_eval(public.value)) == sorted(imported)
    assert not any(name.startswith("_") for name in imported)


def test_few_files_stand_outside_the_rooms():
    assert len(list(PACKAGE.glob("*.py"))) <= 4


def test_no_file_is_longer_than_its_subject():
    assert {path.name: lines(path) for path in FILES if lines(path) > MOST_LINES_OF_A_FILE} == {}


def test_the_package_stays_small():
    assert sum(map(lines, FILES)) < MOST_LINES
