"""What notebook 8 says of the shipped table, of pictures that no training made, and of published numbers."""

import json
import warnings

import matplotlib.pyplot as plt
import pytest
import torch
from tools.cells import Page

from sbirlib import accuracy_of, compare, draw_miniclothes

MIDDLE = ("sketch_aa", "arnet", "part_sbir", "b_siamese", "dssa", "style_me_up", "nt_sbir", "on_the_fly")
MIDDLE = (*MIDDLE, "triplet_sn", "eups")
TRAINED = ("in ablate(", "read_rows(out)", "models", "stretched", "gained", "partials")


@pytest.fixture(scope="module")
def page(notebooks):
    # Drawn by processes that may run already, elsewhere, so by its whole path.
    folder = notebooks.parent / "data" / "MiniClothes-small"
    draw_miniclothes(folder, photos=(60, 40), sketches=(120, 120))
    # What it sets for the whole process, other tests do without.
    with torch.no_grad(), warnings.catch_warnings(), plt.rc_context():
        return Page("08_methods_compared", notebooks, lambda source: any(part in source for part in TRAINED))


@pytest.fixture(scope="module")
def means(page):
    return page["means"]


@pytest.fixture(scope="module")
def shipped(page, notebooks):
    return notebooks / page["shipped"]


@pytest.fixture(scope="module")
def difference(shipped):
    return lambda first, second: compare(shipped, first, second)


def test_in_nearly_all_rows_of_the_middle_the_runs_differ_by_more_than_the_step_to_the_next(page, means):
    assert sorted(MIDDLE) == sorted(means.index[1:11])
    runs = page["runs"].groupby("variant")["acc@1"]
    spread, steps = runs.max() - runs.min(), -means.diff().shift(-1)
    assert sum(spread[name] > steps[name] for name in MIDDLE) >= len(MIDDLE) - 2


def test_only_the_seed_changed_between_the_runs_of_a_row(page, shipped):
    """And every row has three, but for the frozen features."""
    counts = page["runs"]["variant"].value_counts()
    assert all(count == (1 if name.startswith("frozen") else 3) for name, count in counts.items())
    files = [shipped / "runs" / f"b_siamese@{seed}" / "result.json" for seed in range(3)]
    settings = [json.loads(file.read_text())["config"] for file in files]
    assert [found["run"].pop("seed") for found in settings] == [0, 1, 2]
    assert settings[0] == settings[1] == settings[2]


def test_adpt_sbir_leads_and_sketch_aa_is_next(means):
    assert list(means.index[:2]) == ["adpt_sbir", "sketch_aa"]


def test_semi_sup_is_the_last_of_the_methods_and_the_two_other_rows_come_after_it(means):
    assert list(means.index[-3:]) == ["semi_sup", "plain triplet", "frozen, random weights"]
    assert len(means) == 15


def test_adpt_sbir_is_ahead_of_b_siamese_by_more_than_chance(difference):
    assert difference("b_siamese", "adpt_sbir").low > 2


def test_the_step_from_the_plain_triplet_to_b_siamese_is_larger_still(difference):
    step = difference("plain triplet", "b_siamese")
    assert step.low > 5
    assert step.points > difference("b_siamese", "adpt_sbir").points + 5


def test_the_interval_of_the_third_difference_holds_0(difference):
    found = difference("part_sbir", "arnet")
    assert found.low < -2
    assert found.high > 2


def test_the_sizes_of_the_small_data_set_are_those_in_the_text(page):
    folder = page["pairs"]
    assert [len(folder.split(name).photos) for name in ("train", "test")] == [60, 40]
    assert [len(folder.split(name).sketches) for name in ("train", "test")] == [120, 120]


def test_dssa_part_sbir_and_cmhm_have_a_distance_of_their_own(page):
    others = {name for name, method in page["METHODS"].items() if not method.vectors}
    assert others == {"dssa", "part_sbir", "cmhm"}


def test_the_edge_map_has_no_colour(page):
    edges, photo = page["edge_map"](page["photo"]), page["photo"]
    assert float((edges.amax(dim=1) - edges.amin(dim=1)).max()) < 0.01
    assert float((photo.amax(dim=1) - photo.amin(dim=1)).max()) > 0.2


def test_the_edge_map_keeps_the_pattern_that_the_designer_did_not_draw(page):
    edges, sketch = page["edge_map"](page["photo"]), page["sketch"]
    assert float((1 - edges).mean()) > 1.5 * float((1 - sketch).mean())
    drawn = page["test"].split.sketches[page["chosen"]]
    assert drawn.designer in ("4", "7")


def test_five_strokes_of_another_garment_are_drawn_into_the_sketch(page):
    foreign, drawing = page["foreign"], page["drawing"]
    assert foreign.sum() == 5
    assert len(drawing.strokes) == len(foreign) == len(page["drawings"][0].strokes) + 5
    one, other = (page["split"].sketches[index].photo_id for index in (page["chosen"], -8))
    assert one != other


def test_guessing_finds_a_quarter_of_the_photos_among_the_first_ten(page):
    assert 10 / len(page["photos"]) == 0.25


def test_two_rows_are_no_whole_numbers_of_hits(page):
    rows = page["rows"]
    assert list(rows["method"][~rows["whole numbers"]]) == ["EUPS-SBIR", "ARNet basic"]
    rest = (page["hits"] - page["hits"].round()).abs()[rows["whole numbers"]]
    assert rest.to_numpy().max() < 0.02


def test_an_interval_at_275_queries_is_several_points_to_either_side():
    for share in (0.65, 0.8, 0.9):
        found = accuracy_of(round(share * 275), 275)
        assert 3 < (found.high - found.low) / 2 < 7
