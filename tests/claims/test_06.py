"""What notebook 6 says of its figures holds on MiniClothes with the shipped model."""

import numpy as np
import pytest
from tools.cells import Page, working_in

from sbirlib import DrawPanel

NAME = "06_draw_and_search"
SHARES = ["one fifth", "two fifths", "three fifths", "four fifths", "all strokes"]
# The lower half of a dress, its sides, and its neckline: left halves, as in the notebook.
SKIRT = [(130, 170), (128, 176), (112, 290), (160, 294)], [(130, 170), (160, 170)]
SIDES, NECK = [(130, 170), (118, 110), (118, 60), (136, 40)], [(136, 40), (142, 62), (160, 68)]
HANGING = [(97, 72), (84, 90), (82, 215), (100, 216), (104, 130)], [(82, 203), (101, 204)]
BUCKLE = [(104, 160), (160, 162)], [(104, 172), (160, 174)], [(152, 158), (152, 178), (160, 178)]
HOOD = [(135, 60), (118, 40), (126, 14), (160, 6)], [(135, 60), (134, 34), (160, 24)]


@pytest.fixture(scope="module")
def page(notebooks):
    return Page(NAME, notebooks)


@pytest.fixture(autouse=True)
def where_the_notebook_lies(notebooks):
    with working_in(notebooks):
        yield


@pytest.fixture(scope="module")
def drawn(page):
    """The similarities of all photos to a drawing by hand, given as left halves of its strokes."""

    def similarities(*lines):
        panel = DrawPanel(page["gallery"])
        for line in lines:
            panel.stroke(line)
            panel.stroke([(320 - x, y) for x, y in line])
        return page["similarities"](panel.query)

    return similarities


def ten(similarities):
    return similarities.sort_values(ascending=False).index[:10]


def gap(change, having, without):
    """By how much more photos with a detail gain than those without, in standard errors."""
    here, there = change[having], change[without]
    return (here.mean() - there.mean()) / np.hypot(here.sem(), there.sem())


def test_the_sample_finds_its_photo_first_and_garments_like_it(page):
    ids = [hit.path.stem for hit in page["panel"].hits]
    assert ids[0] == page["shirt"]
    assert page["details"].loc[ids, "long sleeves"].sum() >= 8
    assert page["details"].loc[ids, "front opens"].sum() >= 8
    assert page["table"].colour[ids].nunique() >= 5


def test_a_fifth_of_the_strokes_leaves_the_photo_far_back_and_the_outline_brings_it_forward_most(page):
    ranks = page["ranks"]
    assert ranks[0] > 150
    assert ranks[1] < 60
    assert np.argmin(np.diff(ranks)) == 0
    assert ranks[2] <= 20
    assert ranks[3] <= 3
    assert ranks[4] == 1


def test_the_fourth_fifth_changes_more_photos_than_the_third(page):
    new = page["by_share"].new
    assert new["four fifths"] > new["three fifths"]


def test_without_a_pocket_drawn_pockets_are_as_frequent_as_chance_gives_and_sleeves_are_not(page):
    first, chance = page["by_share"].loc["one fifth"], 10 * page["details"].mean()
    assert abs(first["two pockets"] - chance["two pockets"]) < 2
    assert first["long sleeves"] - chance["long sleeves"] > 3
    assert page["details"]["long sleeves"].mean() == pytest.approx(0.5, abs=0.03)


def test_photos_stay_until_the_front_is_drawn_and_stay_again_after_it(page):
    new, opens = page["by_share"].new, page["by_share"]["front opens"]
    assert new["three fifths"] <= 5
    assert new["four fifths"] >= 6
    assert new["all strokes"] <= 4
    assert opens["two fifths"] <= 2
    assert opens["three fifths"] <= 5
    assert opens["four fifths"] >= 8
    assert opens["all strokes"] >= 8


def test_a_body_alone_finds_skirts(page):
    ids = [hit.path.stem for hit in page["searches"][0]]
    assert (page["table"].family[ids] == "skirt").sum() >= 5


def test_sleeves_and_front_replace_the_photos_and_the_collar_does_not(page):
    new = page["by_group"].new
    assert new["+ sleeves"] >= 7
    assert new["+ collar"] <= 3
    assert new["+ front"] >= 8
    assert 3 <= new["+ pockets"] <= 7


def test_shirts_come_with_the_front_and_not_with_the_collar(page):
    found, chance = page["by_group"], 10 * page["details"].mean()
    assert found.shirt["+ collar"] <= 2
    assert found.shirt["+ front"] >= 4 > 2 * chance.shirt
    assert found["front opens"]["+ collar"] <= 3
    assert found["front opens"]["+ front"] >= 8


def test_pockets_bring_in_pockets_of_another_kind_of_garment_too_and_the_plain_shirt_falls_back(page):
    before, after = ([hit.path.stem for hit in hits] for hits in page["searches"][-2:])
    assert page["by_group"]["two pockets"]["+ pockets"] > page["by_group"]["two pockets"]["+ front"]
    assert page["table"].pockets[before[0]] == "none"
    assert page["table"].family[before[0]] == "shirt"
    assert before[0] not in after[:5]
    assert "skirt" in set(page["table"].family[after])


def test_place_size_and_pen_matter_little_once_a_drawing_is_framed(page):
    same = page["same_ten"]
    assert same["small, framed"] >= 9
    assert min(same["thin pen"], same["thick pen"]) >= 6
    assert same["small, not framed"] <= 2


def test_sleeves_move_photos_more_than_pockets_and_both_move_them_the_right_way(page):
    changed, error = page["changed"], page["error"]
    have, lack, pockets, none = changed.index
    assert changed["std"][[have, lack]].min() > 1.2 * changed["std"][[pockets, none]].max()
    for one, other in ((have, lack), (pockets, none)):
        assert changed["mean"][one] - error[one] > changed["mean"][other] + error[other]
    assert (page["changes"][have] < -0.05).mean() > 0.2
    wide, long = np.ptp(np.concatenate([s.points for s in page["by_hand"].strokes]), axis=0)
    assert wide > long


def test_a_snapshot_on_grey_paper_finds_what_the_clean_sketch_finds(page):
    assert page["rank"] == 1
    assert len(page["same"]) >= 8
    assert np.median(page["other"].query[:20]) == 255


def test_the_sides_of_a_bodice_make_a_dress_of_a_skirt(page, drawn):
    family = page["table"].family
    dresses = [
        (family[ten(drawn(*lines))] == "dress").sum()
        for lines in (SKIRT, [*SKIRT, SIDES], [*SKIRT, SIDES, NECK])
    ]
    assert dresses[0] <= 2
    assert dresses[1] >= 5
    assert dresses[2] <= dresses[1] + 1


def test_sleeves_that_hang_are_hardly_seen_as_sleeves(page, drawn):
    found = ten(drawn(*page["HALF"]["body"], *HANGING))
    assert (page["table"].sleeve[found] == "long").sum() <= 4
    assert (page["table"].family[found] == "skirt").sum() >= 4


def test_belt_hood_and_buttons_are_seen_buttons_most(page, drawn):
    table, half = page["table"], page["HALF"]
    coat = [*half["body"], *half["sleeves"], *half["collar"]]
    before = drawn(*coat)
    gaps = {
        "belt": gap(drawn(*coat, *BUCKLE) - before, table.belt == "buckle", table.belt == "none"),
        "buttons": gap(
            drawn(*coat, *half["front"]) - before, table.closure == "buttons", table.closure == "none"
        ),
        "hood": gap(
            drawn(*coat[:3], *HOOD) - drawn(*coat[:3]), table.neckline == "hood", table.neckline != "hood"
        ),
    }
    assert min(gaps.values()) > 4
    assert max(gaps, key=gaps.get) == "buttons"


def test_pockets_drawn_on_a_sketch_without_any_move_the_photos_the_right_way(page):
    table = page["table"]
    test = page["pairs"].split("test")
    plain = next(
        s
        for s in test.sketches
        if (table.loc[s.photo_id, ["family", "sleeve", "pockets"]] == ["shirt", "long", "none"]).all()
    )
    panel = DrawPanel(page["gallery"], sample=plain.path)
    before = page["similarities"](panel.query)
    [pocket] = page["HALF"]["pockets"]
    for line in (pocket, [(320 - x, y) for x, y in pocket]):
        panel.stroke(line)
    change = page["similarities"](panel.query) - before
    assert gap(change, page["on_chest"], table.pockets == "none") > 3
