"""A panel that looks at what a trained model finds."""

import math

from ipywidgets import Checkbox, Dropdown, HBox, IntSlider, Layout
from matplotlib.figure import Figure

from sbirlib.data import LoadedSplit, read_image
from sbirlib.figures import message, retrieval_card
from sbirlib.methods.base import Method
from sbirlib.panels.base import STYLE, Panel
from sbirlib.retrieval import Scores, embed_split, score_all
from sbirlib.retrieval.noise import cleaned

ALL = "all"


class RetrievalBrowser(Panel):
    """A query sketch, the ten photos found first, and where the true one is."""

    def __init__(self, model: Method, data: LoadedSplit, scores: Scores, *, k: int = 10) -> None:
        self.split, self.scores, self.k = data.split, scores, k
        self.photo_index = data.photo_index.numpy()
        self.similarity = score_all(model.score, *embed_split(model, cleaned(model, data))).numpy()
        self.query = IntSlider(1, 1, 1, description="query", style=STYLE, layout=Layout(width="30em"))
        designers = [ALL, *filter(None, data.split.designers)]
        self.designer = Dropdown(options=designers, description="designer", style=STYLE)
        self.failures = Checkbox(description="failures only", indent=False)
        controls = [self.query, self.designer, self.failures]
        super().__init__(HBox(controls), controls=controls)

    def refill(self) -> None:
        """The queries to leaf through: `rows` of the split's sketches."""
        lowest, hand = 2 if self.failures.value else 1, self.designer.value
        ranked = enumerate(zip(self.split.sketches, self.scores.ranks, strict=True))
        self.rows = [row for row, (s, rank) in ranked if rank >= lowest and hand in (ALL, s.designer)]
        self.query.max = max(1, len(self.rows))

    def figure(self) -> Figure:
        """The card of the chosen query."""
        if not self.rows:
            return message("no such query: every sketch of this choice found its photo first")
        row = self.rows[self.query.value - 1]
        sketch, true, rank = self.split.sketches[row], self.photo_index[row], self.scores.ranks[row]
        found = self.scores.order[row, : self.k].tolist()
        shown = found if true in found else [*found, true]
        titles = [f"{place}: {self.similarity[row, photo]:.2f}" for place, photo in enumerate(shown, start=1)]
        titles[shown.index(true)] = f"rank {rank} true: {self.similarity[row, true]:.2f}"
        heading = f"{sketch.path.stem}: the true photo has rank {rank} of {self.scores.gallery} "
        heading += f"(query {self.query.value} of {len(self.rows)})"
        query, *photos = map(read_image, (sketch.path, *(self.split.photos[photo].path for photo in shown)))
        place, width = shown.index(true), math.ceil(len(shown) / 2)
        return retrieval_card(query, photos, titles, true_place=place, heading=heading, columns=width)
