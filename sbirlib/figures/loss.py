"""InfoNCE step by step."""

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.special import log_softmax

from sbirlib.figures.style import PALETTE, new_figure


def info_nce_example(first: np.ndarray, second: np.ndarray, temperature: float) -> Figure:
    """InfoNCE over the 2b rows of two (b, 2) arrays of unit vectors, step by step.

    Left the vectors on the unit circle, then every cosine with each row's partner framed, then the
    probability that the softmax at `temperature` gives the partner, and the row's loss in nats.
    """
    pairs = len(first)
    rows, places = np.concatenate([first, second]), np.arange(2 * pairs)
    names = [f"{side}{i + 1}" for side in "sp" for i in range(pairs)]
    partner, itself = (places + pairs) % (2 * pairs), np.eye(2 * pairs, dtype=bool)
    cosine = rows @ rows.T
    logits = np.where(itself, -np.inf, cosine / temperature)
    losses = -log_softmax(logits, axis=1)[places, partner]
    figure = new_figure(11, 3.9, layout=None)
    margins = dict(left=0.01, right=0.93, bottom=0.14, top=0.91, wspace=0.13)
    circle, matrix, bars = figure.subplots(1, 3, width_ratios=(1, 1.15, 1), gridspec_kw=margins)

    turn = np.linspace(0, 2 * np.pi, 200)
    circle.plot(np.cos(turn), np.sin(turn), color="0.85")
    for side, marker, colour, start in (("sketch", "s", PALETTE[0], 0), ("photo", "o", PALETTE[1], pairs)):
        points = rows[start : start + pairs]
        circle.scatter(*points.T, marker=marker, color=colour, s=45, label=side, zorder=3)
        reach = 1.24 if side == "sketch" else 0.76
        for point, name in zip(points, names[start:], strict=False):
            circle.annotate(name, reach * point, ha="center", va="center", color=colour)
    around = (-1.45, 1.45)
    circle.set(aspect="equal", xlim=around, ylim=around, xticks=[], yticks=[], title="embeddings")
    circle.legend(fontsize=8, frameon=False, loc="center")
    sns.despine(ax=circle, left=True, bottom=True)

    look = dict(cmap="vlag", vmin=-1, vmax=1, cbar=False, square=True, annot_kws={"size": 7})
    look |= dict(mask=itself, annot=cosine.round(1) + 0.0, fmt=".1f")  # -0.0 becomes 0.0
    sns.heatmap(cosine, xticklabels=names, yticklabels=names, ax=matrix, **look)
    for corner in zip(partner, places, strict=True):
        matrix.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.8))
    matrix.set_title("cosine; each row's partner framed")
    matrix.tick_params(length=0, labelrotation=0)

    bars.barh(places, np.exp(-losses), color=[PALETTE[0]] * pairs + [PALETTE[1]] * pairs)
    for place, value in zip(places, losses, strict=True):
        bars.text(1.02, place, f"loss {value:.2f}", va="center", fontsize=9)
    bars.set(yticks=places, yticklabels=names, xlim=(0, 1), xlabel="softmax probability of the partner")
    bars.set_title(f"temperature {temperature:.2g}: mean loss {losses.mean():.2f}")
    bars.invert_yaxis()
    sns.despine(ax=bars)
    return figure
