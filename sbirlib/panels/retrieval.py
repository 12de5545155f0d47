"""Leaf through queries and what they find."""

from __future__ import annotations

import math

import ipywidgets
from ipywidgets import Layout
from matplotlib.figure import Figure

from sbirlib.data.loading import LoadedSplit
from sbirlib.figures.photos import retrieval_card
from sbirlib.figures.style import message
from sbirlib.methods.base import Method
from sbirlib.panels.base import ALL, WIDE, Panel, _read
from sbirlib.retrieval.rows import embed_split
from sbirlib.retrieval.scores import Scores
from sbirlib.retrieval.search import score_all


class RetrievalBrowser(Panel):
    """A query sketch, the ten photos found first, and where the true one is."""

    def __init__(self, model: Method, data: LoadedSplit, scores: Scores, *, k: int = 10) -> None:
        self.split, self.scores, self.k = data.split, scores, k
        self.photo_index = data.photo_index.numpy()
        self.similarity = score_all(model.score, *embed_split(model, data)).numpy()
        self.query = ipywidgets.IntSlider(0, 0, 0, description="query", layout=WIDE)
        designers = [ALL, *filter(None, data.split.designers)]
        self.designer = ipywidgets.Dropdown(options=designers, description="designer")
        self.failures = ipywidgets.Checkbox(
            description="failures only", indent=False, layout=Layout(margin="2px 0 0 2em")
        )
        self._refill()
        super().__init__(ipywidgets.HBox([self.query, self.designer, self.failures]))
        for control in (self.designer, self.failures):
            control.observe(self._refill, "value")
        self.follow(self.query, self.designer, self.failures)

    def _refill(self, _change: object = None) -> None:
        """The queries to leaf through: `rows` of the split's sketches."""
        self.rows = [
            row
            for row, sketch in enumerate(self.split.sketches)
            if self.designer.value in (ALL, sketch.designer)
            and (self.scores.ranks[row] > 1 or not self.failures.value)
        ]
        self.query.max = max(0, len(self.rows) - 1)

    def figure(self) -> Figure:
        """The card of the chosen query."""
        if not self.rows:
            return message("no such query: every sketch of this choice found its photo first")
        row = self.rows[min(self.query.value, len(self.rows) - 1)]
        sketch, true, rank = self.split.sketches[row], self.photo_index[row], self.scores.ranks[row]
        found = self.scores.order[row, : self.k].tolist()
        shown = found if true in found else [*found, true]
        titles = [f"{place}: {self.similarity[row, photo]:.2f}" for place, photo in enumerate(shown, start=1)]
        titles[shown.index(true)] = f"rank {rank} true: {self.similarity[row, true]:.2f}"
        heading = (
            f"{sketch.path.stem}: the true photo has rank {rank} of {self.scores.gallery} "
            f"(query {self.rows.index(row) + 1} of {len(self.rows)})"
        )
        pictures = _read([sketch.path, *(self.split.photos[photo].path for photo in shown)])
        return retrieval_card(
            pictures[0],
            pictures[1:],
            titles,
            true_place=shown.index(true),
            heading=heading,
            columns=math.ceil(len(shown) / 2),
        )
