"""Small folders in the shapes in which the public data sets are passed around."""

import errno
import json
import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from tools.hostile_files import evil_pickle, picture

from sbirlib.cli.app import main
from sbirlib.data.images import ImageError, list_visible
from sbirlib.data.pairs import PairFolder
from sbirlib.sources import importing as sources
from sbirlib.sources.importing import RECORD, import_dataset, published
from sbirlib.sources.layouts import SourceError, list_below


def png(shade=0):
    return picture("PNG", shade=shade)


def clothes():
    """Three photos to train and one to test on, two sketches of each."""
    return {
        f"{split}{name}.png": png(i)
        for i, split in enumerate(["train", "train", "train", "test"])
        for name in (f"B/{i:05d}", f"A/{i:05d}_01", f"A/{i:05d}_06")
    }


def qmul(word="Chair", *, sketch="sketch", extension="png"):
    """The form of QMUL: photo and sketch folders, and lists that name sketches as .svg."""
    ids = {"train": ["1031000079", "1135045020"], "test": ["2429245009"]}
    files = {f"{word}V2_photo/{i}.png": png(7) for part in ids.values() for i in part}
    files |= {
        f"{word}V2_{sketch}/{i}_{n}.{extension}": png(n)
        for part in ids.values()
        for i in part
        for n in (1, 12)
    }
    for split, part in ids.items():
        files[f"photo_{split}.txt"] = "".join(f"{i}.png\r\n" for i in part).encode()
        files[f"sketch_{split}.txt"] = "".join(f"{i}_{n}.svg\n" for i in part for n in (1, 12)).encode()
    return files


def write(path, files):
    """`files` below a folder."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def found(folder):
    return dict(Counter(path.parent.name for path in folder.rglob("*.*") if path.parent != folder))


CLOTHES, CHAIRS = (
    {"trainA": 6, "trainB": 3, "testA": 2, "testB": 1},
    {"trainA": 4, "trainB": 2, "testA": 2, "testB": 1},
)


def test_four_folders(tmp_path):
    other = {"README.txt": b"hello", "trainA/.old/x.png": b"x", "__MACOSX/trainA/._x.png": b"x"}
    folder = write(tmp_path / "download", clothes() | other)
    report = import_dataset("clothesv1", folder, tmp_path / "data" / "ClothesV1")
    assert found(tmp_path / "data" / "ClothesV1") == CLOTHES
    assert report.left_out == ()
    assert PairFolder(tmp_path / "data" / "ClothesV1").report().left_out == 0
    assert (tmp_path / "data/ClothesV1/trainA/00001_06.png").read_bytes() == clothes()["trainA/00001_06.png"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["ClothesV1"]


def test_an_import_may_go_into_the_folder_itself_and_archives_beside_the_pictures_are_passed_over(tmp_path):
    write(tmp_path / "down", clothes() | {"clothes.zip": b"PK\x03\x04"})
    report = import_dataset("clothesv1", tmp_path / "down", tmp_path / "down" / "out")
    assert found(tmp_path / "down" / "out") == CLOTHES
    assert report.left_out == ()


@pytest.mark.parametrize("name", ["x.zip", "X.ZIP", "x.tar.gz", "ChairV2_Coordinate"])
@pytest.mark.parametrize("source", ["clothesv1", "qmulv1"])
def test_a_file_is_no_folder_and_says_how_to_unpack_it(source, name, tmp_path):
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    words = "Unpack a .zip with `python -m zipfile -e FILE FOLDER`, any other archive with its program"
    with pytest.raises(SourceError, match=rf"/{name}: is not a folder. {words}, and import FOLDER"):
        import_dataset(source, tmp_path / name, tmp_path / "out", "chairs" if source == "qmulv1" else None)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_command_that_unpacks_a_zip_makes_a_folder_to_import(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "x y.zip", "w") as archive:
        for name, data in clothes().items():
            archive.writestr(name, data)
    with pytest.raises(SourceError) as error:
        import_dataset("clothesv1", tmp_path / "x y.zip", tmp_path / "out")
    python, *words, file, folder = str(error.value).split("`")[1].split()
    assert (python, file, folder) == ("python", "FILE", "FOLDER")
    subprocess.run([sys.executable, *words, tmp_path / "x y.zip", tmp_path / "x"], check=True)
    import_dataset("clothesv1", tmp_path / "x", tmp_path / "out")
    assert found(tmp_path / "out") == CLOTHES


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ImageError, match="nowhere: no such folder"):
        import_dataset("clothesv1", tmp_path / "nowhere", tmp_path / "out")


def test_links_and_pipes_in_a_folder_are_not_followed(tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.png").write_bytes(b"secret")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file.png").symlink_to(tmp_path / "secret" / "a.png")
    (tmp_path / "data" / "folder").symlink_to(tmp_path / "secret")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    os.mkfifo(tmp_path / "data" / "pipe.png")
    files, faults = list_below(list_visible(tmp_path / "data"))
    assert files == []
    assert sorted((fault.path.name, fault.kind) for fault in faults) == [
        ("file.png", "not followed"),
        ("folder", "not followed"),
        ("loop", "not followed"),
        ("pipe.png", "not read"),
    ]
    (tmp_path / "data").rename(tmp_path / "trainA")
    write(tmp_path, clothes())
    report = import_dataset("clothesv1", tmp_path, tmp_path / "out")
    assert (found(tmp_path / "out"), len(report.left_out)) == (CLOTHES, 4)


def test_a_link_in_place_of_a_folder_is_not_followed(tmp_path):
    write(tmp_path / "a", clothes())
    (tmp_path / "a" / "testB").rename(tmp_path / "elsewhere")
    (tmp_path / "a" / "testB").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="has no photos .testB.; import both .*links are not followed"):
        import_dataset("clothesv1", tmp_path / "a", tmp_path / "out")
    (tmp_path / "a" / "testA").rename(tmp_path / "elsewhere" / "testA")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    report = import_dataset("clothesv1", tmp_path / "link", tmp_path / "out")
    assert [(fault.path.name, fault.kind) for fault in report.left_out] == [("testB", "not followed")]


@pytest.mark.parametrize("name", ["ChairV2_photo/2429245009.png", "photo_test.txt"])
def test_a_file_that_the_disk_does_not_give_is_named(name, tmp_path, monkeypatch):
    read, broken = Path.read_bytes, write(tmp_path / "a", qmul()) / name

    def fail(path):
        if path == broken:
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    if name.endswith(".txt"):
        with pytest.raises(SourceError, match=r"photo_test.txt: cannot be read \(Input/output error\)"):
            import_dataset("chairv2", tmp_path / "a", tmp_path / "out")
        assert not (tmp_path / "out").exists()
    else:
        report = import_dataset("chairv2", tmp_path / "a", tmp_path / "out")
        assert [(fault.path.name, fault.detail) for fault in report.left_out] == [
            (broken.name, "cannot be read (Input/output error)"),
            ("2429245009_1.png", "testB/ has no photo '2429245009'"),
            ("2429245009_12.png", "testB/ has no photo '2429245009'"),
        ]
        assert found(tmp_path / "out") == {"trainA": 4, "trainB": 2}


@pytest.mark.parametrize("keep", ["", "photo_"])
def test_photo_and_sketch_folders_with_lists(keep, tmp_path):
    files = {
        name: data for name, data in qmul().items() if not name.endswith(".txt") or name.startswith(keep)
    }
    report = import_dataset("chairv2", write(tmp_path / "download", files), tmp_path / "out")
    assert found(tmp_path / "out") == CHAIRS
    assert report.left_out == ()
    assert PairFolder(tmp_path / "out").split("test").designers == ["1", "12"]


def test_folders_that_were_unpacked_into_folders_of_their_names(tmp_path):
    files = {f"{name.partition('/')[0]}/{name}": data for name, data in clothes().items()}  # by Windows
    import_dataset("clothesv1", write(tmp_path / "down", files), tmp_path / "out")
    assert found(tmp_path / "out") == CLOTHES


SVG = b"""<svg width="99" height="99"><path d="M 9 9 L 90 50" stroke="black"/></svg>"""


def test_svg_sketches_are_strokes_and_join_the_png_beside_them(tmp_path):
    svg = {name: SVG if name.endswith("svg") else data for name, data in qmul(extension="svg").items()}
    import_dataset("chairv2", write(tmp_path / "a", svg), tmp_path / "strokes")
    assert found(tmp_path / "strokes") == CHAIRS
    report = import_dataset("chairv2", write(tmp_path / "a", qmul(sketch="sketch_png")), tmp_path / "both")
    assert (report.counts["all sketches"], report.left_out) == (6, ())
    for sketch in PairFolder(tmp_path / "both").split("train").sketches:
        assert (sketch.path.suffix, sketch.strokes.suffix) == (".png", ".svg")


def test_files_in_no_list_are_left_out_and_in_both_go_to_test(tmp_path):
    files = qmul()
    files["photo_test.txt"] += b"9999999999.png\n1031000079.png\n"
    files["sketch_test.txt"] += b"1031000079_1.svg\n1031000079_12.svg\n"
    files["ChairV2_sketch/2429245009_3.png"] = png()
    report = import_dataset("chairv2", write(tmp_path / "a", files), tmp_path / "out")
    assert found(tmp_path / "out") == {"trainA": 2, "trainB": 1, "testA": 4, "testB": 2}
    assert [(fault.path.name, fault.detail) for fault in report.left_out] == [
        ("2429245009_3.png", "no list names it")
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda files: {name: files[name] for name in files if not name.endswith(".txt")},
            "needs trainA.* with photo_train.txt and photo_test.txt, a file name a line",
        ),
        (
            lambda files: {name: files[name] for name in files if "sketch" not in name},
            "the train split has no sketches .trainA.; import both",
        ),
        (lambda files: {"notes.txt": b""}, "needs trainA, trainB, testA, testB"),
        (
            lambda files: {"in/trainA.zip": b"PK", "b.7z": b""},
            "needs trainA, .*archives in it are not opened: unpack them first",
        ),
        (
            lambda files: {
                "trainA/a.png": png(),
                "trainB/a.png": png(),
                "testA/b.png": png(),
                "testB.zip": b"PK",
            },
            "import both .archives in it are not opened: unpack them first",
        ),
        (
            lambda files: {name: b"no picture" if name.endswith("png") else files[name] for name in files},
            "no sketch belongs to a photo",
        ),
        (
            lambda files: {"trainA/a.png": png(), "trainB/a.png": png(), "testA/b.png": png()},
            "the test split has no photos .testB.",
        ),
        (lambda files: files | {"photo_train.txt": b"\xff\xfe\x00"}, "photo_train.txt: is not text"),
        (
            lambda files: files | dict.fromkeys([name for name in files if name.endswith(".txt")], b""),
            "a file name a line",
        ),
        (
            lambda files: {name: files[name] for name in files if not name.startswith("photo_")},
            "the train split has no photos",
        ),
        (
            lambda files: {f"deeper/{name}": files[name] for name in files},
            "If they lie deeper, name the folder",
        ),
    ],
)
def test_what_cannot_be_imported_says_why_and_leaves_nothing(change, words, tmp_path):
    folder = write(tmp_path / "a", change(qmul()))
    before = sorted(folder.rglob("*"))
    with pytest.raises(SourceError, match=f"/a[:/].*{words}"):
        import_dataset("chairv2", folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [folder]
    assert sorted(folder.rglob("*")) == before


def test_a_pickle_of_coordinates_is_never_opened(tmp_path):
    files = {name: data for name, data in qmul().items() if not name.endswith("txt")}
    folder = write(tmp_path / "ChairV2", files)
    evil_pickle(folder / "ChairV2_Coordinate", tmp_path / "owned")
    with pytest.raises(SourceError, match="a file name a line"):
        import_dataset("chairv2", folder, tmp_path / "out")
    with pytest.raises(SourceError, match=r"ChairV2_Coordinate: is not a folder"):
        import_dataset("chairv2", folder / "ChairV2_Coordinate", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [folder]


def test_damaged_and_colliding_files_are_left_out_and_named(tmp_path):
    files = clothes() | {
        "trainA/00001_06.png": b"no picture",
        "trainA/00002_06.gif": b"GIF89a",
        "TRAINA/00000_01.png": png(99),
        "trainA/99999_01.png": png(),
        "testB/\x1b[2Jx.png": b"",
    }
    report = import_dataset("clothesv1", write(tmp_path / "a", files), tmp_path / "out")
    reasons = {fault.path.relative_to(tmp_path / "a").as_posix(): fault.detail for fault in report.left_out}
    assert reasons["trainA/00001_06.png"].startswith("is not a PNG")
    assert reasons["trainA/00002_06.gif"].startswith("save it as one of .png")
    assert reasons["trainA/00000_01.png"] == "another file has this name; rename one"
    assert reasons["trainA/99999_01.png"] == "trainB/ has no photo '99999'"
    assert reasons["testB/\x1b[2Jx.png"].startswith("is empty")
    assert "\x1b" not in str(report)
    assert found(tmp_path / "out") == CLOTHES | {"trainA": 5}
    assert PairFolder(tmp_path / "out").report().left_out == 0
    assert len(json.loads((tmp_path / "out" / RECORD).read_text())["left_out"]) == 5


def test_counts_are_compared_with_the_manifest(tmp_path, monkeypatch):
    report = import_dataset("clothesv1", write(tmp_path / "a", clothes()), tmp_path / "out")
    assert "test sketches          2  275  warning: no source counts as many" in str(report)
    assert "next: python -m sbirlib data check" in str(report)
    known = {"train photos": {3: "here"}, "train sketches": {5: "there", 9: "elsewhere"}}
    monkeypatch.setattr(sources, "published", lambda source: published(source) | {"counts": known})
    report = import_dataset("clothesv1", tmp_path / "a", tmp_path / "again")
    assert "train sketches         6  5 or 9  warning" in str(report)
    assert "train photos           3  3\n" in str(report)
    assert "test photos            1  not stated\n" in str(report)


def test_the_manifest_names_a_source_for_every_count():
    for source in ("clothesv1", "chairv2", "shoev2"):
        known = published(source)
        assert {"train photos", "train sketches", "test photos", "test sketches"} <= set(known["counts"])
        assert all(
            isinstance(count, int) and len(where) > 10
            for counts in known["counts"].values()
            for count, where in counts.items()
        )
    assert list(published("clothesv1")["counts"]["train sketches"]) == [925]
    assert 323 in published("chairv2")["counts"]["test sketches"]
    assert set(published("shoev2")["counts"]["all sketches"]) == {6648, 6730}


def test_an_import_goes_into_a_new_or_empty_folder_only(tmp_path):
    folder, out = write(tmp_path / "a", clothes()), tmp_path / "out"
    out.mkdir()
    import_dataset("clothesv1", folder, out)
    (out / "trainA" / "00000_01.png").write_bytes(b"changed by hand")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    for source, place in ((folder, out), (out, out), (folder, folder)):
        with pytest.raises(SourceError, match=f"{place.name}: is not an empty folder; choose a new one"):
            import_dataset("clothesv1", source, place)
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
    folder, out = write(tmp_path / "a", clothes()), tmp_path / "out"
    if before:
        out.mkdir()

    def stop(path, data):
        raise error

    monkeypatch.setattr(Path, "write_bytes", stop)
    assert main(["data", "import", "clothesv1", str(folder), "--out", str(out)]) == code
    assert words in capsys.readouterr().err
    assert found(out) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out"][: 1 + before]


@pytest.mark.parametrize("before", [False, True])
def test_an_import_that_cannot_be_put_in_place_leaves_nothing(before, tmp_path, monkeypatch):
    folder, out = write(tmp_path / "a", clothes()), tmp_path / "out"
    if before:
        out.mkdir()

    def fail(path, target):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(SourceError, match=r"cannot be written .Input/output error."):
        import_dataset("clothesv1", folder, out)
    assert found(out) == {}
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "out"}


def test_a_folder_that_is_a_disk_of_its_own_is_not_replaced(tmp_path, monkeypatch):
    folder, out = write(tmp_path / "a", clothes()), tmp_path / "out"
    out.mkdir()

    def busy(path):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(Path, "rmdir", busy)
    with pytest.raises(SourceError, match=r"cannot be written .Device or resource busy.; .* another folder"):
        import_dataset("clothesv1", folder, out)
    assert list(out.iterdir()) == []


def test_the_command_reports_and_says_what_next(tmp_path, capsys):
    folder = write(tmp_path / "a", clothes())
    assert main(["data", "import", "clothesv1", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert f"next: python -m sbirlib data check {tmp_path / 'out'}" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "out")]) == 0
