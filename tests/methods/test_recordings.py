"""Which recording belongs to a sketch: of MiniClothes, of a stroke file, or none."""

import json
import shutil

import numpy as np
import pytest

from sbirlib import Config, PairFolder, read_image
from sbirlib.data.splits import PairError
from sbirlib.errors import ImageError, InputError
from sbirlib.methods.cards import Needs
from sbirlib.methods.recordings import recorder, recording

DRAWING = json.dumps({"size": [64, 64], "strokes": [[[5, 5], [60, 60]]]})


@pytest.fixture
def folder(clothes, tmp_path):
    """The small MiniClothes as plain pictures."""
    for name in ("trainA", "trainB"):
        shutil.copytree(clothes / name, tmp_path / name)
    return tmp_path


def test_every_sketch_of_a_drawn_folder_is_drawn_again(pairs):
    sketches = pairs.split("train").sketches + pairs.split("test").sketches
    assert len(sketches) == 48
    for sketch in sketches:
        np.testing.assert_array_equal(recording(sketch).picture(), read_image(sketch.path))


def test_a_sketch_that_somebody_added_to_miniclothes_needs_strokes_of_its_own(clothes, tmp_path):
    root = shutil.copytree(clothes, tmp_path / "more")
    sketch = PairFolder(root).split("train").sketches[0]
    added = sketch.path.with_name(f"{sketch.photo_id}_0009.png")
    shutil.copy(sketch.path, added)
    assert [recorder(s) is None for s in PairFolder(root).split("train").sketches if s.path == added] == [
        True
    ]
    added.with_suffix(".json").write_text(DRAWING)
    [found] = [s for s in PairFolder(root).split("train").sketches if s.path == added]
    np.testing.assert_allclose(recording(found).strokes, [[[5 / 64, 5 / 64], [60 / 64, 60 / 64]]])


@pytest.mark.parametrize(("change", "words"), [
    ({"version": 1}, "version 1 of MiniClothes drew them"),
    ({"photos": 3}, "cannot be drawn again"),
    (None, "cannot be drawn again"),
])  # fmt: skip
def test_a_miniclothes_of_another_version_is_not_drawn_again_otherwise(clothes, tmp_path, change, words):
    root = shutil.copytree(clothes, tmp_path / "old")
    manifest = root / "miniclothes.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change) if change else "{")
    with pytest.raises(InputError, match=f"miniclothes.json: .*{words}.*; draw MiniClothes into another"):
        recording(PairFolder(root).split("train").sketches[0])


def test_pictures_have_no_strokes(folder):
    sketch = PairFolder(folder).split("train").sketches[0]
    ways = "Put a .json or .svg of the strokes beside each sketch, or use MiniClothes"
    with pytest.raises(
        PairError, match=f"{sketch.path.name}: the strokes of this sketch are needed .*{ways}"
    ):
        recording(sketch)


def test_a_method_that_needs_strokes_refuses_a_folder_without(folder, pairs):
    needs, config = Needs(strokes=True), Config()
    needs.check("any", pairs, config)
    ways = "Put a .json or .svg of the strokes beside each sketch, or use MiniClothes"
    start = "method any needs the strokes of each sketch in drawing order; "
    with pytest.raises(PairError, match=f"{start}{folder} holds only images. {ways}"):
        needs.check("any", PairFolder(folder), config)
    first, *rest = sorted((folder / "trainA").iterdir())
    for path in rest:
        path.with_suffix(".json").write_text(DRAWING)
    some = f"{folder} has none for 1 of 32 sketches, such as {first.name}"
    with pytest.raises(PairError, match=f"{start}{some}. {ways}"):
        needs.check("any", PairFolder(folder), config)
    first.with_suffix(".json").write_text(DRAWING)
    needs.check("any", PairFolder(folder), config)


def test_damaged_strokes_are_found_before_a_training(folder):
    for sketch in PairFolder(folder).split("train").sketches:
        sketch.path.with_suffix(".json").write_text(DRAWING)
    pairs = PairFolder(folder)
    Needs(strokes=True).check("any", pairs, Config())
    damaged = pairs.split("train").sketches[3].strokes
    damaged.write_text("{broken")
    with pytest.raises(ImageError, match=f"{damaged.name}: is no drawing"):
        Needs(strokes=True).check("any", pairs, Config())


def test_a_json_of_something_else_is_passed_over(folder):
    before = PairFolder(folder).split("train")
    (folder / "trainA" / "annotations.json").write_text("{}")
    assert PairFolder(folder).split("train") == before
