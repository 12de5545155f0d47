"""MiniClothes: an embedded data set in the form of Clothes-V1, drawn entirely by code.

500 photos of garments and 1200 sketches of them by seven designers, named and split as in
Clothes-V1. It is fine-grained on purpose: many photos have a twin that differs in one or two
details only. No picture of any other data set is used.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from PIL import Image
from tqdm.auto import tqdm

from sbirlib.data import Recording, filling, record_of
from sbirlib.errors import InputError, first_line
from sbirlib.miniclothes.garments import Wardrobe, detail_differences, wardrobe
from sbirlib.miniclothes.photo import render_photo
from sbirlib.miniclothes.sketch import DESIGNERS, record_sketch, render_sketch

VERSION = 2  # of the drawing: raise it with every change that changes a pixel
MANIFEST = "miniclothes.json"
ATTRIBUTES = "family", "sleeve", "pockets", "closure", "belt"  # columns of attributes.csv
MOST_PER_PHOTO = 4  # sketches of one photo, unless more are asked for on average
_Job = tuple[partial[Image.Image], Path]  # what draws a picture, and its file
Counts = tuple[int, int]  # (train, test)


def _draw(render: partial[Image.Image], path: Path) -> None:
    render().save(path)


def _deal(rng: np.random.Generator, photos: int, sketches: int) -> list[list[int]]:
    """For each photo the numbers of the designers who draw it; all designers draw about equally often."""
    most = max(MOST_PER_PHOTO, math.ceil(sketches / photos))
    counts = np.ones(photos, dtype=int)
    for _ in range(sketches - photos):
        counts[rng.choice(np.flatnonzero(counts < most))] += 1
    drawn, hands = np.zeros(len(DESIGNERS)), []
    for count in counts:
        chosen = np.argsort(drawn + rng.uniform(0, 0.9, len(DESIGNERS)))[:count]
        drawn[chosen] += 1
        hands.append(sorted(int(i) + 1 for i in chosen))
    return hands


def _jobs(clothes: Wardrobe, sketches: Counts, seed: int, size: int, root: Path) -> Iterator[_Job]:
    for split, name in enumerate(clothes._fields):
        hands = _deal(np.random.default_rng([seed, split, 1, 1]), len(clothes[split]), sketches[split])
        for garment, designers in zip(clothes[split], hands, strict=True):
            photo, number = garment.photo, int(garment.photo)
            render = partial(render_photo, garment, seed=(seed, number, 0), size=size)
            yield render, root / f"{name}B" / f"{photo}.png"
            for d in designers:
                render = partial(render_sketch, garment, DESIGNERS[d - 1], seed=(seed, number, d), size=size)
                yield render, root / f"{name}A" / f"{photo}_{d:02d}.png"


def draw_miniclothes(
    root: str | os.PathLike, *, seed: int = 0, photos: Counts = (380, 120),
    sketches: Counts = (925, 275), size: int = 256,
) -> Path:  # fmt: skip
    """Draws the whole data set into `root` and returns that folder.

    Counts are (train, test); `size` is in pixels, at least 32. Writes trainA, testA (sketches `00066_03.png`,
    03 the designer), trainB, testB (photos `00066.png`), `miniclothes.json` and `attributes.csv`, what each
    photo shows. A folder that holds this very drawing is returned at once. Raises FileExistsError when `root`
    holds anything else, InputError for a seed below 0 and counts that do not match.
    """
    if seed < 0:
        raise InputError(f"seed={seed}: give at least 0")
    most = len(DESIGNERS)
    for split, photo, sketch in zip(("train", "test"), photos, sketches, strict=True):
        if not 1 <= photo <= sketch <= most * photo:
            counts = f"{photo} {split} photos with {sketch} sketches"
            raise InputError(f"{counts}: give at least 1 photo, and 1 to {most} sketches of each")
    root = Path(root)
    header = dict(name="MiniClothes", version=VERSION, seed=seed)
    header |= dict(photos=list(photos), sketches=list(sketches), size=size)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        found = record_of(root, MANIFEST)
        counts = [len(list((root / name).glob("*.png"))) for name in ("trainB", "testB", "trainA", "testA")]
        if found | header == found and counts == [*photos, *sketches]:  # the complete drawing
            return root
        ways = "name another folder, or move or delete this one; nothing in it was touched"
        raise FileExistsError(f"{root} exists and is not this drawing of MiniClothes ({header}): {ways}")
    clothes = wardrobe(seed, *photos)
    with filling(root) as new:
        for folder in ("trainA", "trainB", "testA", "testB"):
            (new / folder).mkdir()
        jobs = list(_jobs(clothes, sketches, seed, size, new))
        workers = -1 if len(jobs) > 100 else 1  # which changes no pixel
        # joblib's processes are no forks, which torch's threads forbid, and do not run the user's script.
        drawn = Parallel(workers, batch_size=4, return_as="generator")(delayed(_draw)(*job) for job in jobs)
        list(tqdm(drawn, total=len(jobs), desc="drawing MiniClothes", unit="picture", disable=None))
        known = {garment.photo: garment for garment in (*clothes.train, *clothes.test)}
        items, table = {}, [("photo", *ATTRIBUTES)]
        for photo, g in known.items():
            differs = detail_differences(g, known.get(g.twin_of, g))
            items[photo] = dict(family=g.family, twin=g.twin_of, differs=differs)
            table.append((photo, *(getattr(g, name) for name in ATTRIBUTES)))
        (new / "attributes.csv").write_text("".join(f"{','.join(row)}\n" for row in table), encoding="utf-8")
        (new / MANIFEST).write_text(json.dumps(header | dict(items=items), indent=1) + "\n", encoding="utf-8")
    return root


class Twin(NamedTuple):
    """The near twin of a photo, the details that differ, and both photo ids, sorted."""

    twin: str
    differs: list[str]
    both: list[str]


def near_twins(root: str | Path) -> dict[str, Twin]:
    """The near twins of a MiniClothes folder, by photo id; photos without one are absent."""
    items = json.loads((Path(root) / MANIFEST).read_text(encoding="utf-8"))["items"]
    return {p: Twin(i["twin"], i["differs"], sorted([p, i["twin"]])) for p, i in items.items() if i["twin"]}


def sketch_recorders(root: Path) -> dict[Path, Callable[[], Recording]]:
    """What tells of each sketch of a MiniClothes folder how it was drawn, by drawing it again.

    Raises InputError if another version drew the folder.
    """
    try:
        found = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        if found["version"] != VERSION:
            raise ValueError(f"version {found['version']} of MiniClothes drew them, this is {VERSION}")
        clothes = wardrobe(found["seed"], *found["photos"])
        jobs = list(_jobs(clothes, found["sketches"], found["seed"], found["size"], root))
    except (OSError, ValueError, TypeError, LookupError) as error:
        reason = f"its sketches cannot be drawn again ({first_line(error)})"
        raise InputError(f"{root / MANIFEST}: {reason}; draw MiniClothes into another folder") from None
    sketches = {path: render for render, path in jobs if render.func is render_sketch}
    return {path: partial(record_sketch, *r.args, **r.keywords) for path, r in sketches.items()}
