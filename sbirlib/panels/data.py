"""Panels for notebooks: controls above a picture, and the picture alone where no widgets run.

A panel only passes the values of its controls to functions of this package; whatever it shows, a
script can make without it. Every panel's picture is a PNG that is drawn anew when a control moves.
"""

from __future__ import annotations

from collections import Counter

import ipywidgets
import torch
from einops import rearrange
from matplotlib.figure import Figure

from sbirlib.config.config import Config, knobs
from sbirlib.data.batches import draws
from sbirlib.data.images import read_pixels
from sbirlib.data.pairs import PairFolder
from sbirlib.data.transforms import fit_square, make_view, to_float
from sbirlib.figures.photos import image_grid
from sbirlib.figures.style import message
from sbirlib.panels.base import ALL, STYLE, WIDE, Panel, _offer, _read

VIEW_KNOBS = ("data.rotation", "data.enlarge", "data.flip", "data.crop", "data.jitter", "data.hue")


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
        sketches = [
            sketch
            for sketch in split.sketches
            if sketch.photo_id == photo.id and self.designer.value in (ALL, sketch.designer)
        ]
        titles = [
            f"photo {photo.id}",
            *(f"by designer {s.designer}" if s.designer else "sketch" for s in sketches),
        ]
        return image_grid(_read([photo.path, *(s.path for s in sketches)]), titles, columns=5, side=1.9)


class ViewExplorer(Panel):
    """One sketch and its photo: the original view A0, and three draws each of A1 and A2."""

    def __init__(self, pairs: PairFolder, config: Config) -> None:
        self.base, self.split = config, pairs.split("train")
        self.sketch = ipywidgets.IntSlider(
            0, 0, len(self.split.sketches) - 1, description="sketch", style=STYLE, layout=WIDE
        )
        self.chance = ipywidgets.IntSlider(0, 0, 20, description="another draw", style=STYLE, layout=WIDE)
        limits = {knob.name: knob for knob in knobs(config) if knob.name in VIEW_KNOBS}
        # Steps that every default is a multiple of: a browser moves values between two steps, and sends them back.
        self.controls = {
            name: ipywidgets.FloatSlider(
                value=knob.default,
                min=knob.low,
                max=knob.high,
                step=1 if knob.unit == "degrees" else 0.02,
                description=knob.name.partition(".")[2],
                tooltip=knob.help,
                style=STYLE,
                layout=WIDE,
            )
            for name, knob in limits.items()
        }
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
            square = fit_square(read_pixels(path)[None], config.model.image_size, config.data.fit)
            image = to_float(square, "cpu")
            for kind, count in (("A0", 1), ("A1", 3), ("A2", 3)):
                # Stream by domain, as in training: sketch and photo turn and flip each on its own.
                numbers = torch.from_numpy(draws(self.chance.value, 0, name == "photo", 3))[:count]
                pictures += [*make_view(image.expand(count, -1, -1, -1), kind, numbers, config.data)]
                titles += [f"{name} {kind}"] * count
        return image_grid(
            [rearrange(p, "c h w -> h w c").numpy() for p in pictures], titles, columns=7, side=1.35
        )
