"""Panels for notebooks: controls above a picture, and the picture alone where no widgets run.

A panel only passes the values of its controls to functions of this package; whatever it shows, a
script can make without it. Every panel's picture is a PNG that is drawn anew when a control moves.
"""

from __future__ import annotations

import base64
import html
import math
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import torch
from einops import rearrange
from ipywidgets import Layout
from matplotlib.figure import Figure

from sbirlib.arnet import ARNet
from sbirlib.backbones import fit_square
from sbirlib.config import Config, knobs
from sbirlib.garments import draw_miniclothes
from sbirlib.images import read_image
from sbirlib.losses import info_nce
from sbirlib.pairs import PairFolder
from sbirlib.plots import image_grid, info_nce_example, message, png_bytes, retrieval_card
from sbirlib.retrieval import Scores, embed
from sbirlib.views import LoadedSplit, draws, make_view, to_float

ALL = "all"
VIEW_KNOBS = ("data.rotation", "data.enlarge", "data.flip", "data.crop", "data.jitter", "data.hue")
STYLE = {"description_width": "8.5em"}
WIDE = Layout(width="30em")


def fast() -> bool:
    """Whether the environment asks, with SBIR_FAST=1, for a quick pass through the notebooks."""
    return os.environ.get("SBIR_FAST") == "1"


def demo_pairs(folder: str | Path = "../data") -> PairFolder:
    """MiniClothes, drawn into `folder` on first use; an eighth of it if `fast()`."""
    if fast():
        return PairFolder(draw_miniclothes(Path(folder) / "MiniClothes-fast", photos=(60, 20), sketches=(120, 40)))
    return PairFolder(draw_miniclothes(Path(folder) / "MiniClothes"))


def demo_config(epochs: int | None = None, preset: str = "mini_full") -> Config:
    """A small preset, with another number of epochs if given; smaller in every way if `fast()`."""
    config = Config.preset(preset)
    epochs = epochs or config.run.epochs
    if not fast():
        return config.updated({"run.epochs": epochs})
    return config.updated({"run.epochs": min(epochs, 12), "model.image_size": 48})


class Panel(ipywidgets.VBox):
    """Controls above a picture: each kind of panel has a `figure()`, which draws what its controls ask for."""

    def __init__(self, *rows: ipywidgets.Widget) -> None:
        self.picture = ipywidgets.Image(format="png", layout=Layout(max_width="100%", object_fit="contain"))
        super().__init__([*rows, self.picture], layout=Layout(align_items="flex-start"))
        self.refresh()

    @property
    def png(self) -> bytes:
        """The picture as it stands in the panel."""
        return bytes(self.picture.value)

    def refresh(self, _change: object = None) -> None:
        """Draws the picture again."""
        self.picture.value = png_bytes(self.figure())

    def follow(self, *controls: ipywidgets.Widget) -> None:
        """Redraws whenever one of these changes."""
        for control in controls:
            control.observe(self.refresh, "value")

    def _repr_mimebundle_(self, **options: Any) -> dict:
        # JupyterLab takes the live view; a static page takes the picture.
        return super()._repr_mimebundle_(**options) | {
            "text/plain": f"{type(self).__name__}: {(type(self).__doc__ or '').splitlines()[0]}",
            "image/png": base64.b64encode(self.png).decode()}


class PairBrowser(Panel):
    """A photo beside the sketches that were drawn of it."""

    def __init__(self, pairs: PairFolder) -> None:
        self.pairs = pairs
        self.split = ipywidgets.Dropdown(options=list(pairs.splits), description="split")
        self.designer = ipywidgets.Dropdown(options=[ALL], description="designer")
        self.photo = ipywidgets.Dropdown(description="photo")
        self._refill()
        # Begin where there is most to see.
        drawn = Counter(sketch.photo_id for sketch in pairs.splits[self.split.value].sketches)
        self.photo.value = next((photo for photo, _ in drawn.most_common(1)), None)
        super().__init__(ipywidgets.HBox([self.split, self.designer, self.photo]))
        for control in (self.split, self.designer):
            control.observe(self._refill, "value")
        self.follow(self.split, self.designer, self.photo)

    def _refill(self, _change: object = None) -> None:
        split = self.pairs.splits[self.split.value]
        _offer(self.designer, [ALL, *filter(None, split.designers)])
        drawn = {s.photo_id for s in split.sketches if self.designer.value in (ALL, s.designer)}
        _offer(self.photo, sorted(drawn))

    def figure(self) -> Figure:
        """The chosen photo, then its sketches by the chosen designer, or by all."""
        split = self.pairs.splits[self.split.value]
        if self.photo.value is None:
            return message(f"no sketch by designer {self.designer.value} in the {split.name} split")
        photo = next(photo for photo in split.photos if photo.id == self.photo.value)
        sketches = [sketch for sketch in split.sketches if sketch.photo_id == photo.id
                    and self.designer.value in (ALL, sketch.designer)]
        titles = [f"photo {photo.id}", *(f"by designer {s.designer}" if s.designer else "sketch" for s in sketches)]
        return image_grid(_read([photo.path, *(s.path for s in sketches)]), titles, columns=5, side=1.9)


class ViewExplorer(Panel):
    """One sketch and its photo: the original view A0, and three draws each of A1 and A2."""

    def __init__(self, pairs: PairFolder, config: Config) -> None:
        self.base, self.split = config, pairs.split("train")
        self.sketch = ipywidgets.IntSlider(0, 0, len(self.split.sketches) - 1, description="sketch", style=STYLE,
                                          layout=WIDE)
        self.chance = ipywidgets.IntSlider(0, 0, 20, description="another draw", style=STYLE, layout=WIDE)
        limits = {knob.name: knob for knob in knobs(config) if knob.name in VIEW_KNOBS}
        # Steps that every default is a multiple of: a browser moves values between two steps, and sends them back.
        self.controls = {name: ipywidgets.FloatSlider(
            value=knob.default, min=knob.low, max=knob.high, step=1 if knob.unit == "degrees" else 0.02,
            description=knob.name.partition(".")[2], tooltip=knob.help, style=STYLE, layout=WIDE)
            for name, knob in limits.items()}
        controls = [self.sketch, self.chance, *self.controls.values()]
        super().__init__(ipywidgets.HBox([ipywidgets.VBox(controls[i::2]) for i in (0, 1)]))
        self.follow(*controls)

    @property
    def config(self) -> Config:
        """The configuration that the sliders describe."""
        return self.base.updated({name: control.value for name, control in self.controls.items()})

    def figure(self) -> Figure:
        """Two rows: the sketch and its photo; seven columns: A0, A1 three times, A2 three times."""
        config, sketch = self.config, self.split.sketches[self.sketch.value]
        photo = next(photo for photo in self.split.photos if photo.id == sketch.photo_id)
        pictures, titles = [], []
        for name, path in (("sketch", sketch.path), ("photo", photo.path)):
            image = rearrange(torch.from_numpy(np.array(read_image(path))), "h w c -> 1 c h w")
            image = to_float(fit_square(image, config.model.image_size, config.data.fit), "cpu")
            for kind, count in (("A0", 1), ("A1", 3), ("A2", 3)):
                # Stream by domain, as in training: sketch and photo turn and flip each on its own.
                numbers = torch.from_numpy(draws(self.chance.value, 0, name == "photo", 3))[:count]
                pictures += [*make_view(image.expand(count, -1, -1, -1), kind, numbers, config.data)]
                titles += [f"{name} {kind}"] * count
        return image_grid([rearrange(p, "c h w -> h w c").numpy() for p in pictures], titles, columns=7, side=1.35)


class InfoNCEPanel(Panel):
    """InfoNCE on a batch small enough to compute by hand, at any temperature."""

    def __init__(self, sketch_degrees: Iterable[float], photo_degrees: Iterable[float]) -> None:
        self.sketches, self.photos = _unit_circle(sketch_degrees), _unit_circle(photo_degrees)
        self.temperature = ipywidgets.FloatLogSlider(1.0, base=10, min=-2, max=1, step=0.005,
                                                     description="temperature", readout_format=".3f", layout=WIDE,
                                                     style=STYLE)
        super().__init__(self.temperature)
        self.follow(self.temperature)

    @property
    def loss(self) -> float:
        """The mean loss, from the function that training uses, in nats."""
        sketches, photos = torch.from_numpy(self.sketches), torch.from_numpy(self.photos)
        return float(info_nce(sketches, photos, temperature=self.temperature.value))

    def figure(self) -> Figure:
        """The unit circle, the matrix of cosines, and every row's loss."""
        return info_nce_example(self.sketches, self.photos, self.temperature.value)


class RetrievalBrowser(Panel):
    """A query sketch, the ten photos found first, and where the true one is."""

    def __init__(self, model: ARNet, data: LoadedSplit, scores: Scores, *, k: int = 10) -> None:
        self.split, self.scores, self.k = data.split, scores, k
        self.photo_index = data.photo_index.numpy()
        device = next(model.parameters()).device
        sketches = embed(model.eval().embed_sketches, data.sketches, device=device, what="sketches")
        photos = embed(model.embed_photos, data.photos, device=device, what="photos")
        self.similarity = (sketches @ photos.T).numpy()
        self.query = ipywidgets.IntSlider(0, 0, 0, description="query", layout=WIDE)
        designers = [ALL, *filter(None, data.split.designers)]
        self.designer = ipywidgets.Dropdown(options=designers, description="designer")
        self.failures = ipywidgets.Checkbox(description="failures only", indent=False,
                                            layout=Layout(margin="2px 0 0 2em"))
        self._refill()
        super().__init__(ipywidgets.HBox([self.query, self.designer, self.failures]))
        for control in (self.designer, self.failures):
            control.observe(self._refill, "value")
        self.follow(self.query, self.designer, self.failures)

    def _refill(self, _change: object = None) -> None:
        """The queries to leaf through: `rows` of the split's sketches."""
        self.rows = [row for row, sketch in enumerate(self.split.sketches)
                     if self.designer.value in (ALL, sketch.designer)
                     and (self.scores.ranks[row] > 1 or not self.failures.value)]
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
        heading = (f"{sketch.path.stem}: the true photo has rank {rank} of {self.scores.gallery} "
                   f"(query {self.rows.index(row) + 1} of {len(self.rows)})")
        pictures = _read([sketch.path, *(self.split.photos[photo].path for photo in shown)])
        return retrieval_card(pictures[0], pictures[1:], titles, true_place=shown.index(true), heading=heading,
                              columns=math.ceil(len(shown) / 2))


def notice(text: str, *, alert: bool = False) -> str:
    """A line of text for a panel's status, as HTML; `alert` for what went wrong."""
    style = "white-space: pre-wrap; line-height: 1.4; " + ("color: #b00020; font-weight: bold" if alert else "")
    return f'<div style="{style}">{html.escape(text)}</div>'


def _offer(control: ipywidgets.Dropdown, options: list[str]) -> None:
    """Changes the options; keeps the value where it is still one of them, else takes the first."""
    if list(control.options) != options:
        kept = control.value
        control.options = options
        control.value = kept if kept in options else next(iter(options), None)


def _read(paths: Iterable[Path]) -> list[np.ndarray]:
    return [np.asarray(read_image(path)) for path in paths]


def _unit_circle(degrees: Iterable[float]) -> np.ndarray:
    angle = np.deg2rad(np.asarray(list(degrees), dtype=float))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)
