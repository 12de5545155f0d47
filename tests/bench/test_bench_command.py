"""The whole command: what it refuses, prints and writes, and how it goes on where a part fails."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sbirlib import PairFolder
from sbirlib.bench import costs as bench_costs
from sbirlib.bench import panels as bench_panels
from sbirlib.bench import run as bench
from sbirlib.bench.measure import TABLE_HEAD, Ceilings, Failed, Row, Spread
from sbirlib.bench.run import Bench, Measured, check_data
from sbirlib.cli.app import main
from sbirlib.errors import InputError

LIMITS = Ceilings(fp32=1e12, bf16=2e12, memory=1e11)
ROW = Row("step, batch 16", "views/s", "higher", Spread.of([1]))


@pytest.fixture
def limited(monkeypatch):
    """No ceilings are measured; the devices whose ceilings were asked for."""
    asked = []
    monkeypatch.setattr(bench, "ceilings", lambda device: asked.append(device) or LIMITS)
    return asked


def test_search_and_panels_by_the_command(run, pairs, tmp_path, monkeypatch, capsys, limited):
    monkeypatch.setattr(bench_panels, "UPDATES", 2)
    monkeypatch.setitem(
        sys.modules,
        "sbirlib.bench_search",
        SimpleNamespace(
            search_rows=lambda limits, repeats: [
                Row("search, 1000", "ms", "lower", Spread.of([repeats]), None, limits.memory / 1e12)
            ]
        ),
    )
    out = tmp_path / "rows.json"
    words = [
        "bench",
        "--part",
        "search",
        "panels",
        "--run",
        str(run),
        "--root",
        str(pairs.root),
        "--json",
        str(out),
    ]
    assert main([*words, "--device", "cpu", "--repeats", "7"]) == 0
    written, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert {
        "cpu",
        "cores",
        "threads",
        "gpu",
        "torch",
        "python",
        "precision",
        "fp32_gflops",
        "bf16_gflops",
        "memory_gbs",
    } <= set(written["machine"])
    assert written["machine"]["fp32_gflops"] == 1000
    assert limited == ["cpu"]
    search, *rows = written["rows"]
    assert (search["share_of_ceiling"], search["kit"]) == (0.1, 7)
    assert {row["part"].split(":")[0].removeprefix("panels, ") for row in rows} == {
        "PairBrowser",
        "ViewExplorer",
        "InfoNCEPanel",
        "RetrievalBrowser",
        "AttentionExplorer",
        "TokenDiscardExplorer",
        "DrawPanel",
        "RunComparer",
    }
    assert all(0 < median["kit"] <= slow["kit"] for median, slow in zip(rows[::2], rows[1::2], strict=True))
    assert TABLE_HEAD in printed
    assert "| panels, AttentionExplorer: query patch | ms |" in printed


def test_all_parts_but_the_panels_need_no_run(pairs, monkeypatch, limited):
    called = []
    monkeypatch.setattr(
        bench,
        "PARTS",
        {name: lambda setup, name=name: iter(called.append(name) or ()) for name in bench.PARTS},
    )
    assert main(["bench", "--root", str(pairs.root)]) == 0
    assert called == [
        "input",
        "step",
        "attention",
        "evaluation",
        "search",
        "accuracy",
        "import",
        "memory",
        "costs",
    ]


def test_every_part_can_be_named():
    assert {*bench.PARTS, bench.PANELS} == set(bench.ALL_PARTS)


@pytest.mark.parametrize("part", ["import", "search", "attention"])
def test_what_needs_no_data_asks_for_none(part, monkeypatch, limited):
    monkeypatch.setitem(bench.PARTS, part, lambda setup: iter([ROW]))
    assert Bench((part,), Path("nowhere"), device="cpu")().rows == [ROW]
    assert limited == (["cpu"] if part == "search" else [])


def test_what_memory_does_not_suffice_for_is_recorded_and_the_rest_goes_on(
    pairs, tmp_path, monkeypatch, capsys, limited
):
    out, seen = tmp_path / "rows.json", []

    def short(setup):
        yield ROW
        seen.append(json.loads(out.read_text()))
        yield Failed("input, batch 256", "too large")
        seen.append(json.loads(out.read_text()))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(bench.PARTS, "input", short)
    monkeypatch.setitem(bench.PARTS, "import", lambda setup: iter([ROW]))
    rows, failed = Bench(("input", "import"), pairs.root, json=out, device="cpu")()
    why = "memory does not suffice: CUDA out of memory"
    assert (rows, failed) == ([ROW, ROW], [Failed("input, batch 256", "too large"), Failed("input", why)])
    # The file held each row before the next was measured.
    assert [(len(file["rows"]), len(file["failed"])) for file in seen] == [(1, 0), (1, 1)]
    written = json.loads(out.read_text())
    assert len(written["rows"]) == 2
    assert written["failed"] == [
        {"part": "input, batch 256", "why": "too large"},
        {"part": "input", "why": why},
    ]
    assert capsys.readouterr().err.endswith(
        f"not measured: input, batch 256: too large\nnot measured: input: {why}\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def test_the_exit_code_tells_that_something_was_not_measured(monkeypatch, limited):
    monkeypatch.setitem(bench.PARTS, "import", lambda setup: iter([ROW]))
    assert main(["bench", "--part", "import"]) == 0
    monkeypatch.setitem(bench.PARTS, "import", lambda setup: iter([Failed("import", "too large")]))
    assert main(["bench", "--part", "import"]) == 1


def test_the_help_names_every_part(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    assert f"{{{','.join(bench.ALL_PARTS)}}}" in "".join(capsys.readouterr().out.replace("│", "").split())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_measured_before_the_end_stays(error, tmp_path, monkeypatch, limited):
    def stopped(setup):
        yield ROW
        raise error

    monkeypatch.setitem(bench.PARTS, "import", stopped)
    out = tmp_path / "rows.json"
    with pytest.raises(error):
        Bench(("import",), json=out, device="cpu")()
    assert json.loads(out.read_text())["rows"] == [ROW.as_dict()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--part", "panels"], "name one with --run RUN"),
        (["--root", "nowhere"], "nowhere: no such folder"),
        (["--run", "nowhere"], "nowhere is not a run"),
        (["--json", "nowhere/rows.json"], "the folder nowhere does not exist"),
        (["--json", "."], ". is a folder"),
        (["--repeats", "0"], "--repeats 0"),
        (["--batches", "16", "1"], "--batches 16 1"),
    ],
)
def test_bad_input_is_said_before_anything_is_measured(words, message, pairs, capsys, limited):
    root = [] if "--root" in words else ["--root", str(pairs.root)]
    assert main(["bench", *root, *words]) == 2
    assert message in capsys.readouterr().err
    assert limited == []


def test_an_unknown_part_is_said_before_anything_is_measured(limited):
    with pytest.raises(InputError, match="unknown part 'speed'; known: input, step"):
        Bench(("input", "speed"))()
    assert limited == []


def test_a_run_that_the_panels_cannot_show_is_said_before_anything_is_measured(
    run, pairs, monkeypatch, limited
):
    monkeypatch.setattr(
        bench,
        "load_run",
        lambda path: SimpleNamespace(
            sketch_encoder=SimpleNamespace(backbone=torch.nn.Conv2d(3, 4, 1)), photo_encoder=None
        ),
    )
    for parts in ((), ("input", "panels")):
        with pytest.raises(
            InputError, match="the part panels cannot show this model: no attention here: Conv2d"
        ):
            Bench(parts, pairs.root, run, device="cpu")()
    assert limited == []
    monkeypatch.setitem(bench.PARTS, "input", lambda setup: iter([ROW]))
    assert Bench(("input",), pairs.root, run, device="cpu")() == Measured([ROW], [])


def test_a_run_without_a_history_is_said_before_anything_is_measured(run, pairs, tmp_path, limited):
    shutil.copytree(run / "best", tmp_path / "run" / "best")
    with pytest.raises(InputError, match=r"history.csv: no such file"):
        Bench(("panels",), pairs.root, tmp_path / "run", device="cpu")()
    assert limited == []


@pytest.mark.parametrize(
    ("split", "photos", "sketches", "message"),
    [
        ("test", 8, 1, "the test split has 1 sketches and 8 photos"),
        ("test", 1, 1, "the test split has 1 sketches and 1 photos"),
        ("train", 7, 14, "the train split has 7 photos with a sketch; .* at least 8"),
    ],
)
def test_a_split_that_is_too_small_is_said_before_anything_is_measured(
    split, photos, sketches, message, pairs, tmp_path, limited
):
    root = shutil.copytree(pairs.root, tmp_path / "clothes")
    whole = PairFolder(root).split(split)
    shown = [photo for photo in whole.photos if photo.id == whole.sketches[0].photo_id]
    kept = [*shown, *(photo for photo in whole.photos if photo not in shown)][:photos]
    drawn = [sketch for sketch in whole.sketches if sketch.photo_id in {photo.id for photo in kept}][
        :sketches
    ]
    for item in {*whole.photos, *whole.sketches} - {*kept, *drawn}:
        item.path.unlink()
    with pytest.raises(InputError, match=message):
        Bench(("evaluation",), root, device="cpu")()
    assert limited == []


def test_a_picture_that_cannot_be_read_is_said_before_anything_is_measured(clothes, tmp_path):
    root = shutil.copytree(clothes, tmp_path / "clothes")
    check_data(PairFolder(root))
    broken = sorted((root / "testB").iterdir())[0]
    broken.write_bytes(b"not a picture")
    with pytest.raises(InputError, match=f"files cannot be used, such as .*{broken.name}"):
        check_data(PairFolder(root))


def test_where_nobody_tells_the_size_of_a_process(pairs, tmp_path, monkeypatch, capsys, limited):
    monkeypatch.setattr(bench_costs, "STATUS", tmp_path / "status")
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for part in ("memory", "costs"):
        with pytest.raises(InputError, match="how large a process is"):
            Bench((part,), pairs.root, device="cpu")()
    called = []
    monkeypatch.setattr(
        bench,
        "PARTS",
        {name: lambda setup, name=name: iter(called.append(name) or ()) for name in bench.PARTS},
    )
    Bench((), pairs.root, device="cpu")()
    assert called == [part for part in bench.ALL_PARTS if part not in ("memory", "costs", "panels")]
    assert "left out: the parts memory and costs" in capsys.readouterr().err
    bench_costs.check_memory(torch.device("cuda"))
