"""What `make demo` promises of its model: it finds photos, and what is drawn decides which."""

from __future__ import annotations

import numpy as np
import pytest
from tools.traced import trace_garment

from sbirlib import Config, Gallery, PairFolder, evaluate, load_run, train
from sbirlib.data.strokes import frame_strokes, render_strokes
from sbirlib.miniclothes.dataset import draw_miniclothes
from sbirlib.miniclothes.garments import Garment, wardrobe
from sbirlib.panels.draw import search_picture

pytestmark = pytest.mark.slow
DRAWN = {"body", "hem", "sleeve", "cuff", "back", "collar", "placket", "button"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return PairFolder(draw_miniclothes(tmp_path_factory.mktemp("demo") / "MiniClothes"))


@pytest.fixture(scope="module")
def model(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "run"
    for _ in train(pairs, Config.preset("mini_full"), out=out):
        pass
    return load_run(out)


def pocketed(garment: Garment) -> bool:
    return garment.pockets in ("patch2", "flap") and garment.pocket_place == "chest"


def test_most_sketches_find_their_photo_first(model, pairs):
    scores = evaluate(model, pairs)
    assert scores.accuracy[1].percent > 60
    assert scores.accuracy[5].percent > 95


def test_a_drawn_shirt_finds_long_sleeves_and_its_pockets_find_pockets(model, pairs):
    gallery = Gallery.from_files(
        model, [p.path for split in ("train", "test") for p in pairs.split(split).photos]
    )
    shown = {garment.photo: garment for split in wardrobe(0) for garment in split}
    shirts = [
        garment
        for garment in wardrobe(7, 600, 1).train
        if garment.family == "shirt"
        and pocketed(garment)
        and garment.sleeve == "long"
        and garment.belt == "none"
    ]
    found = []  # for each shirt that no photo shows, drawn without and with its pockets: the ten best photos
    for shirt in shirts:
        parts = trace_garment(shirt)
        for names in (DRAWN, DRAWN | {"pocket", "flap"}):
            strokes = [stroke for name, lines in parts.items() if name in names for stroke in lines]
            hits = search_picture(gallery, render_strokes(frame_strokes(strokes)))
            found.append([shown[hit.path.stem] for hit in hits])
    sleeves = [sum(garment.sleeve == "long" for garment in ten) for ten in found]
    pockets = [sum(garment.sleeve == "long" and pocketed(garment) for garment in ten) for ten in found]
    assert len(shirts) > 8
    assert np.mean(sleeves) > 8  # of ten picked blindly, 5
    assert np.mean(pockets[1::2]) > 2 * np.mean(pockets[::2])
    blindly = 10 * np.mean([garment.sleeve == "long" and pocketed(garment) for garment in shown.values()])
    assert np.mean(pockets[1::2]) > 2 * blindly
