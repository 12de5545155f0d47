"""What notebook 0 says of its search holds on MiniClothes with the shipped model."""

import pandas as pd
import pytest
from tools.cells import Page

from sbirlib import wardrobe

STRIPES = ["stripes across", "stripes down", "diagonal"]


@pytest.fixture(scope="module")
def page(notebooks):
    return Page("00_start", notebooks)


@pytest.fixture(scope="module")
def ten(page):
    """The garments of the ten photos found."""
    table = pd.DataFrame(wardrobe().test).set_index("photo")
    return table.loc[[hit.path.stem for hit in page["hits"]]]


def test_it_prints_the_versions_of_what_is_installed(page):
    lines = page.printed["00-04"].splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["Python", "sbirlib", "torch"]
    assert all(any(letter.isdigit() for letter in line) for line in lines[1:8])


def test_the_garment_that_was_drawn_comes_first_well_before_the_second(page):
    assert page["rank"] == 1
    assert page["hits"][0].similarity - page["hits"][1].similarity > 0.04


def test_the_photos_found_are_like_it_in_all_but_colour(ten):
    assert ten.family.iloc[0] == "jacket"
    assert (ten.sleeve == "long").sum() >= 8
    assert (ten.neckline == "hood").sum() >= 6
    assert ten.pattern.isin(STRIPES).sum() >= 6
    assert ten.pattern[ten.pattern.isin(STRIPES)].nunique() > 1
    assert ten.colour.nunique() >= 5


def test_the_panel_shows_the_same_garment_first(page):
    assert page["panel"].hits[0].path == page["hits"][0].path
