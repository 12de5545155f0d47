"""The exercises: every solution passes its check, every stub fails it, and a mistake is told by name."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from tools import exercises
from tools.cells import working_in
from tools.pages import FOLDER

NAMES = [path.stem for path in exercises.MASTERS]
CHECK = re.compile(r'grader\.check\("(\w+)"\)')
DOTS = "three dots"  # what a check says of an exercise that nobody has done

MISTAKES = [
    pytest.param(path.stem, exercise, *mistake.values(), id=f"{exercise}: {mistake['says']}")
    for path in sorted((Path(__file__).parent / "mistakes").glob("*.yaml"))
    for exercise, mistakes in yaml.safe_load(path.read_text(encoding="utf-8")).items()
    for mistake in mistakes
]


@pytest.fixture(scope="module")
def built():
    return {master.stem: exercises.build(master) for master in exercises.MASTERS}


@pytest.fixture(scope="module")
def place(built, tmp_path_factory):
    """Where solutions and tests lie, as deep as in the repository, with the models beside them."""
    root = tmp_path_factory.mktemp("course")
    (root / "data").mkdir()
    (root / "data" / "models").symlink_to(FOLDER.parent / "data" / "models")
    for name, (_, solution, tests) in built.items():
        exercises.write(solution, tests, root / "notebooks" / "solutions" / f"{name}.ipynb")
    return root / "notebooks" / "solutions"


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(notebook, name, where, *, errors=False):
    """Runs the cells in one namespace; gives it, and what each check found."""
    names, found = {"__name__": "__main__"}, {}
    with working_in(where):
        for cell in code(notebook):
            if check := CHECK.fullmatch(cell.source):
                found[check[1]] = names["grader"].check(check[1], global_env=names)
                continue
            try:
                exec(compile(cell.source, f"{name}, cell {cell.id}", "exec"), names)
            except Exception:
                if not errors:
                    raise
    return names, found


@pytest.fixture(scope="module")
def solved(built, place):
    """Namespace and checks of a notebook's solution, run once."""
    kept = {}

    def of(name):
        if name not in kept:
            kept[name] = run(built[name].solution, name, place)
        return kept[name]

    return of


@pytest.mark.parametrize("name", NAMES)
def test_the_student_copy_is_what_the_master_gives(name, built):
    student, _, tests = built[name]
    here = exercises.FOLDER
    again = "run `make exercises` and commit what it writes"
    assert (here / f"{name}.ipynb").read_text(encoding="utf-8") == exercises.text(student), again
    for exercise, source in tests.items():
        assert (here / "tests" / f"{exercise}.py").read_text(encoding="utf-8") == source, again
        assert source.isascii(), "otter reads it in the encoding of the system"


def test_nothing_is_without_a_master(built):
    assert sorted(path.stem for path in exercises.FOLDER.glob("*.ipynb")) == NAMES
    tests = [exercise for name in NAMES for exercise in built[name].tests]
    assert sorted(path.stem for path in exercises.FOLDER.glob("tests/*.py")) == sorted(tests)


@pytest.mark.parametrize("name", NAMES)
def test_every_solution_passes(name, solved):
    _, found = solved(name)
    assert found
    assert {exercise: result.summary() for exercise, result in found.items() if not result.passed_all} == {}


@pytest.mark.parametrize("name", NAMES)
def test_every_stub_fails_and_says_what_is_missing(name, built, place, solved):
    _, found = run(built[name].student, name, place, errors=True)
    assert found.keys() == solved(name)[1].keys()
    for exercise, result in found.items():
        assert not any(case.passed for case in result.test_case_results), exercise
        assert DOTS in result.summary(), result.summary()


@pytest.mark.parametrize(("name", "exercise", "right", "wrong", "says"), MISTAKES)
def test_a_mistake_is_told(name, exercise, right, wrong, says, built, solved, place):
    names = dict(solved(name)[0])
    cells = code(built[name].solution)
    [check] = [at for at, cell in enumerate(cells) if cell.source == f'grader.check("{exercise}")']
    answer = cells[check - 1].source
    assert answer.count(right) == 1
    with working_in(place):
        exec(answer.replace(right, wrong), names)
        assert says in names["grader"].check(exercise, global_env=names).summary()


def test_every_exercise_has_a_mistake_that_is_told(solved):
    exercises_of = {(name, exercise) for name in NAMES for exercise in solved(name)[1]}
    assert {mistake.values[:2] for mistake in MISTAKES} == exercises_of


def test_there_are_enough_exercises(solved):
    assert sum(len(solved(name)[1]) for name in NAMES) >= 20


@pytest.mark.parametrize("name", NAMES)
def test_copies_are_short_clean_and_hold_hints(name, built):
    student, solution, _ = built[name]
    nbformat.validate(student)
    assert student.metadata.kernelspec.name == "python3"
    for cell in code(student) + code(solution):
        assert len(cell.source.splitlines()) <= 10, cell.source
        assert "SOLUTION" not in cell.source
        assert "plt." not in cell.source or cell.metadata["mystnb"]["image"]["alt"]
        assert cell.outputs == []
        assert cell.execution_count is None
    for phrase in ("What you will learn", "Time on a CPU", "You need"):
        assert f"**{phrase}" in student.cells[0].source
    answers = [
        at for at, cell in enumerate(student.cells) if "otter_answer_cell" in cell.metadata.get("tags", ())
    ]
    assert len(answers) == sum(bool(CHECK.fullmatch(cell.source)) for cell in student.cells)
    for at in answers:
        assert "<summary>Hint</summary>" in student.cells[at - 1].source
        assert CHECK.fullmatch(student.cells[at + 1].source)
        assert "..." in student.cells[at].source


@pytest.mark.parametrize("name", NAMES)
def test_the_kits_names_come_from_the_top_level_in_one_statement(name, built):
    tree = ast.parse("\n".join(cell.source for cell in code(built[name].student)))
    origins = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [module for module in origins if module.startswith("sbirlib")] in ([], ["sbirlib"])


def test_what_the_texts_say_of_the_shipped_model(solved):
    losses, tokens, runs = (solved(name)[0] for name in ("losses", "tokens", "runs"))
    first = losses["history"].loc[0]
    assert 0.8 * losses["first_loss"] < min(first["loss_inter"], first["loss_multi"])
    assert max(first["loss_inter"], first["loss_multi"]) < losses["first_loss"]
    # Rollout and ink agree on fewer tokens than chance would have it.
    assert tokens["both"] < 0.7 * tokens["count"] ** 2 / len(tokens["kept"])
    history = runs["history"]
    assert (history["loss_total"].diff() < 0).mean() > 0.7
    assert (history["val_acc@1"].diff() < 0).sum() > 4
    assert history["val_queries"].max() < 100  # so that one sketch is more than a point
    assert 0 < runs["fell_in_vain"](history) < len(history)


def test_the_checks_work_in_a_kernel(built, place):
    notebook = built["runs"].solution  # which looks for the shipped model, too
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": str(place)}}
    )
    checks = [cell for cell in code(client.execute()) if CHECK.fullmatch(cell.source)]
    for cell in checks:
        said = cell.outputs[0]["data"]["text/plain"]
        assert said == f"{CHECK.fullmatch(cell.source)[1]} results: All test cases passed!"


def test_a_copy_with_answers_is_not_overwritten(built, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exercises, "FOLDER", tmp_path)
    monkeypatch.setattr(exercises, "SOLUTIONS", tmp_path / "solutions")
    monkeypatch.setattr(exercises, "MASTERS", exercises.MASTERS[:1])
    monkeypatch.setattr(exercises, "build", lambda master: built[master.stem])
    exercises.main()
    exercises.main()
    copy = tmp_path / f"{NAMES[0]}.ipynb"
    answered = copy.read_text(encoding="utf-8").replace("= ...", "= 1.5")
    copy.write_text(answered, encoding="utf-8")
    exercises.main()
    assert copy.read_text(encoding="utf-8") == answered
    assert copy.name in capsys.readouterr().out
