"""Panels that look at a trained model: what it finds, and what it attends to."""

import math
from functools import lru_cache

import numpy as np
from einops import reduce
from ipycanvas import Canvas
from ipywidgets import HTML, Checkbox, HBox, Layout, VBox
from matplotlib.figure import Figure

from sbirlib.analysis import attention
from sbirlib.data import LoadedSplit, as_picture, read_image, to_float
from sbirlib.figures import message, retrieval_card, retrieval_strip, token_overlay
from sbirlib.methods.base import Method
from sbirlib.panels.base import ALL, BORDER, Panel, dropdown, slider
from sbirlib.retrieval import Scores, embed_split, score_all

ROLLOUT = "all (rollout)"
SIDE = 240  # px of the picture to click


class RetrievalBrowser(Panel):
    """A query sketch, the ten photos found first, and where the true one is."""

    def __init__(self, model: Method, data: LoadedSplit, scores: Scores, *, k: int = 10) -> None:
        self.split, self.scores, self.k = data.split, scores, k
        self.photo_index = data.photo_index.numpy()
        self.similarity = score_all(model.score, *embed_split(model, data)).numpy()
        self.query = slider("query", max=0)
        self.designer = dropdown("designer", [ALL, *filter(None, data.split.designers)])
        self.failures = Checkbox(description="failures only", indent=False)
        controls = [self.query, self.designer, self.failures]
        super().__init__(HBox(controls), controls=controls)

    def refill(self) -> None:
        """The queries to leaf through: `rows` of the split's sketches."""
        lowest, hand = 2 if self.failures.value else 1, self.designer.value
        ranked = enumerate(zip(self.split.sketches, self.scores.ranks, strict=True))
        self.rows = [row for row, (s, rank) in ranked if rank >= lowest and hand in (ALL, s.designer)]
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
        heading = f"{sketch.path.stem}: the true photo has rank {rank} of {self.scores.gallery} "
        heading += f"(query {self.rows.index(row) + 1} of {len(self.rows)})"
        query, *photos = map(read_image, (sketch.path, *(self.split.photos[photo].path for photo in shown)))
        place, width = shown.index(true), math.ceil(len(shown) / 2)
        return retrieval_card(query, photos, titles, true_place=place, heading=heading, columns=width)


def failures(data: LoadedSplit, scores: Scores, *, rows: int = 4, shown: int = 4) -> Figure:
    """The sketches with the worst ranks, each with its photo and what was found before it."""
    truth, ranks = data.photo_index.numpy(), scores.ranks
    worst = [row for row in np.argsort(-ranks, kind="stable")[:rows] if ranks[row] > 1]
    if not worst:
        return message("every sketch found its photo first")
    found, titles = [], []
    for row in worst:
        order = scores.order[row]
        before = order[order != truth[row]][: min(shown, ranks[row] - 1)]
        found.append(list(map(as_picture, data.photos[[truth[row], *before]])))
        titles.append([f"rank {ranks[row]}", *(str(k + 1) for k in range(len(before)))])
    captions = [data.split.sketches[row].path.stem for row in worst]
    sketches, places = list(map(as_picture, data.sketches[worst])), [0] * len(worst)
    return retrieval_strip(sketches, found, places, captions=captions, titles=titles)


class AttentionExplorer(Panel):
    """What the global token, or a patch that you click, attends to, by layer and head."""

    def __init__(self, model: Method, data: LoadedSplit) -> None:
        model.eval()
        self.backbones = {"sketch": model.sketch_encoder.backbone, "photo": model.photo_encoder.backbone}
        self.pixels = {"sketch": data.sketches, "photo": data.photos}
        self.attention = lru_cache(maxsize=4)(self._attention)
        maps, _, (height, width) = self.attention("sketch", 0)
        layers, heads = (list(map(str, range(1, maps.shape[axis] + 1))) for axis in (0, 2))
        self.domain = dropdown("domain", self.backbones)
        self.image = slider("image", max=len(data.sketches) - 1)
        self.layer = dropdown("layer", [*layers, ROLLOUT], value=layers[-1])
        self.head = dropdown("head", ["mean and each", *heads])
        places = "0 is the global token, then the patches row by row"
        self.query = slider("query patch", max=height * width, tooltip=places)
        square = Layout(width=f"{SIDE}px", height=f"{SIDE}px", border=BORDER)
        self.canvas = Canvas(width=SIDE, height=SIDE, layout=square).add_class("sbir-pick")
        self.canvas.on_mouse_down(self.pick)
        controls = [self.domain, self.image, self.layer, self.head, self.query]
        hint = HTML("Click a patch, or move the slider; 0 is the global token.")
        super().__init__(HBox([self.canvas, VBox([*controls, hint])]), controls=controls)

    def pick(self, x: float, y: float) -> None:
        """Makes the patch at (x, y), in pixels of the small picture, the query."""
        height, width = self.backbones[self.domain.value].grid
        row, column = np.clip(y * height // SIDE, 0, height - 1), np.clip(x * width // SIDE, 0, width - 1)
        self.query.value = int(1 + row * width + column)

    def refill(self) -> None:
        """As many images as the domain has."""
        self.image.max = len(self.pixels[self.domain.value]) - 1

    def refresh(self, change: object = None) -> None:
        """Draws both pictures again: the one to click and the maps."""
        super().refresh(change)
        pixels = as_picture(self.pixels[self.domain.value][self.image.value])
        places = (np.arange(SIDE) * len(pixels)) // SIDE
        self.canvas.put_image_data(np.ascontiguousarray(pixels[places][:, places]), 0, 0)

    def figure(self) -> Figure:
        """The picture, and over it a map for each head that is asked for."""
        domain, layer, query = self.domain.value, self.layer.value, self.query.value
        maps, rolled = self.attention(domain, self.image.value), layer == ROLLOUT
        maps = attention.rollout(maps) if rolled else maps
        if query:
            asked, every = divmod(query - 1, maps.grid[1]), attention.patch_attention(maps, query - 1)
            who = f"patch in row {asked[0] + 1}, column {asked[1] + 1}"
        else:
            uses_cls = self.backbones[domain].uses_cls
            asked, every, who = None, attention.global_attention(maps, uses_cls=uses_cls), "the global token"
        heads = every[0 if rolled else int(layer) - 1, 0]
        if rolled:
            shown = {"through all layers": heads[0]}
        elif self.head.value.isdigit():
            shown = {f"head {self.head.value}": heads[int(self.head.value) - 1]}
        else:
            shown = {"mean of heads": reduce(heads, "head h w -> h w", "mean")}
            shown |= {f"head {i}": head for i, head in enumerate(heads, start=1)}
        pixels = as_picture(self.pixels[domain][self.image.value])
        heading = f"{domain}, layer {layer}: what {who} attends to"
        return token_overlay(pixels, list(shown.values()), list(shown), query=asked, heading=heading)

    def _attention(self, domain: str, image: int) -> attention.AttentionMaps:
        backbone, pixels = self.backbones[domain], self.pixels[domain][image][None]
        found = attention.attention_maps(backbone, to_float(pixels, next(backbone.parameters()).device))
        return found._replace(maps=found.maps.cpu())
