"""Strokes in drawing order: read from files, drawn in part, and found beside the sketches of a folder."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sbirlib.data.loading import load_split
from sbirlib.data.pairs import PairFolder
from sbirlib.data.recordings import Recording, read_recording
from sbirlib.data.strokes import SIZE, Stroke, render_strokes
from sbirlib.errors import ImageError

# Apart from each other, so that what is drawn of one lies in its own third of the picture.
LINES = [[[40.0, 30.0], [160.0, 35.0]], [[50.0, 100.0], [60.0, 90.0], [150.0, 100.0]], [[100.0, 170.0]]]
DRAWING = {"size": [200, 200], "strokes": LINES}


def written(path, drawing=DRAWING) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(drawing if isinstance(drawing, str) else json.dumps(drawing))
    return path


@pytest.fixture
def recording(tmp_path) -> Recording:
    return read_recording(written(tmp_path / "a.json"))


def ink(picture) -> np.ndarray:
    return 255 - np.asarray(picture)[..., 0].astype(int)


def thirds(picture) -> list[bool]:
    """Whether the upper, middle and lower part of the picture have ink."""
    return [bool(part.any()) for part in np.split(ink(picture)[:-2], 3)]


def test_a_recording_is_drawn_as_the_strokes_of_the_panel_are(recording):
    strokes = [Stroke(np.array(line) / 200 * SIZE) for line in LINES]
    assert [stroke.round(3).tolist() for stroke in recording.strokes[1:]] == [
        [[0.25, 0.5], [0.3, 0.45], [0.75, 0.5]],
        [[0.5, 0.85]],
    ]
    np.testing.assert_array_equal(recording.picture(), render_strokes(strokes))


def test_some_strokes_and_the_first_so_many(recording):
    assert thirds(recording.picture(keep=[True, False, True])) == [True, False, True]
    assert thirds(recording.picture(first=2)) == [True, True, False]
    assert thirds(recording.picture(keep=[False, True, True], first=2)) == [False, True, False]
    assert not ink(recording.picture(first=0)).any()
    np.testing.assert_array_equal(recording.picture(first=3), recording.picture())
    with pytest.raises(ValueError, match=r"keep has the shape \(2,\); there are 3 strokes"):
        recording.picture(keep=[True, True])


def test_partial_drawings_take_equal_shares_rounded_up(recording):
    def counts(pictures):
        return [sum(thirds(picture)) for picture in pictures]

    assert counts(recording.partials(1)) == [3]
    assert counts(recording.partials(2)) == [2, 3]
    assert counts(recording.partials(3)) == [1, 2, 3]
    assert counts(recording.partials(7)) == [1, 1, 2, 2, 3, 3, 3]


def test_the_pen_is_as_wide_as_the_size_asks_for(recording):
    large = Recording(recording.strokes, size=2 * SIZE)
    assert large.picture().size == (2 * SIZE, 2 * SIZE)
    assert ink(large.picture()).mean() == pytest.approx(ink(recording.picture()).mean(), rel=0.1)


def test_the_longer_side_fills_the_picture_with_white_around(tmp_path):
    wide = read_recording(written(tmp_path / "a.json", DRAWING | {"size": [400, 200]}))
    np.testing.assert_allclose(wide.strokes[2], [[0.25, 0.675]])
    tall = read_recording(written(tmp_path / "b.json", DRAWING | {"size": [200, 400]}))
    np.testing.assert_allclose(tall.strokes[2], [[0.5, 0.425]])


SVG = '<svg xmlns="http://www.w3.org/2000/svg" {}>{}</svg>'
BLACK = 'stroke="black" fill="none"'


def test_an_svg_gives_each_connected_piece_as_a_stroke(tmp_path):
    shapes = (
        f'<g transform="translate(10 0) scale(2)" {BLACK}><polyline points="0,0 10,10 20,0"/>'
        '<path d="M5 5 L6 6 M20 20 h10"/></g>'
        '<rect width="100" height="100" fill="white"/>'
        f'<path d="M10 90 C 10 10 90 10 90 90 L 95 95" {BLACK}/>'
    )
    found = read_recording(written(tmp_path / "a.svg", SVG.format('viewBox="0 0 100 100"', shapes)))
    straight = [stroke.round(6).tolist() for stroke in found.strokes[:3]]
    assert straight == [
        [[0.1, 0], [0.3, 0.2], [0.5, 0]],
        [[0.2, 0.1], [0.22, 0.12]],
        [[0.5, 0.4], [0.7, 0.4]],
    ]
    *curve, end = found.strokes[3]
    t = np.linspace(0, 1, 9)[:, None]
    by_hand = 0.1 * (1 - t) ** 2 * (1 + 2 * t) + 0.9 * t**2 * (3 - 2 * t), 0.9 - 2.4 * t * (1 - t)
    gaps = np.hypot(*np.diff(curve, axis=0).T)
    assert len(curve) > 100
    assert gaps.max() < 0.02
    assert np.median(gaps) <= 0.01
    for point in np.hstack(by_hand):
        assert np.hypot(*(np.array(curve) - point).T).min() < 0.01
    np.testing.assert_allclose(end, [0.95, 0.95])
    # Units and a view: 100 of them are 10 mm.
    same = written(tmp_path / "b.svg", SVG.format('width="10mm" height="10mm" viewBox="0 0 100 100"', shapes))
    np.testing.assert_allclose(np.concatenate(read_recording(same).strokes), np.concatenate(found.strokes))


@pytest.mark.parametrize(("drawing", "words"), [
    ("", "Invalid JSON"),
    ("[" * 100_000, "Invalid JSON: recursion limit"),
    ("[1]", "Input should be an object"),
    ({"size": [9, 9]}, "strokes: Field required"),
    ({"strokes": LINES}, "size: Field required"),
    (DRAWING | {"size": [9]}, "size: .* at least 2 items"),
    (DRAWING | {"size": [9, 0]}, "size: 1: Input should be greater than or equal to 1"),
    (DRAWING | {"size": [9, 1e9]}, "size: 1: Input should be less than or equal to 100000"),
    (DRAWING | {"strokes": []}, "strokes: .* at least 1 item"),
    (DRAWING | {"strokes": [[]]}, "strokes: 0: .* at least 1 item"),
    (DRAWING | {"strokes": [LINES[0], [[1, 2, 3]]]}, "strokes: 1: 0: .* at most 2 items"),
    (DRAWING | {"strokes": [[[1, "2"]]]}, "strokes: 0: 0: 1: Input should be a valid number"),
    (DRAWING | {"strokes": [[[1, float("nan")]]]}, "strokes: 0: 0: 1: Input should be a finite number"),
    (DRAWING | {"strokes": [[[1, 1e30]]]}, "strokes: 0: 0: 1: Input should be less than"),
])  # fmt: skip
def test_a_damaged_json_is_named_with_what_is_wrong_and_needed(tmp_path, drawing, words):
    path = written(tmp_path / "a_1.json", drawing)
    way = r"needed is \{\"size\": \[w, h\], \"strokes\": \[\[\[x, y\], ...\], ...\]\} in px"
    with pytest.raises(ImageError, match=rf"a_1.json: is no drawing \({words}.*\); {way}"):
        read_recording(path)


@pytest.mark.parametrize(("text", "words"), [
    ("", "no element found"),
    (SVG.format('width="9" height="9"', "")[:-4], "unclosed token"),
    ("<html/>", "it has no <svg> with a size"),
    (SVG.format('viewBox="0 0 9 9"', '<use href="#a"/>'), "it has <use> elements"),
    (SVG.format("", f'<path d="M0 0L5 5" {BLACK}/>'), "it has no <svg> with a size"),
    (SVG.format('width="0" height="9"', f'<path d="M0 0L5 5" {BLACK}/>'), "size: 0: .* greater than"),
    (SVG.format('width="9" height="9"', '<path d="M0 0L5 5"/>'), "strokes: .* at least 1 item"),
    (SVG.format('width="9" height="9"', f'<path d="M0 0C 1e300 1 2 3 4 5" {BLACK}/>'), "less than"),
])  # fmt: skip
def test_a_damaged_svg_is_named_with_what_is_wrong_and_needed(tmp_path, text, words):
    path = written(tmp_path / "a_1.svg", text)
    way = "needed is an SVG with width and height or a viewBox, and lines that have a stroke colour"
    with pytest.raises(ImageError, match=rf"a_1.svg: is no drawing \(.*{words}.*\); {way}"):
        read_recording(path)


def test_a_stroke_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(ImageError, match="none.json: No such file or directory; a readable stroke file"):
        read_recording(tmp_path / "none.json")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Photos a, b, c; of a a picture with strokes beside it, of b only strokes, of c a picture alone."""
    for name in ("trainA/a_1", "trainB/a", "trainB/b", "trainA/c_3", "trainB/c"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (24, 16), "red").save(path)
    written(tmp_path / "trainA" / "a_1.json")
    written(tmp_path / "trainA" / "b_02.json")
    return tmp_path


def test_strokes_are_found_beside_a_picture_or_are_the_sketch(folder, tiny):
    # What lies beside photos is none of a sketch.
    written(folder / "trainB" / "a.json", "no drawing")
    written(folder / "trainB" / "d.json")
    pairs = PairFolder(folder)
    split = pairs.split("train")
    assert [(s.path.name, s.photo_id, s.designer, s.strokes and s.strokes.name) for s in split.sketches] == [
        ("a_1.png", "a", "1", "a_1.json"),
        ("b_02.json", "b", "2", "b_02.json"),
        ("c_3.png", "c", "3", None),
    ]
    assert split.left_out == ()
    loaded = load_split(split, tiny.data, SIZE)
    drawn = read_recording(folder / "trainA" / "b_02.json").picture()
    np.testing.assert_array_equal(loaded.sketches[1].permute(1, 2, 0), drawn)
    assert loaded.sketches[0, :, SIZE // 2, 0].tolist() == [255, 0, 0]  # the picture, and not its strokes
    assert "24x16 .. 320x320 px" in str(pairs.report())


def test_json_comes_before_svg(folder):
    line = SVG.format('width="9" height="9"', f'<path d="M0 0L5 5" {BLACK}/>')
    for name in ("a_1.svg", "b_02.svg", "c_9.SVG"):
        written(folder / "trainA" / name, line)
    split = PairFolder(folder).split("train")
    assert [(s.path.name, s.strokes and s.strokes.name) for s in split.sketches] == [
        ("a_1.png", "a_1.json"),
        ("b_02.json", "b_02.json"),
        ("c_3.png", None),
        ("c_9.SVG", "c_9.SVG"),
    ]
    assert split.left_out == ()


def test_damaged_strokes_are_reported_and_cost_a_sketch_only_if_it_has_no_picture(folder):
    written(folder / "trainA" / "a_1.json", "{")
    written(folder / "trainA" / "b_02.json", "{")
    written(folder / "trainA" / "d_1.json")
    report = PairFolder(folder).report()
    [split] = report.splits
    assert [sketch.path.name for sketch in split.sketches] == ["a_1.png", "c_3.png"]
    assert [(fault.path.name, fault.kind) for fault in split.faults] == [
        ("d_1.json", "sketch without a photo"),
        ("b_02.json", "cannot be read"),
        ("a_1.json", "cannot be read"),
    ]
    assert "is no drawing (Invalid JSON" in str(report)


def test_the_released_pattern_knows_pictures_only(folder):
    split = PairFolder(folder, pattern="one_character").split("train")
    assert [sketch.path.name for sketch in split.sketches] == ["a_1.png", "c_3.png"]
    assert [path.name for path in split.overlooked] == ["b_02.json"]


def test_a_missing_package_is_not_blamed_on_the_drawing(tmp_path, monkeypatch):
    path = written(tmp_path / "a.svg", SVG.format('viewBox="0 0 9 9"', f'<path d="M0 0L5 5" {BLACK}/>'))
    monkeypatch.setitem(sys.modules, "svgelements", None)
    with pytest.raises(ImportError, match="svgelements"):
        read_recording(path)


def test_the_lines_of_a_recording_are_what_is_seen_of_it(recording):
    # Straight, whatever points lie between; a corner stays.
    bent = np.array([[0.1, 0.1], [0.3, 0.101], [0.5, 0.1], [0.9, 0.1], [0.9, 0.9]])
    [line] = Recording((bent,)).lines(100)
    np.testing.assert_allclose(line, bent[[0, 3, 4]], atol=0.005)
    # A white sheet that was laid over the left half hides what is below.
    flat = np.array([[0.1, 0.5], [0.9, 0.5]])

    def covered(keep):
        page = Recording((flat,)).picture()
        page.paste("white", (0, 0, SIZE // 2, SIZE))
        return page

    [line] = Recording((flat,), render=covered).lines(100)
    np.testing.assert_allclose(line, [[0.5, 0.5], [0.9, 0.5]], atol=0.01)


def test_a_scribble_of_a_thousand_corners_is_a_line_as_well():
    places = np.linspace(0.1, 0.9, 1501)
    scribble = np.column_stack([places, np.where(np.arange(1501) % 2, 0.4, 0.6)])
    [line] = Recording((scribble,)).lines(1)
    assert len(line) > 1000  # those within 1 % of the line beside them are left out
    assert set(map(tuple, line.round(6))) <= set(map(tuple, scribble.round(6)))


def test_of_many_lines_the_largest_are_kept_in_drawing_order():
    lengths = [0.2, 0.6, 0.1, 0.4]
    strokes = [
        np.array([[0.1, 0.2 * i + 0.1], [0.1 + side, 0.2 * i + 0.1]]) for i, side in enumerate(lengths)
    ]
    found = Recording(tuple(strokes)).lines(5)
    np.testing.assert_allclose(np.stack(found), [strokes[1], strokes[3]], atol=0.005)
    assert len(Recording(tuple(strokes)).lines(8)) == 4
    assert len(Recording(tuple(strokes)).lines(1)) == 1  # or there would be nothing to learn


def test_of_a_drawing_on_which_nothing_is_seen_the_first_stroke_is_left():
    outside = Recording((np.array([[2.0, 2.0], [3.0, 2.0]]), np.array([[2.0, 5.0], [3.0, 5.0]])))
    assert outside.lines(10) == outside.strokes[:1]
    click = Recording((np.array([[0.5, 0.5], [0.5, 0.5]]),))
    assert [len(line) for line in click.lines(10)] == [2]
