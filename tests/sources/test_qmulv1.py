"""QMUL-V1: small MAT-files in the form of the public ones, whole, damaged and foreign."""

import errno
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from sbirlib import PairFolder, evaluate
from sbirlib.cli.app import main
from sbirlib.data.folders import RECORD
from sbirlib.data.splits import PairError
from sbirlib.errors import InputError
from sbirlib.experiments.ablation import ablate
from sbirlib.experiments.grids import Variant
from sbirlib.methods.cards import Needs
from sbirlib.runs.folder import load_run
from sbirlib.sources.qmulv1 import import_qmulv1
from sbirlib.training.trainer import train


def drawings(count, first=0):
    """(count, 256, 256) uint8: a black bar on white whose place tells the row."""
    pictures = np.full((count, 256, 256), 255, dtype=np.uint8)
    for i in range(count):
        pictures[i, 20 * (i + first) : 20 * (i + first) + 5] = 0
    return pictures


FILES = {
    "chairs_sketch_db_train": drawings(8),
    "chairs_edge_db_train": drawings(8, 1),
    "chairs_sketch_db_test": drawings(3, 2),
    "chairs_edge_db_test": drawings(3, 3),
}


def write(folder, files=FILES, **more):
    folder.mkdir(parents=True, exist_ok=True)
    for name, pictures in (files | more).items():
        content = pictures if isinstance(pictures, dict) else {"data": pictures}
        savemat(folder / f"{name}.mat", content, do_compression=True)
    return folder


def pixels(path):
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.array(picture)


@pytest.fixture(scope="module")
def chairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qmulv1")
    import_qmulv1(write(folder / "files"), folder / "ChairV1", "chairs")
    return folder / "ChairV1"


@pytest.mark.parametrize("place", ["", "chairs", "Deep_SBIR_tf/data/chairs"])
def test_rows_become_pairs_at_any_depth(place, tmp_path):
    report = import_qmulv1(write(tmp_path / "a" / place).parents[0], tmp_path / "out", "chairs")
    pairs = PairFolder(tmp_path / "out")
    for name, split in pairs.splits.items():
        assert len(split.sketches) == len(split.photos) == (8 if name == "train" else 3)
        for i, (sketch, photo) in enumerate(zip(split.sketches, split.photos, strict=True)):
            assert (sketch.path.name, photo.path.name) == (
                f"{name}{i + 1:03d}_1.png",
                f"{name}{i + 1:03d}.png",
            )
            assert (pixels(sketch.path) == FILES[f"chairs_sketch_db_{name}"][i]).all()
            assert (pixels(photo.path) == FILES[f"chairs_edge_db_{name}"][i]).all()
    assert "train          8  200  warning: not as many\ntest           3  97  warning" in report
    assert f"next: python -m sbirlib data check {tmp_path / 'out'}" in report
    assert pairs.report().left_out == 0
    assert pairs.edge_maps
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert (record["source"], record["edge_maps"]) == ("qmulv1-chairs", True)
    assert record["pairs"] == {"train": 8, "test": 3}


def test_light_lines_on_black_are_turned_into_dark_ones_on_white(tmp_path):
    folder = write(tmp_path / "a", chairs_edge_db_train=255 - FILES["chairs_edge_db_train"])
    import_qmulv1(folder, tmp_path / "out", "chairs")
    assert (pixels(tmp_path / "out/trainB/train003.png") == FILES["chairs_edge_db_train"][2]).all()


def test_one_split_is_enough_and_other_categories_stay_out(tmp_path):
    files = {name: FILES[name] for name in ("chairs_sketch_db_test", "chairs_edge_db_test")}
    folder = write(tmp_path / "a", files, shoes_sketch_db_train=drawings(2), shoes_train_triplets=drawings(1))
    report = import_qmulv1(folder, tmp_path / "out", "chairs")
    assert list(PairFolder(tmp_path / "out").splits) == ["test"]
    assert "found  published\ntest           3  97" in report
    assert json.loads((tmp_path / "out" / RECORD).read_text())["pairs"] == {"test": 3}


def whole(folder):
    return (folder / "chairs_edge_db_train.mat").read_bytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            lambda data: b"",
            r"chairs_edge_db_train.mat: cannot be read as a MAT-file .*truncated.; download it",
        ),
        (lambda data: data[: len(data) // 2], "cannot be read as a MAT-file .*could not read bytes"),
        (lambda data: data[:100], "cannot be read as a MAT-file .*; download it again"),
        (lambda data: data[:160] + b"\xff" * 40 + data[200:], "cannot be read as a MAT-file .*decompressing"),
        (lambda data: b"version https://git-lfs" * 9, "cannot be read as a MAT-file .Unknown mat file type"),
        (lambda data: b"\x89HDF\r\n\x1a\n" * 99, "cannot be read as a MAT-file .Unknown mat file type"),
        (
            lambda data: (
                b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM".ljust(388, b"\0") + b"\x89HDF\r\n\x1a\n"
            ),
            r"matlab v7.3 files, .*save it with MATLAB's save\(..., '-v7'\)",
        ),
    ],
)
def test_a_file_that_cannot_be_read(content, words, tmp_path):
    folder = write(tmp_path / "a")
    (folder / "chairs_edge_db_train.mat").write_bytes(content(whole(folder)))
    with pytest.raises(InputError, match=words):
        import_qmulv1(folder, tmp_path / "out", "chairs")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"images": drawings(8), "n": 8}, "edge_db_train.mat: has no variable `data`, but images, n"),
        ({}, "has no variable `data`, but none at all"),
        (drawings(8)[:, :128], r"needs uint8 \(n, 256, 256\), but `data` is uint8 \(8, 128, 256\)"),
        (drawings(8)[..., None], r"but `data` is uint8 \(8, 256, 256, 1\)"),
        (drawings(8)[0], r"but `data` is uint8 \(256, 256\)"),
        (drawings(8)[:0], r"but `data` is uint8 \(0, 256, 256\)"),
        (drawings(8) / 255, r"but `data` is double \(8, 256, 256\)"),
        (drawings(8) > 0, r"but `data` is logical \(8, 256, 256\)"),
        ({"data": "abc"}, r"but `data` is char"),
        (
            drawings(7),
            "holds 8 in chairs_sketch_db_train.mat and 7 in chairs_edge_db_train.mat, but row i of one",
        ),
    ],
)
def test_a_matrix_of_another_form(content, words, tmp_path):
    with pytest.raises(InputError, match=words):
        import_qmulv1(write(tmp_path / "a", chairs_edge_db_train=content), tmp_path / "out", "chairs")
    assert not (tmp_path / "out").exists()


def test_files_that_are_missing(tmp_path):
    folder = write(tmp_path / "a", shoes_train_triplets=drawings(1))
    with pytest.raises(
        InputError, match="needs handbags_sketch_db_test.mat and .* it holds chairs_edge_db_test.mat, "
    ):
        import_qmulv1(folder, tmp_path / "out", "handbags")
    with pytest.raises(InputError, match="needs chairs_sketch_db_test.mat and .*; it holds no MAT-file "):
        import_qmulv1(write(tmp_path / "empty", {}), tmp_path / "out", "chairs")
    (tmp_path / "empty" / "master.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="no MAT-file .archives in it are not opened: unpack them first"):
        import_qmulv1(tmp_path / "empty", tmp_path / "out", "chairs")
    (folder / "chairs_sketch_db_test.mat").rename(tmp_path / "elsewhere.mat")
    with pytest.raises(
        InputError, match="needs chairs_sketch_db_test.mat and chairs_edge_db_test.mat; it holds"
    ):
        import_qmulv1(folder, tmp_path / "out", "chairs")
    (folder / "chairs_sketch_db_test.mat").symlink_to(tmp_path / "elsewhere.mat")
    with pytest.raises(InputError, match="needs chairs_sketch_db_test.mat .*links are not followed"):
        import_qmulv1(folder, tmp_path / "out", "chairs")


def test_the_command_asks_for_a_category_and_knows_one_data_set(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    for words, said in (
        (["qmulv1", str(tmp_path)], "--category {chairs,shoes,handbags}"),
        (["qmulv1", str(tmp_path), "--category", "cats"], "invalid choice 'cats'"),
        (["clothesv1", str(tmp_path), "--category", "chairs"], "invalid choice 'clothesv1'"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["data", "import", *words, *out])
        assert (stop.value.code, said in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize(
    ("category", "training", "test"), [("chairs", 200, 97), ("shoes", 304, 115), ("handbags", 400, 168)]
)
def test_counts_are_compared_with_the_published_ones(category, training, test, tmp_path):
    counts = {f"{category}_{side}_db_train": drawings(1) for side in ("sketch", "edge")}
    counts |= {
        f"{category}_{side}_db_test": np.full((test, 256, 256), 255, np.uint8) for side in ("sketch", "edge")
    }
    report = import_qmulv1(write(tmp_path / "a", counts), tmp_path / "out", category)
    assert f"QMUL-V1 {category}, imported from {tmp_path / 'a'}" in report
    assert f"train          1  {training}  warning: not as many\n" in report
    assert f"test {test:>11}  {test}\n" in report
    assert "terms: the page https://github.com/yuqian1023/Deep_SBIR_tf states no licence" in report


@pytest.mark.parametrize("name", ["x.zip", "X.ZIP", "x.tar.gz", "chairs_edge_db_train.mat"])
def test_a_file_is_no_folder_and_says_how_to_unpack_it(name, tmp_path):
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    words = "Unpack a .zip with `python -m zipfile -e FILE FOLDER`, any other archive with its program"
    with pytest.raises(InputError, match=rf"/{name}: is not a folder. {words}, and import FOLDER"):
        import_qmulv1(tmp_path / name, tmp_path / "out", "chairs")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(InputError, match="nowhere: no such folder"):
        import_qmulv1(tmp_path / "nowhere", tmp_path / "out", "chairs")


def test_the_command_that_unpacks_a_zip_makes_a_folder_to_import(tmp_path):
    with zipfile.ZipFile(tmp_path / "x y.zip", "w") as archive:
        for path in write(tmp_path / "a").iterdir():
            archive.write(path, f"Deep_SBIR_tf-master/data/{path.name}")
    with pytest.raises(InputError) as error:
        import_qmulv1(tmp_path / "x y.zip", tmp_path / "out", "chairs")
    python, *words, file, folder = str(error.value).split("`")[1].split()
    assert (python, file, folder) == ("python", "FILE", "FOLDER")
    subprocess.run([sys.executable, *words, tmp_path / "x y.zip", tmp_path / "x"], check=True)
    import_qmulv1(tmp_path / "x", tmp_path / "out", "chairs")
    assert PairFolder(tmp_path / "out").report().left_out == 0


def test_hidden_files_and_links_to_folders_are_passed_over_but_the_folder_may_be_a_link(tmp_path):
    folder = write(tmp_path / "a")
    (folder / "._chairs_edge_db_train.mat").write_bytes(b"\0\5")  # a Mac's
    (folder / "loop").symlink_to(folder)
    (tmp_path / "link").symlink_to(folder)
    import_qmulv1(tmp_path / "link", folder / "out", "chairs")
    assert len(PairFolder(folder / "out").split("train").sketches) == 8
    empty = write(tmp_path / "empty", {})
    (empty / "below").symlink_to(folder)
    with pytest.raises(InputError, match="it holds no MAT-file .*; links are not followed"):
        import_qmulv1(empty, tmp_path / "out", "chairs")


def test_a_file_that_the_disk_does_not_give_is_named(tmp_path, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    folder = write(tmp_path / "a")
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(
        InputError, match=r"chairs_sketch_db_train.mat: cannot be read .*Input/output error\); download it"
    ):
        import_qmulv1(folder, tmp_path / "out", "chairs")
    assert not (tmp_path / "out").exists()


def test_an_import_goes_into_a_new_or_empty_folder_only(tmp_path):
    folder, out = write(tmp_path / "a"), tmp_path / "out"
    out.mkdir()
    import_qmulv1(folder, out, "chairs")
    (out / "trainA" / "train001_1.png").write_bytes(b"changed by hand")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    for source, place in ((folder, out), (out, out), (folder, folder)):
        with pytest.raises(InputError, match=f"{place.name}: is not an empty folder; choose a new one"):
            import_qmulv1(source, place, "chairs")
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "cannot be written (No space left on device)"),
        (KeyboardInterrupt(), 130, "stopped; what was finished stays"),
    ],
)
@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_and_ctrl_c_leave_what_was_there(
    before, error, code, words, tmp_path, monkeypatch, capsys
):
    folder, out, save = write(tmp_path / "a"), tmp_path / "out", Image.Image.save
    if before:
        out.mkdir()

    def stop(picture, path):
        if path.name == "train003.png":
            raise error
        save(picture, path)

    monkeypatch.setattr(Image.Image, "save", stop)
    assert main(["data", "import", "qmulv1", str(folder), "--category", "chairs", "--out", str(out)]) == code
    assert words in capsys.readouterr().err
    assert list(out.rglob("*")) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out"][: 1 + before]


@pytest.mark.parametrize("before", [False, True])
def test_an_import_that_cannot_be_put_in_place_leaves_nothing(before, tmp_path, monkeypatch):
    folder, out = write(tmp_path / "a"), tmp_path / "out"
    if before:
        out.mkdir()

    def fail(path, target):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(InputError, match=r"cannot be written .Input/output error."):
        import_qmulv1(folder, out, "chairs")
    assert list(out.rglob("*")) == []
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "out"}


def test_a_folder_that_is_a_disk_of_its_own_is_not_replaced(tmp_path, monkeypatch):
    folder, out = write(tmp_path / "a"), tmp_path / "out"
    out.mkdir()

    def busy(path):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(Path, "rmdir", busy)
    with pytest.raises(InputError, match=r"cannot be written .Device or resource busy.; .* another folder"):
        import_qmulv1(folder, out, "chairs")
    assert list(out.iterdir()) == []


def test_from_the_files_to_a_trained_model(tiny, chairs, tmp_path, capsys):
    flags = ["--data.root", str(chairs), "--out", str(tmp_path / "run"), "--run.epochs", "1"]
    flags += ["--model.image_size", "48", "--run.tracker", "none", "--data.val_fraction", "0.25"]
    assert main(["data", "check", str(chairs)]) == 0
    assert "note: the photos are edge maps: train with --model.no-photo-edges" in capsys.readouterr().out
    for way in ("--preset mini", "--preset mini_full", "--preset lite --method triplet_sn"):
        assert main(["train", *way.split(), *flags]) == 2
        said = capsys.readouterr().err
        assert "its photos are edge maps already, and an edge map of one shows every line twice" in said
        assert "model.photo_edges is on, as in presets such as mini and methods such as triplet_sn" in said
        assert "train with --model.no-photo-edges" in said
        assert not (tmp_path / "run").exists()
    assert main(["train", "--method", "triplet_sn", *flags, "--model.no-photo-edges"]) == 0
    assert main(["evaluate", "--run", str(tmp_path / "run"), "--data.root", str(chairs)]) == 0
    assert "3 sketches in a gallery of 3 photos" in capsys.readouterr().out


def test_edge_maps_are_not_made_twice_in_an_ablation_nor_in_an_evaluation(tiny, chairs, run, tmp_path):
    config = tiny.updated({"data.root": str(chairs)})
    with pytest.raises(PairError, match="train with --model.no-photo-edges"):
        next(
            ablate(
                config, [Variant("off", {"model.photo_edges": False}), Variant("on", {})], (0,), out=tmp_path
            )
        )
    assert not list(tmp_path.iterdir())
    with pytest.raises(PairError, match="its photos are edge maps already"):
        evaluate(load_run(run), chairs)
    (chairs / RECORD).rename(tmp_path / RECORD)
    try:
        assert not PairFolder(chairs).edge_maps
        assert len(evaluate(load_run(run), chairs).ranks) == 3
    finally:
        (tmp_path / RECORD).rename(chairs / RECORD)


def test_edge_maps_serve_a_method_that_needs_them(tiny, chairs):
    Needs(edges=True).check("x", PairFolder(chairs), tiny.updated({"model.photo_edges": False}))
    with pytest.raises(PairError, match="every line twice"):
        next(train(chairs, tiny, out=chairs / "run"))


@pytest.mark.parametrize("content", ["[]", "{", '{"edge_maps": "yes"}', "[" * 100_000])
def test_a_record_that_is_none_says_nothing(content, clothes, tmp_path):
    for split in ("testA", "testB"):
        (tmp_path / split).symlink_to(clothes / split)
    (tmp_path / RECORD).write_text(content)
    assert not PairFolder(tmp_path).edge_maps
