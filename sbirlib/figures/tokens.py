"""What a model does with patch tokens: where it looks, how alike they are, which it can do without.

What a slider redraws (`token_overlay`, `discard_card`) is drawn on one page, in a fraction of a second.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from PIL import Image

from sbirlib.errors import InputError
from sbirlib.figures.photos import new_page, place_pictures, retrieval_card
from sbirlib.figures.style import GUIDE_COLOUR, finish, floats, line_style, new_axes, new_figure, whole_ticks

# Seaborn's colour maps: light, so that the picture shows through, where there is little; dark where much.
AMOUNT, SIGNED = "rocket_r", "vlag"
CELL_ALPHA = 0.62
# Mean distance between two points of a square of side 1: how far attention reaches if it is spread evenly.
EVEN_REACH = 0.5214


def token_overlay(
    image: ArrayLike, maps: Sequence[ArrayLike], titles: Sequence[str], *, signed: bool = False,
    query: tuple[int, int] | None = None, columns: int = 6, heading: str = "", label: str = "",
    common: bool = True, side: float = 1.65,
) -> Figure:  # fmt: skip
    """A picture (h, w, 3), then each map (rows, columns) of its patches as cells over the grey picture.

    One colour scale serves all maps, or each its own where `common` is False; it begins at 0 unless a
    value is below, and is centred on 0 where values are `signed`. `label` names the values and their
    unit; `query` (row, column) of the first map's grid is framed in the picture; `side` in inches; NaN
    leaves a cell empty. Raises InputError for maps that are not 2-D or a query outside the grid.
    """
    maps = floats(*maps)
    if not maps or len(maps) != len(titles) or any(values.ndim != 2 for values in maps):
        shapes = ", ".join(f"shape {values.shape}" for values in maps) or "none"
        many = f"{len(maps)} maps and {len(titles)} titles"
        raise InputError(f"{many}: give one title for each map (rows, columns), not {shapes}")
    if query is not None and not all(0 <= at < size for at, size in zip(query, maps[0].shape, strict=True)):
        raise InputError(f"query patch {query} lies outside the grid {maps[0].shape} of the first map")
    label = label or ("signed weight (no unit)" if signed else "attention (share of 1)")
    shown, grey = _shrunk(image, side)
    gap, head, top, bar = 0.12, 0.28, (0.35 if heading else 0.05), (0.55 if common else 0.3)
    below = 0.0 if common else bar
    rows, wide = math.ceil((1 + len(maps)) / columns), min(columns, 1 + len(maps))
    width, height = wide * (side + gap) + gap, top + rows * (side + head + below) + gap + bar
    figure, axes = new_page(width, height)
    axes.text(gap, 0.1, heading, ha="left", va="top", fontsize=11)
    titles = ["input" if query is None else "query patch framed", *titles]
    grid = dict(gap=gap, head=head + below, columns=columns)
    place_pictures(axes, [shown] + [grey] * len(maps), titles, gap, top + head, side, **grid)
    if query is not None:
        _frame_patch(axes, query, maps[0].shape)
    together = _scale(maps, signed)
    for values, ground in zip(maps, axes.images[1:], strict=True):
        scale = together if common else _scale([values], signed)
        extent = left, right, bottom, upper = ground.get_extent()
        axes.imshow(values, extent=extent, interpolation="nearest", **scale)
        if not common:
            _colour_bar(axes, scale, (left + right - side) / 2, (bottom + upper + side) / 2 + 0.06, side)
    if common:
        long = min(3.0, width - 0.6)
        _colour_bar(axes, together, (width - long) / 2, height - bar, long)
    axes.text(width / 2, height - 0.06, label, ha="center", va="bottom", fontsize=9.5)
    return figure


def _scale(maps: Sequence[np.ndarray], signed: bool) -> dict[str, Any]:
    """Translucent colours for all these values, 0 first or in the middle, as keywords of `Axes.imshow`."""
    low, high = min(map(np.nanmin, maps)), max(map(np.nanmax, maps))
    reach, start = max(abs(low), abs(high)) or 1.0, min(0.0, low)
    norm = Normalize(-reach, reach) if signed else Normalize(start, high if high > start else low + 1)
    return dict(norm=norm, cmap=SIGNED if signed else AMOUNT, alpha=CELL_ALPHA, aspect="auto")


def _shrunk(image: ArrayLike, side: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint8 or float in [0, 1], in colour and grey: (h, w, 3) uint8, `side` inches at 200 dpi."""
    image = np.asarray(image)
    if np.issubdtype(image.dtype, np.floating):
        image = (np.clip(image, 0, 1) * 255).round()
    small = Image.fromarray(image.astype(np.uint8))
    small.thumbnail((round(200 * side),) * 2)
    return np.asarray(small.convert("RGB")), np.asarray(small.convert("L").convert("RGB"))


def _frame_patch(axes: Axes, patch: tuple[int, int], grid: tuple[int, int]) -> None:
    """Frames a patch of the first picture, black in white, so that it is seen on any ground."""
    left, right, bottom, top = axes.images[0].get_extent()
    wide, high = (right - left) / grid[1], (bottom - top) / grid[0]
    corner = (left + patch[1] * wide, top + patch[0] * high)
    for colour, width in (("white", 4.5), ("black", 2)):
        axes.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor=colour, linewidth=width))


def _colour_bar(axes: Axes, scale: dict[str, Any], x: float, y: float, width: float) -> None:
    """A horizontal colour bar with its numbers below, on the page itself: one Axes for each would be slow."""
    norm, thick = scale["norm"], 0.11
    colours = np.linspace(norm.vmin, norm.vmax, 64)[None]
    axes.imshow(colours, extent=(x, x + width, y + thick, y), **scale)
    for tick in MaxNLocator(2 if width < 2.2 else 5).tick_values(norm.vmin, norm.vmax):
        part = (tick - norm.vmin) / (norm.vmax - norm.vmin)
        # The last tick may pass the end of the scale by a rounding error.
        if -1e-9 < part < 1 + 1e-9:
            axes.text(x + width * part, y + thick + 0.03, f"{tick:.4g}", ha="center", va="top", fontsize=9)


def distance_by_layer(distances: Mapping[str, ArrayLike], *, pixels: int) -> Figure:
    """How far attention reaches in each layer: a dot for each head, their mean and their variance.

    `distances[name]` (layers, heads) are mean distances in pixels between a query patch and what it
    attends to; `pixels` is the side of the picture. Raises InputError for arrays that are not 2-D.
    Source: the paper's figure 3.3 in kind.
    """
    figure = new_figure(10.5, 4.0)
    left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
    apart = 0.5 / len(distances)
    for k, name in enumerate(distances):
        (values,) = floats(distances[name])
        if values.ndim != 2:
            raise InputError(f"{name}: distances of shape {values.shape}; (layers, heads) is needed")
        layers = np.arange(1, len(values) + 1)
        style = line_style(k)
        places = layers + (k - (len(distances) - 1) / 2) * apart
        dots = style | dict(linestyle="none", markersize=5, alpha=0.55, markeredgewidth=0)
        left.plot(np.repeat(places, values.shape[1]), values.ravel(), **dots)
        means = style | dict(markersize=7, markeredgecolor="black", label=f"{name}: mean of heads")
        left.plot(places, values.mean(axis=1), **means)
        right.plot(layers, values.var(axis=1), markersize=6, **style)
    left.axhline(EVEN_REACH * pixels, color=GUIDE_COLOUR, linestyle=":", label="attention spread evenly")
    left.set_title(f"each small dot a head; picture {pixels} × {pixels} px", fontsize=10, loc="left")
    right.set_title("how much the heads differ", fontsize=10, loc="left")
    deepest = max(map(len, distances.values()))
    for axes, label in ((left, "mean attention distance (px)"), (right, "variance over heads (px²)")):
        finish(axes, whole="x", xlabel="layer", xlim=(0.5, deepest + 0.5), ylabel=label, ylim=(0, None))
    figure.legend(fontsize=9.5, frameon=False, loc="outside lower center", ncols=3)
    return figure


def heatmaps(matrices: Mapping[str, ArrayLike], *, label: str, side: str, columns: int = 3) -> Figure:
    """Square matrices by title, in rows of `columns`, on one colour scale.

    `label` names the values and their unit, `side` what rows and columns are. Raises InputError for a matrix
    that is not square. Source: the paper's figure 1.1.2 in kind.
    """
    values = floats(*matrices.values())
    for name, matrix in zip(matrices, values, strict=True):
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"{name}: a matrix of shape {matrix.shape} is not square")
    wide, rows = min(columns, len(values)), math.ceil(len(values) / columns)
    figure = new_figure(3.9 * wide + 1.0, 4.3 * rows)
    panels = figure.subplots(rows, wide, squeeze=False).ravel()
    look = dict(vmin=min(map(np.min, values)), vmax=max(map(np.max, values)), cmap="viridis")
    for axes, name, matrix in zip(panels, matrices, values, strict=False):
        shown = axes.imshow(matrix, interpolation="nearest", **look)
        axes.set_title(name, fontsize=11)
        axes.set(xlabel=side, ylabel=side)
        whole_ticks(axes, "xy", 5)
    figure.colorbar(shown, ax=panels, label=label, shrink=0.85)
    return figure


def discard_card(
    image: ArrayLike, kept: ArrayLike, results: Sequence[ArrayLike], titles: Sequence[str], **card: Any
) -> Figure:
    """A sketch (h, w, 3) whose discarded patch tokens are hatched out, beside what it still finds.

    `kept` (rows, columns) bool is False where the token is discarded; `card` is what else
    `retrieval_card` takes: true_place, heading, columns. Raises InputError if `kept` is not 2-D.
    """
    kept = np.asarray(kept, dtype=bool)
    if kept.ndim != 2:
        raise InputError(f"kept has shape {kept.shape}; the grid (rows, columns) of patch tokens is needed")
    sketch, title = _shrunk(image, 2.85)[0], f"query sketch: {kept.sum()} of {kept.size} patch tokens kept"
    figure = retrieval_card(sketch, results, titles, title=title, large=2.85, side=1.3, **card)
    axes = figure.axes[0]
    left, right, bottom, top = axes.images[0].get_extent()
    high, wide = (bottom - top) / kept.shape[0], (right - left) / kept.shape[1]
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    squares = (left, top) + (np.argwhere(~kept)[:, None, ::-1] + corners) * (wide, high)
    look = dict(facecolor=(0.82, 0.82, 0.82, 0.85), edgecolor="0.5", hatch="///", linewidth=0.6)
    # One path: many would be slow.
    axes.add_patch(PathPatch(Outline.make_compound_path_from_polys(squares), **look))
    return figure


def discard_curves(kept: ArrayLike, curves: Mapping[str, Sequence[Any]], notes: Sequence[str] = ()) -> Figure:
    """Acc@1 against how many patch tokens are kept, a line with its 95 % interval for each name.

    `kept` (f,) in percent of the patch tokens; `curves[name]` f accuracies as `retrieval.accuracy_of`
    makes them; `notes` stand above. Raises InputError where their numbers differ or `kept` looks like
    fractions.
    """
    (kept,) = floats(kept)
    if kept.max() <= 1:
        raise InputError(f"kept is {kept.max():g} at most: give percent of the tokens, such as 25 or 100")
    axes = new_axes(9.5, 4.2)
    order = np.argsort(kept)
    for place, (name, points) in enumerate(curves.items()):
        if len(points) != len(kept):
            raise InputError(f"{name}: {len(points)} accuracies for {len(kept)} values of kept")
        percent, low, high = np.array([(points[i].percent, points[i].low, points[i].high) for i in order]).T
        style = line_style(place)
        axes.fill_between(kept[order], low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.plot(kept[order], percent, markersize=6, label=name, **style)
    title = [textwrap.fill(note, 120) for note in (*notes, "bands: 95 % intervals")]
    axes.set_title("\n".join(title), fontsize=10, loc="left")
    axes.figure.legend(fontsize=9.5, frameon=False, loc="outside lower center", ncols=4)
    labels = dict(xlabel="patch tokens kept (%)", ylabel="Acc@1 (% of queries)")
    return finish(axes, grid="y", percent=True, **labels)
