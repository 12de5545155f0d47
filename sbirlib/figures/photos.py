"""Photos in rows: grids, strips, cards, failures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from sbirlib.errors import InputError
from sbirlib.figures.style import GUIDE_COLOUR, TRUE_FRAME, _page, _picture, message


def image_grid(
    images: Sequence[ArrayLike], titles: Sequence[str] = (), *, columns: int = 6, side: float = 1.6
) -> Figure:
    """Pictures, arrays (h, w, 3) or Pillow's, in rows of `columns`, each with a title; `side` in inches."""
    rows, gap, head = max(1, math.ceil(len(images) / columns)), 0.12, 0.25
    head = max([head, *(0.1 + 0.15 * (1 + title.count("\n")) for title in titles)])
    figure, axes = _page(columns * (side + gap) + gap, rows * (side + head) + gap)
    titles = list(titles) or [""] * len(images)
    for k, (image, title) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(k, columns)
        _picture(axes, image, gap + column * (side + gap), head + row * (side + head), side, title)
    return figure


def retrieval_strip(
    sketches: Sequence[np.ndarray],
    results: Sequence[Sequence[np.ndarray]],
    true_place: Sequence[int | None] = (),
    *,
    captions: Sequence[str] = (),
    similarities: Sequence[Sequence[float]] = (),
    side: float = 1.15,
) -> Figure:
    """A row for each query: the sketch, then its results from best to worst, the true photo framed.

    `true_place[i]` is the 0-based place of query i's photo among `results[i]`, None if it is not
    there or not known; `similarities[i]` are cosines. Source: the paper's figure 3.1 in kind.
    """
    gap, head, columns = 0.1, 0.27, 1 + max(len(row) for row in results)
    figure, axes = _page(columns * (side + gap) + gap, len(sketches) * (side + head) + gap)
    for i, (sketch, row) in enumerate(zip(sketches, results, strict=True)):
        place, y = (true_place[i] if len(true_place) else None), head + i * (side + head)
        _picture(axes, sketch, gap, y, side, captions[i] if len(captions) else "sketch", "0.2", 1.5)
        for k, image in enumerate(row):
            title = f"{k + 1}: {similarities[i][k]:.2f}" if len(similarities) else str(k + 1)
            found = place == k
            _picture(
                axes,
                image,
                gap + (k + 1) * (side + gap),
                y,
                side,
                f"{title} true" if found else title,
                *(TRUE_FRAME if found else ()),
            )
    return figure


def retrieval_card(
    sketch: np.ndarray,
    results: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    true_place: int | None = None,
    heading: str = "",
    columns: int = 5,
) -> Figure:
    """One query: the sketch, large, beside its results in rows of `columns`, the true photo framed.

    `true_place` is the 0-based place of the true photo among `results`, None if it is not there.
    """
    gap, head, side, top = 0.12, 0.27, 1.35, 0.35
    rows, large = math.ceil(len(results) / columns), 2.2
    figure, axes = _page(large + columns * (side + gap) + 3 * gap, top + rows * (side + head) + gap)
    axes.text(gap, 0.1, heading, ha="left", va="top", fontsize=11)
    _picture(axes, sketch, gap, top + head, large, "query sketch", "0.2", 1.5)
    for k, (image, title) in enumerate(zip(results, titles, strict=True)):
        row, column = divmod(k, columns)
        _picture(
            axes,
            image,
            large + 2 * gap + column * (side + gap),
            top + head + row * (side + head),
            side,
            title,
            *(TRUE_FRAME if k == true_place else ()),
        )
    return figure


def failure_gallery(
    sketches: Sequence[ArrayLike],
    true_photos: Sequence[ArrayLike],
    confused: Sequence[Sequence[ArrayLike]],
    ranks: Sequence[int],
    *,
    captions: Sequence[str] = (),
    side: float = 1.2,
) -> Figure:
    """A row for each query that failed: the sketch, its true photo framed, then what was found before it.

    `confused[i]` are photos found before query i's, best first, at most `ranks[i]` - 1 of them; pictures
    (h, w, 3), `side` in inches. Raises InputError where more stand before a photo than its rank allows.
    """
    if not len(sketches):
        return message("no failures: every sketch found its photo first")
    for row, (found, rank) in enumerate(zip(confused, ranks, strict=True)):
        if len(found) > rank - 1:
            raise InputError(
                f"row {row}: {len(found)} photos cannot stand before one of rank {rank}; leave out the "
                "true photo and what came after it"
            )
    gap, head, top, apart, more = 0.1, 0.27, 0.32, 0.35, 0.75
    most = max(len(found) for found in confused)
    figure, axes = _page(
        (2 + most) * (side + gap) + gap + apart + more, top + len(sketches) * (side + head) + gap
    )
    start = 2 * (side + gap) + gap + apart
    axes.text(start, 0.08, "found before it, best first", ha="left", va="top", fontsize=11)
    axes.plot(
        (start - apart / 2 - gap / 2,) * 2, (0.1, axes.get_ylim()[0] - gap), color=GUIDE_COLOUR, linewidth=0.8
    )
    for row, (sketch, photo, found, rank) in enumerate(
        zip(sketches, true_photos, confused, ranks, strict=True)
    ):
        y = top + head + row * (side + head)
        _picture(axes, sketch, gap, y, side, captions[row] if len(captions) else "sketch", "0.2", 1.5)
        _picture(axes, photo, 2 * gap + side, y, side, f"true photo: rank {rank}", *TRUE_FRAME)
        for place, picture in enumerate(found):
            _picture(axes, picture, start + place * (side + gap), y, side, str(place + 1))
        left_out = rank - 1 - len(found)
        if left_out:
            axes.text(
                start + len(found) * (side + gap),
                y + side / 2,
                f"and {left_out}\nmore",
                va="center",
                fontsize=10,
            )
    return figure
