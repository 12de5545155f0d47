"""What the notebooks begin with: data, and panels that show them before anything is trained."""

import os
from pathlib import Path

import torch
from ipywidgets import Dropdown, FloatSlider, HBox, VBox, Widget
from matplotlib.figure import Figure

from sbirlib.config import Config, Knob, knobs
from sbirlib.data import PairFolder, as_picture, fit_square, make_view, read_image, read_pixels, to_float
from sbirlib.data.batches import draws
from sbirlib.data.drawings import REDRAWS, pseudo_sketches, redraw
from sbirlib.figures import image_grid, message
from sbirlib.miniclothes.dataset import draw_miniclothes
from sbirlib.panels.base import ALL, Panel, offer, slider

DIALS = ("how faint", "how short", "pen width", "softness")  # in the order of `pseudo_sketches`
VIEW_KNOBS = ("data.rotation", "data.enlarge", "data.flip", "data.crop", "data.jitter", "data.hue")


def fast() -> bool:
    """Whether the environment asks, with SBIR_FAST=1, for a quick pass through the notebooks."""
    return os.environ.get("SBIR_FAST") == "1"


def demo_pairs(folder: str | Path = "../data") -> PairFolder:
    """MiniClothes, drawn into `folder` on first use; an eighth of it if `fast()`."""
    small = {"photos": (60, 20), "sketches": (120, 40)} if fast() else {}
    name = "MiniClothes-fast" if small else "MiniClothes"
    return PairFolder(draw_miniclothes(Path(folder) / name, **small))


def demo_config(epochs: int | None = None, preset: str = "mini_full") -> Config:
    """A small preset, with another number of epochs if given; smaller in every way if `fast()`."""
    config = Config.preset(preset)
    epochs = epochs or config.run.epochs
    small = {"run.epochs": min(epochs, 12), "model.image_size": 48}
    return config.updated(small if fast() else {"run.epochs": epochs})


class PairBrowser(Panel):
    """A photo beside the sketches that were drawn of it."""

    def __init__(self, pairs: PairFolder) -> None:
        self.pairs = pairs
        self.split = Dropdown(options=list(pairs.splits), description="split")
        self.designer = Dropdown(options=[ALL], description="designer")
        self.photo = Dropdown(description="photo")
        controls = [self.split, self.designer, self.photo]
        super().__init__(HBox(controls), controls=controls)

    def refill(self) -> None:
        """Offers the designers of the split, and the photos that the chosen one has drawn."""
        split = self.pairs.splits[self.split.value]
        offer(self.designer, [ALL, *filter(None, split.designers)])
        drawn = {s.photo_id for s in split.sketches if self.designer.value in (ALL, s.designer)}
        offer(self.photo, sorted(drawn))

    def figure(self) -> Figure:
        """The chosen photo, then its sketches by the chosen designer, or by all."""
        split, photo, designer = self.pairs.splits[self.split.value], self.photo.value, self.designer.value
        if photo is None:
            return message(f"no sketch by designer {designer} in the {split.name} split")
        sketches = [s for s in split.sketches if s.photo_id == photo and designer in (ALL, s.designer)]
        paths = [*(p.path for p in split.photos if p.id == photo), *(s.path for s in sketches)]
        hands = [f"by designer {s.designer}" if s.designer else "sketch" for s in sketches]
        return image_grid(list(map(read_image, paths)), [f"photo {photo}", *hands], columns=5, side=1.9)


class ViewExplorer(Panel):
    """One sketch and its photo: the original view A0, and three draws each of A1 and A2."""

    def __init__(self, pairs: PairFolder, config: Config) -> None:
        self.base, self.split = config, pairs.split("train")
        self.sketch = slider("sketch", max=len(self.split.sketches) - 1)
        self.chance = slider("another draw", max=20)
        self.controls = {knob.name: _view_slider(knob) for knob in knobs(config) if knob.name in VIEW_KNOBS}
        controls = [self.sketch, self.chance, *self.controls.values()]
        super().__init__(HBox([VBox(controls[::2]), VBox(controls[1::2])]), controls=controls)

    @property
    def config(self) -> Config:
        """The configuration that the sliders describe."""
        return self.base.updated({name: control.value for name, control in self.controls.items()})

    def figure(self) -> Figure:
        """Two rows: the sketch and its photo; seven columns: A0, A1 three times, A2 three times."""
        config, sketch = self.config, self.split.sketches[self.sketch.value]
        photo = next(photo for photo in self.split.photos if photo.id == sketch.photo_id)
        views, titles = [], []
        for name, path in (("sketch", sketch.path), ("photo", photo.path)):
            square = fit_square(read_pixels(path)[None], config.model.image_size, config.data.fit)
            image = to_float(square, "cpu")
            for kind, count in (("A0", 1), ("A1", 3), ("A2", 3)):
                # Stream by domain, as in training: sketch and photo turn and flip each on its own.
                numbers = torch.from_numpy(draws(self.chance.value, 0, name == "photo", 3))[:count]
                views += [*make_view(image.expand(count, -1, -1, -1), kind, numbers, config.data)]
                titles += [f"{name} {kind}"] * count
        return image_grid([as_picture(view) for view in views], titles, columns=7, side=1.35)


class SketchMaker(Panel):
    """A photo, the drawing that training makes of it, and the same drawing by three other hands.

    The dials, each from 0 to 1, are those of `pseudo_sketches`; training draws them anew for each photo and
    epoch. Where somebody has drawn the photo, the real sketch stands last.
    """

    def __init__(self, pairs: PairFolder, config: Config) -> None:
        self.pairs, self.config, self.split = pairs, config, pairs.split("train").real
        self.photo = slider("photo", max=len(self.split.photos) - 1)
        self.chance = slider("other hands", max=20)
        self.dials = {name: _dial(name, 0.3) for name in DIALS}
        self.redraw = _dial("redraw", config.data.redraw)
        controls = [self.photo, *self.dials.values(), self.redraw, self.chance]
        super().__init__(HBox([VBox(controls[:4]), VBox(controls[4:])]), controls=controls)

    def figure(self) -> Figure:
        """One row: the photo, its drawing, three times redrawn, and the first real sketch if there is one."""
        photo = self.split.photos[self.photo.value]
        sketches = [sketch.path for sketch in self.split.sketches if sketch.photo_id == photo.id][:1]
        size, fit = self.config.model.image_size, self.config.data.fit
        squares = [fit_square(read_pixels(path)[None], size, fit) for path in (photo.path, *sketches)]
        image, *real = (to_float(square, "cpu") for square in squares)
        dials = torch.tensor([[dial.value for dial in self.dials.values()]])
        drawn = pseudo_sketches(image, dials, edge_maps=self.pairs.edge_maps)
        hands = torch.from_numpy(draws(self.chance.value, 0, 0, 3, REDRAWS))
        others = redraw(drawn.expand(3, -1, -1, -1), hands, self.redraw.value)
        pictures = [part for batch in (image, drawn, others, *real) for part in batch.expand(-1, 3, -1, -1)]
        titles = [f"photo {photo.id}", "drawn from it", *["by another hand"] * 3, "its sketch"]
        return image_grid([as_picture(part) for part in pictures], titles[: len(pictures)], side=1.6)


def _dial(name: str, value: float) -> Widget:
    return slider(name, FloatSlider, value=value, min=0, max=1, step=0.05)


def _view_slider(knob: Knob) -> Widget:
    # Every default is a multiple of the step: a browser moves values between two steps, and sends them back.
    step = 1 if knob.unit == "degrees" else 0.02
    limits = {"value": knob.default, "min": knob.low, "max": knob.high, "step": step}
    return slider(knob.name.partition(".")[2], FloatSlider, tooltip=knob.help, **limits)
