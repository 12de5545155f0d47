"""Strokes become query pictures that are framed and inked as training sketches are."""

import numpy as np
import pytest
from PIL import Image
from tools.traced import trace_garment

from sbirlib.data.images import read_image
from sbirlib.data.strokes import (
    INK,
    SIZE,
    WIDTH,
    Stroke,
    erase_strokes,
    frame_picture,
    frame_strokes,
    render_strokes,
)
from sbirlib.miniclothes.garments import wardrobe
from sbirlib.miniclothes.sketch import DESIGNERS, render_sketch

BODY = np.array([(120, 60), (110, 260), (210, 260), (200, 60), (120, 60)], dtype=float)
SLEEVE = np.array([(120, 60), (60, 200), (85, 210), (114, 130)], dtype=float)


def ink_box(picture):
    """Left, top, right, bottom of what is darker than paper, as shares of the picture."""
    rows, columns = np.nonzero(picture.min(axis=2) < 128)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / len(picture)


@pytest.mark.parametrize("width", [1.5, 3.0, 8.0])
def test_strokes_are_dark_smooth_and_as_wide_as_the_pen(width):
    picture = render_strokes([Stroke(np.array([(40.0, 160.5), (280.0, 160.5)]), width)])
    assert picture.shape == (SIZE, SIZE, 3)
    assert picture.dtype == np.uint8
    column = 255.0 - picture[:, 150, 0]
    assert column.sum() / (255 - INK) == pytest.approx(width, abs=0.35)
    assert picture.min() == INK or width < 2
    slanted = render_strokes([Stroke(np.array([(40.0, 50.0), (280.0, 190.0)]), width)])
    assert len(np.unique(slanted)) > 4, "the edges of a slanted line are grey"


def test_a_single_point_is_a_dot_and_no_stroke_is_white_paper():
    dot = render_strokes([Stroke(np.array([(100.0, 200.0)]), 9.0)])
    rows, columns = np.nonzero(dot[..., 0] < 128)
    assert abs(rows.mean() - 199.5) < 1
    assert abs(columns.mean() - 99.5) < 1
    assert len(rows) == pytest.approx(np.pi * 4.5**2, rel=0.15)
    assert (render_strokes([], 64) == 255).all()


def test_a_framed_drawing_fills_its_picture_as_the_sketches_of_miniclothes_do(clothes):
    boxes = np.array([ink_box(np.asarray(read_image(path))) for path in (clothes / "trainA").glob("*.png")])
    sides = boxes[:, 2:] - boxes[:, :2]
    framed = ink_box(render_strokes(frame_strokes([Stroke(BODY * 0.4), Stroke(SLEEVE * 0.4)])))
    side = max(framed[2:] - framed[:2])
    assert side == pytest.approx(np.median(sides.max(axis=1)), abs=0.03)
    assert (framed[2:] + framed[:2]) / 2 == pytest.approx([0.5, 0.5], abs=0.01)


def test_framing_undoes_place_and_size_and_leaves_the_pen_alone():
    strokes = [Stroke(BODY, 2.0), Stroke(SLEEVE, 5.0)]
    small = [Stroke(stroke.points * 0.2 + [250, 9], stroke.width) for stroke in strokes]
    for one, other in zip(frame_strokes(strokes), frame_strokes(small), strict=True):
        assert other.points == pytest.approx(one.points)
        assert other.width == one.width
    assert [stroke.width for stroke in frame_strokes(small)] == [2.0, 5.0]


def test_framing_does_not_blow_up_a_dot():
    assert frame_strokes([]) == []
    [dot] = frame_strokes([Stroke(np.array([(3.0, 5.0)]))])
    assert dot.points.tolist() == [[SIZE / 2, SIZE / 2]]
    [tick] = frame_strokes([Stroke(np.array([(3.0, 5.0), (7.0, 5.0)]))])
    assert np.ptp(tick.points[:, 0]) < 0.1 * SIZE


def test_a_picture_of_a_drawing_on_grey_paper_is_cut_out_whitened_and_framed(clothes):
    drawing = read_image(sorted((clothes / "testA").glob("*.png"))[0])
    photo = Image.new("RGB", (300, 240), (190, 185, 180))
    photo.paste(
        Image.fromarray((np.asarray(drawing) * (np.array([190, 185, 180]) / 255)).astype(np.uint8)), (210, 40)
    )
    framed, direct = frame_picture(photo), frame_picture(drawing)
    assert framed.shape == (SIZE, SIZE, 3)
    assert (framed[0] == 255).all()
    assert ink_box(framed) == pytest.approx(ink_box(direct), abs=0.03)
    assert np.corrcoef(framed.ravel(), direct.ravel())[0, 1] > 0.9
    box = ink_box(framed)
    assert max(box[2:] - box[:2]) == pytest.approx(0.84, abs=0.04)


def on_paper(drawing, paper, light):
    """A drawing at the side of a sheet of noisy paper, its lines `light` times as strong."""
    page = np.ones((240, 300))
    page[40:104, 210:274] = 1 - light * (1 - np.asarray(drawing.convert("L")) / 255)
    noise = np.random.default_rng(0).normal(0, 2, page.shape)
    return Image.fromarray((page * paper + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("light", [1.0, 0.2, 0.12])
def test_light_pencil_is_framed_as_ink_is(clothes, light):
    drawing = read_image(sorted((clothes / "testA").glob("*.png"))[0])
    picture = on_paper(drawing, 230, light)
    darkness = 255.0 - frame_picture(picture)
    darkness[darkness < 9] = 0  # the noise
    direct = 255.0 - frame_picture(drawing)
    assert np.corrcoef(darkness.ravel(), direct.ravel())[0, 1] > 0.6


def test_white_on_black_becomes_black_on_white(clothes):
    drawing = read_image(sorted((clothes / "testA").glob("*.png"))[0])
    black = Image.fromarray(255 - np.asarray(drawing))
    assert np.array_equal(frame_picture(black), frame_picture(drawing))


LIGHTS = {
    "slope": lambda x, y: 0.35 + 0.5 * x,
    "steep slope": lambda x, y: 0.85 * np.exp(-1.3 * y),
    "shadow": lambda x, y: 0.85 - 0.4 / (1 + np.exp((x + y - 0.9) * 30)),
    "corners": lambda x, y: 0.85 - ((x - 0.5) ** 2 + (y - 0.5) ** 2),
}


@pytest.mark.parametrize("strength", [0.85, 0.5], ids=["ink", "pencil"])
@pytest.mark.parametrize("light", LIGHTS.values(), ids=LIGHTS)
def test_uneven_light_on_grey_paper_is_taken_out(clothes, light, strength):
    drawing = read_image(sorted((clothes / "testA").glob("*.png"))[0])
    page = np.ones((600, 800))
    page[200:456, 350:606] = np.asarray(drawing.convert("L").resize((256, 256))) / 255
    y, x = np.mgrid[0:1:600j, 0:1:800j]
    photo = 255 * light(x, y) * (1 - strength * (1 - page)) + np.random.default_rng(0).normal(
        0, 2, page.shape
    )
    picture = Image.fromarray(photo.clip(0, 255).astype(np.uint8))
    framed, direct = frame_picture(picture), frame_picture(drawing)
    assert ink_box(framed) == pytest.approx(ink_box(direct), abs=0.05)
    assert np.corrcoef(framed.ravel(), direct.ravel())[0, 1] > 0.8
    assert np.median(framed) == 255


def test_chalk_on_a_board_in_uneven_light_becomes_ink_on_paper(clothes):
    drawing = read_image(sorted((clothes / "testA").glob("*.png"))[0])
    chalk = 1 - np.asarray(drawing.convert("L").resize((256, 256))) / 255
    board = np.pad(chalk, ((200, 144), (350, 194))) * 0.6 + 0.15
    photo = Image.fromarray((255 * board * LIGHTS["slope"](*np.mgrid[0:1:800j, 0:1:600j]).T).astype(np.uint8))
    assert np.corrcoef(frame_picture(photo).ravel(), frame_picture(drawing).ravel())[0, 1] > 0.8


def test_erasing_cuts_strokes_and_leaves_what_it_does_not_touch():
    strokes = [Stroke(BODY), Stroke(np.array([(10.0, 10.0)]))]
    assert erase_strokes(strokes, Stroke(np.array([(300.0, 10.0)]), 20)) == strokes
    pieces = erase_strokes(strokes, Stroke(np.array([(0.0, 160.0), (320.0, 160.0)]), 20))
    assert len(pieces) == 4  # top left, bottom, top right: the outline is cut on both sides, then the dot
    assert all(abs(piece.points[:, 1] - 160).min() > 11 for piece in pieces)
    assert erase_strokes(strokes, Stroke(np.array([(160.0, 160.0)]), 900)) == []


def test_a_picture_without_a_drawing_on_plain_paper_has_no_frame(clothes):
    photo = 255 - np.asarray(read_image(sorted((clothes / "testB").glob("*.png"))[0]))
    scene = np.random.default_rng(0).integers(0, 255, (60, 120, 3), dtype=np.uint8)
    blank = on_paper(Image.new("RGB", (64, 64), "white"), 230, 1)
    pictures = Image.fromarray(photo), Image.fromarray(scene), Image.new("L", (50, 40)), blank
    assert [frame_picture(picture) for picture in pictures] == [None] * 4
    assert frame_picture(Image.new("RGB", (50, 40), "white")) is None


def test_a_traced_garment_is_close_to_what_a_designer_draws_of_it():
    shirt = next(g for g in wardrobe(0, 60, 20).train if g.family == "shirt" and g.pockets == "patch2")
    parts = trace_garment(shirt)
    assert len(parts["pocket"]) >= 2
    strokes = [stroke for part in parts.values() for stroke in part]
    assert all(stroke.width == WIDTH for stroke in strokes)
    assert all(stroke.points.min() > 0 and stroke.points.max() < SIZE for stroke in strokes)
    traced = render_strokes(strokes).min(axis=2) < 128
    designed = np.asarray(render_sketch(shirt, DESIGNERS[0], seed=0, size=SIZE)).min(axis=2) < 200
    near = np.zeros_like(designed)
    for down in range(-6, 7):
        for right in range(-6, 7):
            near |= np.roll(designed, (down, right), axis=(0, 1))
    assert near.mean() < 0.5
    assert near[traced].mean() > 0.9


def test_a_trace_repeats_with_its_seed_and_leaves_out_what_is_not_there():
    plain = next(g for g in wardrobe(0, 60, 20).train if g.pockets == "none" and g.sleeve == "none")
    first, again, other = (trace_garment(plain, seed=seed) for seed in (1, 1, 2))
    assert not {"pocket", "flap", "sleeve"} & set(first)
    assert np.array_equal(first["body"][0].points, again["body"][0].points)
    assert not np.array_equal(first["body"][0].points, other["body"][0].points)


def test_a_click_without_a_move_is_a_dot_that_can_be_erased():
    dot = Stroke(np.array([(100.0, 100.0), (100.0, 100.0)]))
    assert erase_strokes([dot], Stroke(np.array([(100.0, 100.0)] * 2), 20)) == []
    assert erase_strokes([dot], Stroke(np.array([(200.0, 100.0)] * 2), 20)) == [dot]
