"""MiniClothes: what is drawn, that it is drawn the same each time, and that twins can be told apart."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tools.eye_drawings import points, read_drawings

from sbirlib.miniclothes.dataset import ATTRIBUTES, draw_miniclothes
from sbirlib.miniclothes.garments import Garment, detail_differences, wardrobe
from sbirlib.miniclothes.photo import render_photo
from sbirlib.miniclothes.shapes import layout
from sbirlib.miniclothes.sketch import DESIGNERS, render_sketch

CLOTHES = wardrobe(0)
SMALL = dict(photos=(12, 6), sketches=(24, 12), size=64)
# A hand that leaves out most and strays least: what it shows of a twin, every designer shows.
PLAIN_HAND = replace(DESIGNERS[6], wobble=0.0, loose=0.0, pressure=0.0)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return draw_miniclothes(tmp_path_factory.mktemp("drawn") / "mini", **SMALL)


def twin_pairs(garments: list[Garment]) -> list[tuple[Garment, Garment]]:
    by_photo = {garment.photo: garment for garment in garments}
    return [(g, by_photo[g.twin_of]) for g in garments if g.twin_of and g.photo < g.twin_of]


def ink(picture: Image.Image, size: int = 96) -> np.ndarray:
    """Darkness 0..1 as (size, size), at the resolution that small models see."""
    grey = picture.convert("L").resize((size, size), Image.Resampling.BOX)
    return 1 - np.asarray(grey, dtype=float) / 255


def pixels(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): Image.open(f).tobytes() for f in sorted(folder.glob("*/*.png"))}


def test_default_wardrobe_has_the_size_of_clothes_v1():
    assert (len(CLOTHES.train), len(CLOTHES.test)) == (380, 120)
    names = [g.photo for g in (*CLOTHES.train, *CLOTHES.test)]
    assert names == [f"{number:05d}" for number in range(1, 501)]
    assert {g.family for g in CLOTHES.test} == {"tee", "shirt", "hoodie", "jacket", "coat", "dress", "skirt"}


def test_wardrobe_is_the_same_for_a_seed_and_another_for_another():
    assert wardrobe(0) == CLOTHES
    assert wardrobe(1, 12, 6) != wardrobe(0, 12, 6)


def test_no_two_photos_show_the_same_garment():
    unnamed = [
        replace(g, photo="", twin_of=None, colour=(0, 0, 0), second=(0, 0, 0), trim=(0, 0, 0))
        for g in (*CLOTHES.train, *CLOTHES.test)
    ]
    assert len(set(unnamed)) == 500


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_quarter_of_a_split_are_twins_in_one_or_two_details(split):
    garments = getattr(CLOTHES, split)
    pairs = twin_pairs(garments)
    assert 2 * len(pairs) >= 0.25 * len(garments)
    for one, other in pairs:
        assert one.twin_of == other.photo
        assert other.twin_of == one.photo
        assert one.family == other.family
        assert 1 <= len(detail_differences(one, other)) <= 2


def test_differences_name_drawable_fields_only():
    garment = CLOTHES.test[0]
    assert detail_differences(garment, replace(garment, colour=(1, 2, 3), photo="99999", twin_of=None)) == ()
    assert detail_differences(garment, replace(garment, length=2.0, belt="rope")) == ("length", "belt")


def test_every_designer_shows_what_twins_differ_in():
    for one, other in twin_pairs(CLOTHES.test):
        drawn = [ink(render_sketch(g, PLAIN_HAND, seed=3, size=192)) for g in (one, other)]
        strokes = (np.abs(drawn[0] - drawn[1]) > 0.3).sum()
        assert strokes >= 25, (one.photo, other.photo, detail_differences(one, other), strokes)


def test_twins_drawn_by_the_same_hand_and_seed_differ():
    for one, other in twin_pairs(CLOTHES.test)[:3]:
        for designer in DESIGNERS:
            drawn = [ink(render_sketch(g, designer, seed=5, size=128)) for g in (one, other)]
            assert (np.abs(drawn[0] - drawn[1]) > 0.2).sum() >= 25, (one.photo, designer.number)


def test_every_part_of_every_garment_lies_on_the_paper():
    for garment in (*CLOTHES.train, *CLOTHES.test):
        for part in layout(garment):
            assert np.isfinite(part.points).all(), (garment.photo, part.name)
            assert part.points.min() > 0.02, (garment.photo, part.name)
            assert part.points.max() < 0.98, (garment.photo, part.name)


def filled(parts) -> np.ndarray:
    """Where the parts lie, as a (300, 300) mask."""
    mask = Image.new("L", (300, 300))
    for part in parts:
        ImageDraw.Draw(mask).polygon((part.points * 300).ravel().tolist(), fill=255, outline=255)
    return np.asarray(mask) > 0


def test_details_lie_on_the_cloth():
    for garment in (*CLOTHES.train[:120], *CLOTHES.test):
        parts = layout(garment)
        cloth = filled(part for part in parts if part.name in {"body", "hem", "band", "collar", "trim"})
        behind = filled(part for part in parts if part.name == "back")  # a stand collar gapes a little
        for part in parts:
            if part.name in {"pocket", "flap", "placket"}:
                detail = filled([part])
                assert (detail & ~cloth).sum() < 0.08 * detail.sum(), (garment.photo, part.name)
            elif part.name in {"button", "zip", "pleat"}:
                x, y = (part.points * 300).astype(int).T
                assert (cloth | behind)[y, x].all(), (garment.photo, part.name)


def test_photo_is_coloured_on_white_and_the_same_each_time():
    garment = CLOTHES.test[0]
    photo = render_photo(garment, seed=(0, 1))
    assert (photo.size, photo.mode) == ((256, 256), "RGB")
    assert photo.tobytes() == render_photo(garment, seed=(0, 1)).tobytes()
    assert photo.tobytes() != render_photo(garment, seed=(0, 2)).tobytes()
    border = np.asarray(photo)[[0, -1]]
    assert border.min() > 225
    covered = (np.asarray(photo).min(axis=2) < 200).any(axis=1).sum() / 256
    across = (np.asarray(photo).min(axis=2) < 200).any(axis=0).sum() / 256
    assert max(covered, across) > 0.72


def test_sketch_is_grey_strokes_on_white_and_the_same_each_time():
    garment = CLOTHES.test[0]
    for designer in DESIGNERS:
        sketch = render_sketch(garment, designer, seed=(0, 1))
        assert (sketch.size, sketch.mode) == ((256, 256), "RGB")
        assert sketch.tobytes() == render_sketch(garment, designer, seed=(0, 1)).tobytes()
        red, green, blue = np.moveaxis(np.asarray(sketch), 2, 0)
        assert (red == green).all()
        assert (green == blue).all()
        assert (red == 255).mean() > 0.4
        assert red.min() < 140


def test_designers_have_hands_of_their_own():
    assert [d.level for d in DESIGNERS] == ["professional"] * 4 + ["junior"] * 3
    garments = CLOTHES.test[:5]
    weight = {
        d.number: np.mean([ink(render_sketch(g, d, seed=1)).sum() for g in garments]) for d in DESIGNERS
    }
    assert weight[7] > 1.3 * weight[1]  # marker against fine pen
    assert weight[2] > 1.3 * weight[3]  # brush against pencil
    same = render_sketch(garments[0], DESIGNERS[0], seed=1)
    for designer in DESIGNERS[1:]:
        other = render_sketch(garments[0], designer, seed=1)
        assert (np.abs(ink(same) - ink(other)) > 0.2).mean() > 0.02


def test_files_counts_and_names(small):
    wanted = {"trainA": 24, "trainB": 12, "testA": 12, "testB": 6}
    photos = {}
    for folder, count in wanted.items():
        names = sorted(f.name for f in (small / folder).iterdir())
        assert len(names) == count
        pattern = r"\d{5}_0[1-7]\.png" if folder.endswith("A") else r"\d{5}\.png"
        assert all(re.fullmatch(pattern, name) for name in names)
        photos[folder] = {name[:5] for name in names}
    assert photos["trainA"] == photos["trainB"]
    assert photos["testA"] == photos["testB"]
    assert not photos["trainB"] & photos["testB"]
    with Image.open(small / "testB" / "00013.png") as photo:
        assert (photo.size, photo.mode) == ((64, 64), "RGB")
    assert [f.name for f in small.parent.iterdir()] == [small.name]  # no unfinished folder is left


def test_every_designer_draws_in_both_splits_and_no_photo_twice(small):
    for folder in ("trainA", "testA"):
        names = [f.stem for f in (small / folder).iterdir()]
        assert {name[-2:] for name in names} == {f"{d.number:02d}" for d in DESIGNERS}
        assert 1 <= max(Counter(name[:5] for name in names).values()) <= 4


def test_manifest_names_the_twins(small):
    manifest = json.loads((small / "miniclothes.json").read_text())
    assert {k: manifest[k] for k in ("seed", "photos", "sketches", "size")} == {
        "seed": 0, "photos": [12, 6], "sketches": [24, 12], "size": 64,
    }  # fmt: skip
    assert len(manifest["items"]) == 18
    twins = {photo: item for photo, item in manifest["items"].items() if item["twin"]}
    assert twins
    for photo, item in twins.items():
        assert manifest["items"][item["twin"]]["twin"] == photo
        assert item["differs"] == manifest["items"][item["twin"]]["differs"] != []


def test_a_script_without_a_main_guard_runs_once_and_draws_the_same_in_several_processes(tmp_path):
    many, script = dict(photos=(36, 4), sketches=(60, 4), size=32), tmp_path / "script.py"
    script.write_text(
        "from sbirlib.miniclothes import draw_miniclothes\n"
        f"draw_miniclothes({str(tmp_path / 'mini')!r}, **{many})\nprint('drawn')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "drawn\n"), done.stderr
    drawn = pixels(tmp_path / "mini")
    assert len(drawn) == 104
    for garment in wardrobe(0, 36, 4).train[::5]:
        photo = render_photo(garment, seed=(0, int(garment.photo), 0), size=32)
        assert drawn[f"trainB/{garment.photo}.png"] == photo.tobytes()


def test_same_drawing_is_returned_without_drawing(small):
    before = {f: f.stat().st_mtime_ns for f in small.rglob("*")}
    assert draw_miniclothes(small, **SMALL) == small
    assert {f: f.stat().st_mtime_ns for f in small.rglob("*")} == before


@pytest.mark.parametrize("change", [dict(seed=1), dict(size=96), dict(sketches=(30, 12))])
def test_another_drawing_is_never_overwritten(small, change):
    before = pixels(small)
    with pytest.raises(FileExistsError, match=re.escape(str(small))):
        draw_miniclothes(small, **(SMALL | change))
    assert pixels(small) == before


def test_foreign_and_damaged_folders_are_left_alone(small, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="nothing in it was touched"):
        draw_miniclothes(foreign, **SMALL)
    assert (foreign / "thesis.txt").read_text() == "years of work"
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "miniclothes.json").write_bytes((small / "miniclothes.json").read_bytes())
    with pytest.raises(FileExistsError):
        draw_miniclothes(damaged, **SMALL)


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*job):
        raise KeyboardInterrupt

    monkeypatch.setattr("sbirlib.miniclothes.dataset._draw", interrupt)
    with pytest.raises(KeyboardInterrupt):
        draw_miniclothes(tmp_path / "mini", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "mini").mkdir()
    for _ in range(2):
        draw_miniclothes(tmp_path / "mini", photos=(1, 1), sketches=(1, 1), size=32)
        names = [f.name for f in sorted((tmp_path / "mini").iterdir())]
        assert names == ["attributes.csv", "miniclothes.json", "testA", "testB", "trainA", "trainB"]
    assert list(tmp_path.iterdir()) == [tmp_path / "mini"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(sketches=(11, 12)), "12 train photos with 11 sketches: give .* 1 to 7 sketches of each"),
        (dict(sketches=(24, 43)), "6 test photos with 43 sketches: give .* 1 to 7 sketches of each"),
        (dict(photos=(0, 6)), "0 train photos with 24 sketches: give at least 1 photo"),
        (dict(photos=(12, 0)), "0 test photos with 12 sketches: give at least 1 photo"),
        (dict(seed=-1), "seed=-1: give at least 0"),
    ],
)
def test_bad_arguments_name_value_and_fix(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_miniclothes(tmp_path / "mini", **(SMALL | arguments))
    assert not (tmp_path / "mini").exists()


def test_what_a_killed_drawing_left_does_not_stand_in_the_way(tmp_path):
    folder = tmp_path / "clothes"
    (tmp_path / ".clothes-x1y2" / "new").mkdir(parents=True)
    draw_miniclothes(folder, photos=(4, 2), sketches=(4, 2), size=32)
    assert len(list((folder / "testB").iterdir())) == 2


def test_garments_drawn_by_eye_show_what_there_are_photos_of():
    garments, drawings = [*CLOTHES.train, *CLOTHES.test], read_drawings()
    assert len(drawings) == len({drawing.name for drawing in drawings}) == 12
    for drawing in drawings:
        found = points(drawing.wanted, garments)
        assert set(found) <= set(ATTRIBUTES)
        assert all(10 <= count <= 250 for count in found.values())
        assert 0.01 < (drawing.query < 128).mean() < 0.1


def test_another_seed_may_draw_fronts_too_short_for_a_button():
    garments = [garment for split in wardrobe(1, 380, 120) for garment in split]
    counts = {g.photo: sum(part.name == "button" for part in layout(g)) for g in garments}
    buttoned = [g.photo for g in garments if g.closure in ("buttons", "half", "double")]
    assert min(counts[photo] for photo in buttoned) == 0 < max(counts.values())
