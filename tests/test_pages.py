"""What the README and the pages beside the notebooks say: their Python runs, their links lead somewhere."""

import importlib
import re
import shutil
from pathlib import Path

import pytest
from tools.hostile_files import picture

from sbirlib import ARNet, PairFolder, load_run
from sbirlib.runs.model import save_model_folder

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("notebooks/*/*.md")),
    ROOT / "data/README.md",
    ROOT / "data/models/README.md",
    ROOT / "outputs/README.md",
]


def named(path):
    return path.relative_to(ROOT).as_posix()


def python_blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def headings(page):
    """The anchors of a page, made as GitHub makes them."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.fixture
def place(clothes, run, tiny, tmp_path, monkeypatch):
    """A folder in which the paths of the pages exist: data, a drawing, and runs of tiny models."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "MiniClothes").symlink_to(clothes)
    shutil.copy(sorted((clothes / "testA").iterdir())[0], tmp_path / "my_sketch.png")
    shutil.copytree(run, tmp_path / "outputs" / "demo")
    recycling = tiny.updated({"mstr.enabled": True, "mstr.scales": (1, 2)})
    for seed in range(5):
        best = tmp_path / f"outputs/recycling/runs/mstr.enabled=true@{seed}" / "best"
        best.parent.mkdir(parents=True)
        save_model_folder(best, ARNet.from_config(recycling), recycling)
    arrange_like_qmul(tmp_path / "ChairV2")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arrange_like_qmul(folder):
    """The form of Chair-V2: folders, one of them with a folder in it, and lists that call sketches .svg."""
    for split, ids in {"train": ["1031000079", "1135045020"], "test": ["2429245009"]}.items():
        drawn = [f"{i}_{n}" for i in ids for n in (1, 12)]
        photos, sketches = folder / "ChairV2_photo", folder / "ChairV2_sketch" / "png"
        for path in [*(photos / f"{i}.png" for i in ids), *(sketches / f"{name}.png" for name in drawn)]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture())
        (folder / f"photo_{split}.txt").write_bytes("".join(f"{i}.png\r\n" for i in ids).encode("utf-8-sig"))
        (folder / f"sketch_{split}.txt").write_text("".join(f"{name}.svg\n" for name in drawn))
    (sketches / "2429245009_3.png").write_bytes(picture())  # in no list


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=named)
def test_python_on_the_page_runs(page, place, capsys):
    for block in python_blocks(page):
        exec(compile(block, named(page), "exec"), {})
    if page == ROOT / "README.md":
        printed = capsys.readouterr().out
        assert "Acc@1 " in printed
        assert re.search(r"^8 -?\d\.\d{3} .*testB.\d+\.png$", printed, re.MULTILINE)
        assert load_run("outputs/try").config.loss.temperature == 0.1
    if page.name == "data-sets.md":
        report = PairFolder("data/ChairV2").report()
        found = {split.name: (len(split.sketches), len(split.photos)) for split in report.splits}
        assert (found, report.left_out) == ({"train": (4, 2), "test": (2, 1)}, 0)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.is_file(), link
        assert not anchor or anchor in headings(path), link


def test_every_page_and_figure_is_linked():
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    }
    assert {*ROOT.glob("notebooks/*/*.md"), *ROOT.glob("notebooks/figures/*")} <= linked


def test_names_of_functions_and_files_exist():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = re.findall(r"`(?:sbirlib\.)?((?:figures|analysis|panels|layers|miniclothes)(?:\.\w+)+)[`(]", text)
    assert len(names) > 5
    for name in names:
        module, _, attribute = f"sbirlib.{name}".rpartition(".")
        found = importlib.import_module(module)
        assert hasattr(found, attribute) or importlib.import_module(f"{module}.{attribute}"), name
    for path in re.findall(r"(?:sbirlib|tests)/[\w/]+\.\w+", text):
        assert (ROOT / path).is_file(), path


def test_notebooks_point_to_pages_that_exist():
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        for path in re.findall(r"`(notebooks/[\w/-]+\.md)`", notebook.read_text(encoding="utf-8")):
            assert (ROOT / path).is_file(), path
