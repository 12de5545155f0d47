"""What drawings made by eye find in MiniClothes: `python tests/tools/eye_drawings.py RUN DATA`.

Twelve garments, drawn as with a mouse and not by MiniClothes, with what each of them shows: family, sleeve,
pockets, closure, belt (tests/fixtures/eye-drawings.json). Each is a query among all photos of DATA, train and
test, framed as the drawing panel frames it. Each wanted property of each of its ten best photos is a point.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sbirlib import Gallery, load_run
from sbirlib.data import Stroke
from sbirlib.miniclothes.dataset import ATTRIBUTES, MANIFEST
from sbirlib.miniclothes.garments import Garment, wardrobe
from sbirlib.panels.draw import Sheet, search_picture

DRAWINGS = Path(__file__).parents[1] / "fixtures" / "eye-drawings.json"
SHOWN = 10


class Drawing(NamedTuple):
    """What a drawing is called, the properties it shows, and the picture (s, s, 3) that is searched with."""

    name: str
    wanted: dict[str, str]
    query: np.ndarray


def read_drawings(path: str | Path = DRAWINGS) -> list[Drawing]:
    """The drawings of a file, framed."""
    return [
        Drawing(
            one["name"],
            one["wanted"],
            Sheet(None, tuple(Stroke(np.array(s)) for s in one["strokes"])).query(),
        )
        for one in json.loads(Path(path).read_text(encoding="utf-8"))
    ]


def garments(data: str | Path) -> dict[Path, Garment]:
    """All garments of a MiniClothes folder, by photo."""
    header = json.loads((Path(data) / MANIFEST).read_text(encoding="utf-8"))
    clothes = wardrobe(header["seed"], *header["photos"])
    return {Path(data) / f"{s}B/{g.photo}.png": g for s in clothes._fields for g in getattr(clothes, s)}


def points(wanted: dict[str, str], found: list[Garment]) -> dict[str, int]:
    """By property, how many of these garments have the wanted one."""
    return {name: sum(getattr(one, name) == value for one in found) for name, value in wanted.items()}


def found_by(run: str | Path, data: str | Path, drawings: list[Drawing]) -> list[list[Path]]:
    """For each drawing the ten best of all photos."""
    photos = garments(data)
    gallery = Gallery.from_files(load_run(run), list(photos), root=data)
    return [[hit.path for hit in search_picture(gallery, one.query, SHOWN)] for one in drawings]


def table(found: list[list[Path]], data: str | Path, drawings: list[Drawing]) -> tuple[str, int, int, float]:
    """A Markdown table; the points, out of how many, and the mean of ten photos picked at random."""
    photos = garments(data)
    rows, sums, blind = [], dict.fromkeys(ATTRIBUTES, (0, 0)), 0.0
    for one, best in zip(drawings, found, strict=True):
        got = points(one.wanted, [photos[path] for path in best])
        blind += sum(points(one.wanted, list(photos.values())).values()) * SHOWN / len(photos)
        cells = [f"{one.wanted[p]} {got[p]}" if p in got else "" for p in ATTRIBUTES]
        rows.append([one.name, *cells, f"{sum(got.values())} of {SHOWN * len(got)}"])
        for name, value in got.items():
            sums[name] = sums[name][0] + value, sums[name][1] + SHOWN
    total, most = (sum(pair[i] for pair in sums.values()) for i in (0, 1))
    rows.append(["sum", *(f"{a} of {b}" for a, b in sums.values()), f"{total} of {most}"])
    lines = [["drawing", *ATTRIBUTES, "points"], ["---"] * (len(ATTRIBUTES) + 2), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines), total, most, blind


def picture(found: list[list[Path]], drawings: list[Drawing], side: int = 110) -> Image.Image:
    """Each drawing, as it is searched with, beside what it finds."""
    sheet = Image.new("RGB", (side * (SHOWN + 1), side * len(drawings)), "white")
    for row, (one, best) in enumerate(zip(drawings, found, strict=True)):
        pictures: list[Any] = [Image.fromarray(one.query), *map(Image.open, best)]
        for column, shown in enumerate(pictures):
            sheet.paste(shown.convert("RGB").resize((side, side)), (side * column, side * row))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("data", type=Path)
    parser.add_argument("--drawings", default=DRAWINGS, help="another file of drawings")
    parser.add_argument("--picture", help="PNG file for the drawings and what they find")
    options = parser.parse_args()
    drawings = read_drawings(options.drawings)
    found = found_by(options.run, options.data, drawings)
    text, total, most, blind = table(found, options.data, drawings)
    print(text)
    print(f"\n{total} of {most} ({100 * total / most:.1f} %); picked blindly {blind:.1f}")
    if options.picture:
        picture(found, drawings).save(options.picture)


if __name__ == "__main__":
    main()
