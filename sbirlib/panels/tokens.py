"""Panels that look inside a trained model: its attention, its tokens, and one run beside another."""

from __future__ import annotations

from functools import lru_cache

import ipywidgets
import numpy as np
import torch
from einops import rearrange, reduce
from ipycanvas import Canvas, hold_canvas
from ipywidgets import Layout
from matplotlib.figure import Figure

from sbirlib.analysis.attention import (
    AttentionMaps,
    attention_maps,
    global_attention,
    patch_attention,
    rollout,
)
from sbirlib.analysis.discard import (
    PLACES,
    RULES,
    earliest_place,
    embed_kept,
    embed_whole,
    kept_places,
    token_scores,
)
from sbirlib.data.loading import LoadedSplit
from sbirlib.data.transforms import to_float
from sbirlib.errors import InputError
from sbirlib.figures.style import message
from sbirlib.figures.tokens import discard_card, token_overlay
from sbirlib.methods.base import Method
from sbirlib.panels.base import STYLE, WIDE, Panel
from sbirlib.retrieval.rows import embed
from sbirlib.retrieval.scores import true_ranks

GLOBAL, ROLLOUT = "global token", "all (rollout)"


class AttentionExplorer(Panel):
    """What the global token, or a patch that you click, attends to, by layer and head."""

    def __init__(self, model: Method, data: LoadedSplit) -> None:
        self.encoders = {"sketch": model.eval().sketch_encoder, "photo": model.photo_encoder}
        self.pixels = {"sketch": data.sketches, "photo": data.photos}
        self.attention = lru_cache(maxsize=4)(self._attention)
        layers, heads = self.attention("sketch", 0).maps.shape[0], self.attention("sketch", 0).maps.shape[2]
        self.domain = ipywidgets.Dropdown(options=list(self.encoders), description="domain", style=STYLE)
        self.image = ipywidgets.IntSlider(
            0, 0, len(data.sketches) - 1, description="image", layout=WIDE, style=STYLE
        )
        self.layer = ipywidgets.Dropdown(
            options=[*map(str, range(1, layers + 1)), ROLLOUT],
            value=str(layers),
            description="layer",
            style=STYLE,
        )
        self.head = ipywidgets.Dropdown(
            options=["mean and each", *map(str, range(1, heads + 1))], description="head", style=STYLE
        )
        height, width = self.encoders["sketch"].backbone.grid
        self.query = ipywidgets.IntSlider(
            0,
            0,
            height * width,
            description="query patch",
            layout=WIDE,
            style=STYLE,
            tooltip="0 is the global token, then the patches row by row",
        )
        self.canvas = Canvas(
            width=240, height=240, layout=Layout(width="240px", height="240px", border="1px solid #999")
        )
        self.canvas.add_class("sbir-pick")
        self.canvas.on_mouse_down(self.pick)
        controls = ipywidgets.VBox(
            [
                self.domain,
                self.image,
                self.layer,
                self.head,
                self.query,
                ipywidgets.HTML("Click a patch, or move the slider; 0 is the global token."),
            ]
        )
        self.domain.observe(self._refill, "value")
        super().__init__(ipywidgets.HBox([self.canvas, controls]))
        self.follow(self.domain, self.image, self.layer, self.head, self.query)

    def pick(self, x: float, y: float) -> None:
        """Makes the patch at (x, y), in pixels of the small picture, the query."""
        height, width = self.encoders[self.domain.value].backbone.grid
        row, column = (
            min(max(int(place * count / 240), 0), count - 1) for place, count in ((y, height), (x, width))
        )
        self.query.value = 1 + row * width + column

    def refresh(self, change: object = None) -> None:
        """Draws both pictures again: the one to click and the maps."""
        super().refresh(change)
        height, width = self.encoders[self.domain.value].backbone.grid
        pixels = rearrange(self.pixels[self.domain.value][self.image.value], "c h w -> h w c").numpy()
        places = (np.arange(240) * len(pixels)) // 240
        with hold_canvas(self.canvas):
            self.canvas.put_image_data(np.ascontiguousarray(pixels[places][:, places]), 0, 0)
            if self.query.value:
                row, column = divmod(self.query.value - 1, width)
                self.canvas.stroke_style, self.canvas.line_width = "#d55e00", 3
                self.canvas.stroke_rect(column * 240 / width, row * 240 / height, 240 / width, 240 / height)

    def figure(self) -> Figure:
        """The picture, and over it a map for each head that is asked for."""
        domain, attention = self.domain.value, self.attention(self.domain.value, self.image.value)
        pixels = rearrange(self.pixels[domain][self.image.value], "c h w -> h w c").numpy()
        query = self.query.value
        asked = divmod(query - 1, attention.grid[1]) if query else None
        who = f"patch in row {asked[0] + 1}, column {asked[1] + 1}" if asked else f"the {GLOBAL}"
        rolled = self.layer.value == ROLLOUT
        attention = rollout(attention) if rolled else attention
        uses_cls = self.encoders[domain].backbone.uses_cls
        every = (
            global_attention(attention, uses_cls=uses_cls)
            if asked is None
            else patch_attention(attention, query - 1)
        )
        heads = every[0 if rolled else int(self.layer.value) - 1, 0]
        if rolled:
            shown = {"through all layers": heads[0]}
        elif self.head.value.isdigit():
            shown = {f"head {self.head.value}": heads[int(self.head.value) - 1]}
        else:
            shown = {"mean of heads": reduce(heads, "head h w -> h w", "mean")}
            shown |= {f"head {i}": head for i, head in enumerate(heads, start=1)}
        return token_overlay(
            pixels,
            [grid.numpy() for grid in shown.values()],
            list(shown),
            query=asked,
            heading=f"{domain}, layer {self.layer.value}: what {who} attends to",
        )

    def _attention(self, domain: str, image: int) -> AttentionMaps:
        device = next(self.encoders[domain].parameters()).device
        attention = attention_maps(
            self.encoders[domain].backbone, to_float(self.pixels[domain][image][None], device)
        )
        return attention._replace(maps=attention.maps.cpu())

    def _refill(self, _change: object = None) -> None:
        self.image.max = len(self.pixels[self.domain.value]) - 1


class TokenDiscardExplorer(Panel):
    """One query with a part of its patch tokens discarded, and what the search finds with the rest."""

    def __init__(self, model: Method, data: LoadedSplit, *, k: int = 8) -> None:
        self.encoder, self.data, self.k = model.eval().sketch_encoder, data, k
        self.device = next(model.parameters()).device
        self.photos = {
            recycle: embed(
                lambda images, recycle=recycle: embed_whole(model.photo_encoder, images, recycle=recycle),
                data.photos,
                device=self.device,
                what="photos",
            )
            for recycle in ((True, False) if self.encoder.mstr else (True,))
        }
        self.query = ipywidgets.IntSlider(
            0, 0, len(data.sketches) - 1, description="query", layout=WIDE, style=STYLE
        )
        self.keep = ipywidgets.IntSlider(
            50, 0, 100, 1, description="tokens kept (%)", layout=WIDE, style=STYLE
        )
        rules = [rule for rule in RULES if rule != "recycling" or self.encoder.mstr]
        self.rule = ipywidgets.Dropdown(options=rules, description="keep those by", style=STYLE)
        self.where = ipywidgets.Dropdown(
            options=list(PLACES), value=earliest_place(self.encoder), description="discard at", style=STYLE
        )
        self.recycle = ipywidgets.Checkbox(
            True,
            description="recycled tokens in the embedding",
            indent=False,
            layout=Layout(width="26em", margin="2px 0 0 2em"),
            disabled=self.encoder.mstr is None,
        )
        controls = [self.query, self.keep, self.rule, self.where, self.recycle]
        super().__init__(ipywidgets.HBox([ipywidgets.VBox(controls[:2]), ipywidgets.VBox(controls[2:])]))
        self.follow(*controls)

    @torch.inference_mode()
    def figure(self) -> Figure:
        """The query with its discarded tokens hatched, and the photos that the rest of it finds."""
        row, recycle = self.query.value, self.recycle.value
        image = to_float(self.data.sketches[row][None], self.device)
        try:
            places = kept_places(token_scores(self.encoder, image, self.rule.value), self.keep.value / 100)
            few = embed_kept(self.encoder, image, places, where=self.where.value, recycle=recycle)
        except InputError as error:
            return message(str(error))
        whole = embed_whole(self.encoder, image, recycle=recycle)
        similarity = (torch.cat([few, whole]).float().cpu() @ self.photos[recycle].T).numpy()
        true = int(self.data.photo_index[row])
        rank, before = true_ranks(similarity, np.array([true, true])).tolist()
        found = np.argsort(-similarity[0], kind="stable")[: self.k].tolist()
        height, width = self.encoder.backbone.grid
        kept = np.zeros(height * width, dtype=bool)
        kept[places[0].cpu()] = True
        titles = [f"{place}: {similarity[0, photo]:.2f}" for place, photo in enumerate(found, start=1)]
        pixels = [
            rearrange(picture, "c h w -> h w c").numpy()
            for picture in (self.data.sketches[row], *self.data.photos[found])
        ]
        heading = (
            f"{kept.sum()} of {kept.size} tokens kept: the true photo has rank {rank} of "
            f"{similarity.shape[1]} (with all tokens: {before})"
        )
        return discard_card(
            pixels[0],
            rearrange(kept, "(h w) -> h w", h=height),
            pixels[1:],
            titles,
            true_place=found.index(true) if true in found else None,
            heading=heading,
        )
