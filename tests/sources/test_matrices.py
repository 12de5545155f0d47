"""QMUL-V1: small MAT-files in the form of the public ones, whole, damaged and foreign."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from sbirlib import PairFolder, evaluate
from sbirlib.cli.app import main
from sbirlib.data.splits import PairError
from sbirlib.experiments.ablation import ablate
from sbirlib.experiments.grids import Variant
from sbirlib.methods.base import Needs
from sbirlib.runs.folder import load_run
from sbirlib.sources.importing import RECORD, import_dataset, published
from sbirlib.sources.layouts import SourceError
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
    import_dataset("qmulv1", write(folder / "files"), folder / "ChairV1", "chairs")
    return folder / "ChairV1"


@pytest.mark.parametrize("place", ["", "chairs", "Deep_SBIR_tf/data/chairs"])
def test_rows_become_pairs_at_any_depth(place, tmp_path):
    report = import_dataset("qmulv1", write(tmp_path / "a" / place).parents[0], tmp_path / "out", "chairs")
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
    assert "train photos           8  200  warning: no source counts as many" in str(report)
    assert (pairs.report().left_out, report.left_out) == (0, ())
    assert pairs.edge_maps
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert (record["source"], record["edge_maps"]) == ("qmulv1-chairs", True)


def test_light_lines_on_black_are_turned_into_dark_ones_on_white(tmp_path):
    folder = write(tmp_path / "a", chairs_edge_db_train=255 - FILES["chairs_edge_db_train"])
    import_dataset("qmulv1", folder, tmp_path / "out", "chairs")
    assert (pixels(tmp_path / "out/trainB/train003.png") == FILES["chairs_edge_db_train"][2]).all()


def test_one_split_is_enough_and_other_categories_stay_out(tmp_path):
    files = {name: FILES[name] for name in ("chairs_sketch_db_test", "chairs_edge_db_test")}
    folder = write(tmp_path / "a", files, shoes_sketch_db_train=drawings(2), shoes_train_triplets=drawings(1))
    report = import_dataset("qmulv1", folder, tmp_path / "out", "chairs")
    assert list(PairFolder(tmp_path / "out").splits) == ["test"]
    assert report.counts["test photos"] == report.counts["all photos"] == 3


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
    with pytest.raises(SourceError, match=words):
        import_dataset("qmulv1", folder, tmp_path / "out", "chairs")
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
    with pytest.raises(SourceError, match=words):
        import_dataset(
            "qmulv1", write(tmp_path / "a", chairs_edge_db_train=content), tmp_path / "out", "chairs"
        )
    assert not (tmp_path / "out").exists()


def test_files_that_are_missing(tmp_path):
    folder = write(tmp_path / "a", shoes_train_triplets=drawings(1))
    with pytest.raises(
        SourceError, match="needs handbags_sketch_db_test.mat and .* it holds chairs_edge_db_test.mat, "
    ):
        import_dataset("qmulv1", folder, tmp_path / "out", "handbags")
    with pytest.raises(SourceError, match="needs chairs_sketch_db_test.mat and .*; it holds no MAT-file "):
        import_dataset("qmulv1", write(tmp_path / "empty", {}), tmp_path / "out", "chairs")
    (tmp_path / "empty" / "master.zip").write_bytes(b"PK")
    with pytest.raises(SourceError, match="no MAT-file .archives in it are not opened: unpack them first"):
        import_dataset("qmulv1", tmp_path / "empty", tmp_path / "out", "chairs")
    (folder / "chairs_sketch_db_test.mat").rename(tmp_path / "elsewhere.mat")
    with pytest.raises(
        SourceError, match="needs chairs_sketch_db_test.mat and chairs_edge_db_test.mat; it holds"
    ):
        import_dataset("qmulv1", folder, tmp_path / "out", "chairs")
    (folder / "chairs_sketch_db_test.mat").symlink_to(tmp_path / "elsewhere.mat")
    with pytest.raises(SourceError, match="needs chairs_sketch_db_test.mat .*links are not followed"):
        import_dataset("qmulv1", folder, tmp_path / "out", "chairs")


def test_a_category_is_asked_for_and_refused_elsewhere(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert main(["data", "import", "qmulv1", str(tmp_path), *out]) == 2
    assert "add --category, one of chairs, shoes, handbags" in capsys.readouterr().err
    assert main(["data", "import", "chairv2", str(tmp_path), *out, "--category", "chairs"]) == 2
    assert "--category chairs goes with qmulv1; chairv2 has no categories" in capsys.readouterr().err


def test_the_published_numbers_of_every_category():
    for category, (training, test) in {
        "chairs": (200, 97),
        "shoes": (304, 115),
        "handbags": (400, 168),
    }.items():
        known = published(f"qmulv1-{category}")
        assert (known["name"], known["edge_maps"]) == (f"QMUL-V1 {category}", True)
        counts = {what: list(numbers) for what, numbers in known["counts"].items()}
        both = {"train photos": [training], "test photos": [test]}
        assert counts == both | {what.replace("photos", "sketches"): n for what, n in both.items()}
    assert not published("chairv2")["edge_maps"]


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
