"""`embed` writes what `search --gallery` reads; Milvus is searched by the same command."""

import json
import shutil

import pytest

from sbirlib import Gallery, load_run
from sbirlib.cli.app import main


@pytest.fixture
def shop(clothes, tmp_path):
    return shutil.copytree(clothes / "testB", tmp_path / "shop")


def words(*parts):
    return [str(part) for part in parts]


def test_a_gallery_is_searched_as_its_folder_is(run, pairs, shop, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words("embed", "--run", run, "--photos", "shop", "--out", "photos.safetensors")) == 0
    assert "has 8 photos, 8 of them embedded now; 0 cannot be read\n" in capsys.readouterr().out
    Gallery.load("photos.safetensors", load_run(run)).to_milvus("photos.db", "mine")
    asked = words("search", pairs.split("test").sketches[0].path, "--run", run, "--json", "found.json")
    found = []
    for place in (
        ["--photos", "shop"],
        ["--gallery", "photos.safetensors"],
        ["--gallery", "milvus:./photos.db", "--collection", "mine"],
    ):
        assert main([*asked, *place]) == 0
        found.append((capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())))
    assert found[0] == found[1]
    assert found[0][1].pop("gallery") == 8
    assert found[0][1].pop("skipped") == 0
    assert found[0] == found[2]
    assert "shop/" in found[0][0]
    next(shop.iterdir()).unlink()
    assert main([*asked, "--gallery", "photos.safetensors"]) == 2
    assert "1 photos have changed or gone" in capsys.readouterr().err
    assert main(words("embed", "--run", run, "--photos", "shop", "--out", "photos.safetensors")) == 0
    assert "has 7 photos, 0 of them embedded now; 0 cannot be read\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --photos FOLDER or --gallery FILE, one of the two"),
        (["--photos", ".", "--gallery", "a"], "give --photos FOLDER or --gallery FILE, one of the two"),
        (["--gallery", "none.safetensors"], "none.safetensors: not a saved gallery"),
        (["--gallery", "milvus:none.db"], "none.db: no such file"),
    ],
)
def test_bad_input_to_search(flags, message, run, pairs, capsys):
    sketch = pairs.split("test").sketches[0].path
    assert main(words("search", sketch, "--run", run, *flags)) == 2
    assert message in capsys.readouterr().err


def test_photos_that_cannot_be_read_stop_or_are_skipped(run, shop, tmp_path, capsys):
    (shop / "broken.png").write_text("no image")
    command = words("embed", "--run", run, "--photos", shop, "--out", tmp_path / "g.safetensors")
    assert main(command) == 2
    assert "broken.png: cannot be read" in capsys.readouterr().err
    assert main([*command, "--data.on_fault", "skip"]) == 0
    assert "8 photos, 0 of them embedded now; 1 cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (".", "name a file"),
        ("none/g.safetensors", "name a file, in a folder that exists"),
        ("a.png", "picture"),
    ],
)
def test_a_file_that_cannot_be_written_is_found_before_the_work(out, message, run, shop, tmp_path, capsys):
    assert main(words("embed", "--run", run, "--photos", shop, "--out", tmp_path / out)) == 2
    assert message in capsys.readouterr().err
