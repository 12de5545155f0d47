"""What notebook 1 says of its figures, asked of the pictures that it shows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tools.cells import Page

from sbirlib import DESIGNERS, read_image, render_sketch, wardrobe


@pytest.fixture(scope="module")
def page(notebooks):
    return Page("01_explore_data", notebooks, skip=lambda source: "report()" in source)


@pytest.fixture(autouse=True)
def where(notebooks, monkeypatch):
    monkeypatch.chdir(notebooks)  # the page's paths begin there


def grey(image):
    return np.asarray(image.convert("L"), dtype=float)


def box(image, darkest):
    """Left, top, right and bottom of what is darker than the ground."""
    rows, columns = np.nonzero(np.asarray(image).min(axis=2) < darkest)
    return columns.min(), rows.min(), columns.max(), rows.max()


def first_pair(page):
    photo = page["train"].photos[0]
    drawn = [sketch for sketch in page["train"].sketches if sketch.photo_id == photo.id]
    return read_image(photo.path), {sketch.designer: read_image(sketch.path) for sketch in drawn}


def test_nothing_is_left_out_and_no_photo_is_in_both_splits(page):
    assert not any(split.left_out for split in page["pairs"].splits.values())
    assert page["shared"] == 0


def test_most_photos_are_drawn_more_than_once_and_lots_find_hardly_any(page):
    counts = np.array(list(page["drawings"].values()))
    assert np.mean(counts > 1) > 0.6
    assert 100 / len(page["test"].photos) < 2


def test_the_band_of_the_first_photo_survives_in_one_drawing_of_three(page):
    photo, drawings = first_pair(page)
    pixels = np.asarray(photo, dtype=float)
    band = pixels[..., 0] - pixels[..., 1] > 60
    shades = {designer: np.median(grey(sketch)[band]) for designer, sketch in drawings.items()}
    assert band.sum() > 1000
    assert sorted(shades) == ["2", "4", "7"]
    assert shades["2"] < 210
    assert min(shades["4"], shades["7"]) > 245


def test_no_drawing_lies_exactly_on_the_photo_or_on_another(page):
    photo, drawings = first_pair(page)
    boxes = [box(photo, 190), *(box(sketch, 190) for sketch in drawings.values())]
    for k, one in enumerate(boxes):
        assert all(np.abs(np.subtract(one, other)).max() >= 3 for other in boxes[k + 1 :])


def test_the_juniors_are_5_6_and_7(page):
    assert [hand.number for hand in DESIGNERS if hand.level == "junior"] == [5, 6, 7]


def test_designer_3_alone_draws_no_buttons(page):
    garment = page["garment"]
    assert garment.buttons > 3
    changed = {}
    for hand in DESIGNERS:
        drawn = (render_sketch(one, hand, seed=1, size=96) for one in (garment, replace(garment, buttons=0)))
        changed[hand.number] = np.abs(np.subtract(*map(grey, drawn))).max() > 0
    assert [number for number, differs in changed.items() if not differs] == [3]


def test_three_draw_folds_and_two_leave_the_inside_of_the_neck_white(page):
    assert [hand.number for hand in DESIGNERS if "fold" not in hand.leaves_out] == [2, 3, 4]
    assert [hand.number for hand in DESIGNERS if "inside" in hand.leaves_out] == [6, 7]


def test_twins_are_not_equally_large(page):
    for sketch in page["puzzles"]:
        both = page["twins"][sketch.photo_id].both
        boxes = [box(read_image(page["pairs"].root / f"testB/{photo}.png"), 190) for photo in both]
        sides = [(right - left, bottom - top) for left, top, right, bottom in boxes]
        assert np.abs(np.subtract(*sides)).max() >= 4


def test_twins_share_colour_pattern_and_cut_and_every_designer_draws_what_they_differ_in(page):
    garments = {garment.photo: garment for garment in wardrobe().test}
    for sketch in page["drawn"]:
        one, other = (garments[photo] for photo in page["twins"][sketch.photo_id].both)
        for name in ("colour", "second", "trim", "pattern", "length", "width", "waist", "flare"):
            assert getattr(one, name) == getattr(other, name)
        hand = DESIGNERS[int(sketch.designer) - 1]
        pair = (grey(render_sketch(garment, hand, seed=1, size=96)) for garment in (one, other))
        assert (np.abs(np.subtract(*pair)) > 40).sum() > 10


def views(page, settings):
    """The views that the page shows, of the sketch and of the photo: A0, three A1, three A2."""
    data, chance = page["data"], torch.Generator().manual_seed(0)
    both = data.sketches[27], data.photos[data.photo_index[27]]
    return [torch.cat(list(page["views_of"](pixels, page[settings], chance))) for pixels in both]


def test_mini_keeps_the_shirt_on_its_side_and_the_paper_flips_most_views(page):
    assert page["mini"].flip == 0
    chance = torch.Generator().manual_seed(0)
    flips = torch.cat([torch.rand(3, 9, generator=chance)[:, 0] < page["paper"].flip for _ in range(4)])
    assert flips.sum() > 8
    for settings, sign in (("mini", 1), ("paper", -1)):
        ink = 1 - views(page, settings)[0][:, 0]
        pocket = ink[:, 20:60, 48:].sum(dim=(1, 2)) - ink[:, 20:60, :48].sum(dim=(1, 2))
        assert pocket[0] > 0
        assert sign * pocket[1:].median() > 0


def test_a2_turns_white_paper_grey_and_a1_does_not(page):
    for settings in ("mini", "paper"):
        paper = views(page, settings)[0][:, 0].amax(dim=(1, 2))
        assert paper[:4].min() > 0.97
        assert paper[4:].min() < 0.85


def test_minis_a2_changes_the_hue_and_the_papers_does_not(page):
    for settings, stays in (("mini", False), ("paper", True)):
        cloth = views(page, settings)[1][:, :, 40:60, 40:56].mean(dim=(2, 3))
        reddest = cloth.argmax(dim=1) == 0
        assert reddest[:4].all()
        assert reddest[4:].all() if stays else not reddest[4:].any()


def test_the_papers_a1_cuts_the_shirt_off(page):
    for settings, inside in (("mini", True), ("paper", False)):
        ink = 1 - views(page, settings)[0][1:4, 0]
        rim = torch.cat([ink[:, [0, -1]].flatten(1), ink[:, :, [0, -1]].flatten(1)], dim=1).amax(dim=1)
        assert (rim < 0.2).all() if inside else (rim > 0.5).all()


def test_stripes_are_dark_in_edge_maps_and_pleats_are_faint(page):
    sketches, edges = page["sketches"][page["rows"]][:, 0], page["edges"][page["own"]][:, 0]
    dark = ((sketches < 0.5).float().mean(dim=(1, 2)), (edges < 0.5).float().mean(dim=(1, 2)))
    for striped in (2, 4):
        assert dark[1][striped] > 1.5 * dark[0][striped]
    pleats = (slice(55, 80), slice(40, 56))
    drawn = sketches[1][pleats].amin(dim=1)  # the darkest pixel of each row
    assert edges[1][pleats].amin() > drawn.max() + 0.08


def test_edge_maps_and_blur_help_pixels_and_turning_the_sketches_ruins_them(page):
    plain, lined, blurred, turned = (float(line.split()[-2]) for line in page.printed["01-26b"].splitlines())
    assert plain + 5 < lined < blurred - 5
    assert blurred > 60
    assert turned < blurred / 3
    assert page["found_first"](page["sketches"], page["edges"], blur=25) < blurred - 10
