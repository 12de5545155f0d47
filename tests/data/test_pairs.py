import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sbirlib.config.config import DataConfig
from sbirlib.data.images import EXTENSIONS, Fault, faults_message
from sbirlib.data.loading import load_split
from sbirlib.data.pairs import PairFolder
from sbirlib.data.splits import PairError
from sbirlib.errors import InputError


def picture(path, mode="RGB", size=(24, 16), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two sound pairs to train on and one to test on."""
    for name in ("trainA/a_1", "trainA/a_2", "trainB/a", "trainA/b", "trainB/b", "testA/c_01", "testB/c"):
        picture(tmp_path / f"{name}.png")
    return tmp_path


def kinds(split):
    return sorted((fault.path.name, fault.kind) for fault in split.left_out)


def test_reads_names_ids_and_designers(folder):
    train = PairFolder(folder).split("train")
    assert [(s.path.name, s.photo_id, s.designer) for s in train.sketches] == [
        ("a_1.png", "a", "1"),
        ("a_2.png", "a", "2"),
        ("b.png", "b", ""),
    ]
    assert [photo.id for photo in train.photos] == ["a", "b"]
    assert train.photo_index.tolist() == [0, 0, 1]
    assert train.left_out == ()


@pytest.mark.parametrize("extension", [*EXTENSIONS, ".PNG", ".JpEg"])
def test_extensions_in_any_case(tmp_path, extension):
    for name in ("testA/x_0012", "testB/x"):
        picture(tmp_path / f"{name}{extension}")
    assert PairFolder(tmp_path).split("test").sketches[0].designer == "12"


def test_ids_may_contain_underscores_and_end_in_digits(tmp_path):
    for name in (
        "testA/red_shirt_12_3",
        "testA/red_shirt_12",
        "testB/red_shirt_12",
        "testA/red_shirt_7_1",
        "testB/red_shirt_7",
    ):
        picture(tmp_path / f"{name}.png")
    split = PairFolder(tmp_path).split("test")
    assert [(s.photo_id, s.designer) for s in split.sketches] == [
        ("red_shirt_12", ""),
        ("red_shirt_12", "3"),
        ("red_shirt_7", "1"),
    ]


def test_designers_are_numbers_however_they_are_written(folder):
    for name in ("a_03", "b_3", "b_0003", "a_10", "a_0"):
        picture(folder / f"trainA/{name}.png")
    train = PairFolder(folder).split("train")
    assert train.designers == ["", "0", "1", "2", "3", "10"]
    assert sum(sketch.designer == "3" for sketch in train.sketches) == 3


@pytest.mark.parametrize("sides", ["AB", "BA"])
def test_an_accent_is_one_character_or_two_and_the_same_name(tmp_path, sides):
    composed, apart = (unicodedata.normalize(form, "chemise à carreaux é") for form in ("NFC", "NFD"))
    names = dict(zip(sides, (composed, apart), strict=True))
    for file in (f"testA/{names['A']}_1", f"testA/{names['A']}", f"testB/{names['B']}"):
        picture(tmp_path / f"{file}.png")
    split = PairFolder(tmp_path).split("test")
    assert split.left_out == ()
    assert [(s.photo_id, s.designer) for s in split.sketches] == [(composed, ""), (composed, "1")]
    if {path.name for path in (tmp_path / "testB").iterdir()} == {f"{names['B']}.png"}:
        picture(tmp_path / f"testB/{names['A']}.png")
        assert {kind for _, kind in kinds(PairFolder(tmp_path).split("test"))} == {"two photos of one id"}


def latin(path):
    """`path` with its accents as one byte each, which no name in UTF-8 has."""
    return Path(os.fsdecode(str(path).encode("latin1")))


@pytest.fixture
def bytes_for_names(tmp_path):
    try:
        latin(tmp_path / "é").touch()
    except OSError:
        pytest.skip("this disk takes names in UTF-8 only")
    latin(tmp_path / "é").unlink()


def test_names_that_are_not_utf8_are_faults(bytes_for_names, folder):
    for name in ("trainA/é_1", "trainA/é_2", "trainB/é"):
        picture(folder / "x.png").rename(latin(folder / f"{name}.png"))
    report = PairFolder(folder).report()
    assert report.left_out == 3
    assert "trainB/\\udce9.png: cannot be used: its name is not UTF-8; rename it (convmv -f latin1" in str(
        report
    )
    with pytest.raises(PairError, match="3 files cannot be used"):
        load_split(PairFolder(folder).split("train"), DataConfig(root=str(folder)), 16)


def test_a_folder_whose_name_is_not_utf8_is_refused(bytes_for_names, folder, tmp_path):
    root = latin(tmp_path.parent / f"{tmp_path.name}-é")
    folder.rename(root)
    with pytest.raises(InputError, match="its name is not UTF-8; rename it"):
        PairFolder(root)
    root.rename(folder)
    assert PairFolder(folder).split("train").left_out == ()


def test_hidden_and_foreign_files_are_passed_over(folder):
    (folder / "trainA/notes.txt").write_text("hello")
    (folder / "trainA/._a_1.png").write_text("resource fork")
    assert len(PairFolder(folder).split("train").sketches) == 3


def test_pictures_of_other_formats_and_dead_links_are_faults(folder):
    picture(folder / "trainA/a_3.gif")
    (folder / "testB/d.png").symlink_to(folder / "nowhere.png")
    assert kinds(PairFolder(folder).split("train")) == [("a_3.gif", "cannot be read")]
    assert kinds(PairFolder(folder).split("test")) == [("d.png", "cannot be read")]


def test_sketch_without_a_photo(folder):
    picture(folder / "trainA/zebra_1.png")
    assert kinds(PairFolder(folder).split("train")) == [("zebra_1.png", "sketch without a photo")]


def test_photo_without_a_sketch_is_left_out_of_training_but_stays_in_the_gallery(folder):
    picture(folder / "trainB/z.png")
    picture(folder / "testB/z.png")
    pairs = PairFolder(folder)
    assert kinds(pairs.split("train")) == [("z.png", "photo without a sketch")]
    assert pairs.split("test").left_out == ()
    assert [photo.id for photo in pairs.split("test").photos] == ["c", "z"]
    assert "distractors" in str(pairs.report())


def test_two_photos_of_one_id_take_their_sketches_with_them(folder):
    picture(folder / "trainB/a.jpg")
    split = PairFolder(folder).split("train")
    assert {kind for _, kind in kinds(split)} == {"two photos of one id"}
    assert [name for name, _ in kinds(split)] == ["a.jpg", "a.png", "a_1.png", "a_2.png"]
    assert [sketch.photo_id for sketch in split.sketches] == ["b"]


def test_a_sketch_that_two_photos_claim_is_not_guessed(folder):
    picture(folder / "trainB/a_1.png")
    split = PairFolder(folder).split("train")
    assert ("a_1.png", "two photos of one id") in kinds(split)
    assert "both claim" in next(f.detail for f in split.faults)


def test_report_lists_unreadable_files_and_sizes(folder):
    (folder / "trainA/a_1.png").write_text("this is no image")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "trainB/b.jpg")
    (folder / "trainB/b.png").unlink()
    (folder / "trainB/b.jpg").write_bytes((folder / "trainB/b.jpg").read_bytes()[:900])
    report = PairFolder(folder).report()
    text = str(report)
    assert report.left_out == 3
    assert "a_1.png: cannot be read: is not a PNG" in text
    assert "b.jpg: cannot be read: is damaged" in text
    assert "b.png: sketch without a photo: photo 'b' cannot be used" in text
    assert "1         1         0  24x16 px" in text


@pytest.mark.parametrize(
    ("missing", "words"),
    [("trainB", "trainB/ .photos. is missing"), ("testA", "testA/ .sketches. is missing")],
)
def test_half_a_split_is_refused(folder, missing, words):
    for path in (folder / missing).iterdir():
        path.unlink()
    (folder / missing).rmdir()
    with pytest.raises(PairError, match=words):
        PairFolder(folder)


def test_missing_folder_and_missing_or_empty_split(tmp_path):
    with pytest.raises(PairError, match="no such folder"):
        PairFolder(tmp_path / "nowhere")
    with pytest.raises(PairError, match="needs trainA/ and trainB/"):
        PairFolder(tmp_path)
    for name in ("testA", "testB"):
        (tmp_path / name).mkdir()
    pairs = PairFolder(tmp_path)
    with pytest.raises(PairError, match="the test split is empty"):
        pairs.split("test")
    with pytest.raises(PairError, match="no train split"):
        pairs.split("train")
    with pytest.raises(PairError, match="has no valA/ and valB/, so there is no val split"):
        pairs.split("val")


def test_holdout_divides_by_photo(pairs):
    train = pairs.split("train")
    kept, held = train.holdout(0.25, seed=3)
    assert {p.id for p in kept.photos}.isdisjoint(p.id for p in held.photos)
    assert len(held.photos) == 4
    assert len(kept.sketches) + len(held.sketches) == len(train.sketches)
    assert {s.photo_id for s in held.sketches} == {p.id for p in held.photos}
    assert train.holdout(0.25, seed=3) == (kept, held)
    assert train.holdout(0.25, seed=4) != (kept, held)
    assert train.holdout(0.0, seed=3)[1].sketches == ()


def test_too_few_photos_to_hold_out(folder):
    with pytest.raises(PairError, match=r"too few.*data\.val_fraction to 0"):
        PairFolder(folder).split("train").holdout(0.1, seed=0)


def test_the_released_pattern_overlooks_all_but_one_character_and_png(folder):
    for name in ("trainA/a_10.png", "trainA/a_x.png", "trainA/b_1.jpg"):
        picture(folder / name)
    with_digits = PairFolder(folder, pattern="digits").splits["train"]
    assert ("a_10.png", "10") in [(s.path.name, s.designer) for s in with_digits.sketches]
    released = PairFolder(folder, pattern="one_character").split("train")
    assert [(s.path.name, s.photo_id) for s in released.sketches] == [
        ("a_1.png", "a"),
        ("a_2.png", "a"),
        ("a_x.png", "a"),
    ]
    assert [path.name for path in released.overlooked] == ["a_10.png", "b.png", "b_1.jpg"]


def test_the_released_pattern_never_matches_two_digits(folder):
    (folder / "testA/c_1.png").unlink(missing_ok=True)
    with pytest.raises(
        PairError, match=r"one_character overlooks all 1 sketches of the test split, such as c_01"
    ):
        PairFolder(folder, pattern="one_character").split("test")


def test_the_released_pattern_knows_no_sketch_named_like_its_photo(folder):
    picture(folder / "trainB/a_1.png")
    assert ("a_1.png", "two photos of one id") in kinds(PairFolder(folder).split("train"))
    released = PairFolder(folder, pattern="one_character").split("train")
    assert [(s.path.name, s.photo_id) for s in released.sketches] == [("a_1.png", "a"), ("a_2.png", "a")]


def test_a_report_says_which_photos_are_in_both_splits(clothes, tmp_path):
    assert "same name" not in str(PairFolder(clothes).report())
    for letter in "AB":
        shutil.copytree(clothes / f"train{letter}", tmp_path / "twice" / f"train{letter}")
        shutil.copytree(clothes / f"train{letter}", tmp_path / "twice" / f"test{letter}")
    assert "note: 16 photos of train and test have the same name" in str(
        PairFolder(tmp_path / "twice").report()
    )


def test_a_line_break_in_a_name_forges_no_line(clothes, tmp_path):
    for letter, name in (("A", "new\nline_1.png"), ("B", "new\nline.png")):
        (tmp_path / f"test{letter}").mkdir()
        shutil.copy(next((clothes / f"test{letter}").iterdir()), tmp_path / f"test{letter}" / name)
    assert len(PairFolder(tmp_path).split("test").sketches) == 1
    fault = Fault(tmp_path / "bad\nname.png", "cannot be read", "is damaged")
    assert len(faults_message(tmp_path, [fault]).splitlines()) == 3
