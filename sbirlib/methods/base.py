"""The interface of all methods: trainer, scores, galleries, search and panels use nothing else.

A method embeds sketches and photos, and says in two parts what it minimises: `encode` turns a batch into
rows, `compare` turns rows into loss terms. Gradient caching and several processes work on the rows, so they
serve every method whose loss is a function of them.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sbirlib.config.config import Config
from sbirlib.data import Batch, Fit, LoadedSplit, Recording, fit_square
from sbirlib.layers.backbone import Backbone, Tokens, block_means
from sbirlib.methods.cards import CARDS, Needs, Paper


class Stage(NamedTuple):
    """A part of the training: its name, its share of the epochs, and the parts of the method it trains."""

    name: str
    share: float
    parts: Sequence[nn.Module]
    rate: float = 1.0  # of learning, as a multiple of `optim.lr`
    passes: float = 2  # pictures that go through an encoder for each pair of a step


class Encoder(nn.Module):
    """Backbone and embedding layer of one domain."""

    mstr: nn.Module | None  # what recycles the patch tokens, in ARNet

    def __init__(self, backbone: Backbone, embed: nn.Module, mstr: nn.Module | None = None) -> None:
        super().__init__()
        # In the order in which data pass through: optimisers and checkpoints count weights in it.
        self.backbone, self.mstr, self.embed = backbone, mstr, embed

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, s, s) in [0, 1] -> embeddings (b, e), of any length."""
        return self.embedding(self.backbone(images))

    def embedding(self, tokens: Tokens) -> Tensor:
        """Tokens of the backbone -> embeddings (b, e), of any length."""
        return self.embed(tokens.cls)


class PatchEncoder(Encoder):
    """An encoder that embeds the patch tokens (b, n, d) of the backbone, and not its global token.

    With `grids`, such as [(3, 3)], they are their means over the blocks of each grid, row by row.
    """

    def __init__(self, backbone: Backbone, embed: nn.Module, grids: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(backbone, embed)
        self.grids = grids

    def embedding(self, tokens: Tokens) -> Tensor:
        """Tokens of the backbone -> what `embed` makes of the patch tokens, (b, ...)."""
        means = [block_means(tokens.patches, grid) for grid in self.grids]
        return self.embed(torch.cat(means, dim=1) if means else tokens.patches)


class Method(nn.Module):
    """Base of every method: a sketch encoder, a photo encoder, and how their rows are compared.

    `options` are the method's own hyper-parameters, its `settings` by default; the other arguments are those
    of `config.model` and `config.data.fit`. Two encoders begin with the same weights. With `photo_edges`,
    photos are seen as edge maps. Raises BackboneError as `Backbone` does.

    A subclass sets its `name`, under which it finds its `paper`, what it `needs` and the names of its loss
    `terms` on its `Card`, and its `settings` in `Config`; it defines `make_encoder` and `compare`, and
    overrides the rest where its paper asks for it.
    """

    name: ClassVar[str] = "frozen"  # what a backbone is that no method has trained
    paper: ClassVar[Paper]
    settings: ClassVar[type[Any]] = tuple  # of its own hyper-parameters; none here
    terms: ClassVar[tuple[str, ...]] = ("total",)
    needs: ClassVar[Needs] = Needs()
    # Whether photos are found by the dot product of unit rows (b, e), so that a vector index can hold them.
    vectors: ClassVar[bool] = True
    cleans: ClassVar[bool] = False  # whether strokes are left out of queries, where there are any

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if card := CARDS.get(vars(cls).get("name", "")):
            settings = type(getattr(Config(), cls.name, ()))  # ARNet has two groups, and none of its name
            for key, value in (card._asdict() | {"settings": settings}).items():
                setattr(cls, key, vars(cls).get(key, value))  # what a class says itself counts

    def __init__(
        self, backbone: str, *, embed_dim: int | None = 512, options: Any = None, image_size: int = 224,
        fit: Fit = "pad", share_encoders: bool = False, photo_edges: bool = False, **of_backbone: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.options = self.settings() if options is None else options
        self.embed_dim: Any = embed_dim
        self.image_size, self.fit = image_size, fit
        self.config: Config | None = None  # of the run that trained the weights
        self.origin = "untrained"  # where the weights come from, in words
        self.stage, self.view_size = "", image_size  # what is being trained, and on views of which size
        self.labels = torch.empty(0)  # attributes of the photos that are trained on, (m, a) int64, if known
        self.second_views = self.needs.second_views  # whether batches have them, with these settings
        self.second_every = 1  # in how many steps one has them
        self.indivisible = ""  # why a batch cannot be split into chunks or over processes, if so
        self.sketch_encoder = self.make_encoder(Backbone(backbone, image_size=image_size, **of_backbone))
        # Alike at first: then a line of a sketch starts out near the edge that it stands for.
        self.photo_encoder = self.sketch_encoder if share_encoders else copy.deepcopy(self.sketch_encoder)
        if photo_edges:
            self.photo_encoder = _on_edges(self.photo_encoder)

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """The model that `config` describes."""
        model, options = asdict(config.model), getattr(config, config.method)
        return cls(model.pop("backbone"), fit=config.data.fit, options=options, **model)

    def make_encoder(self, trunk: Backbone) -> Encoder:
        """The encoder of one domain around a backbone; by default the backbone as it is."""
        return Encoder(trunk, nn.Identity())

    @property
    def passes(self) -> float:
        """Pictures that go through an encoder for each pair of a step, on average over the stages."""
        return sum(stage.share * stage.passes for stage in self.stages())

    def stages(self) -> list[Stage]:
        """The parts of the training in order; their shares of the epochs add up to 1."""
        return [Stage("all", 1.0, [self], passes=2 + 2 * self.second_views / self.second_every)]

    def enter(self, stage: str, data: LoadedSplit) -> None:
        """Called when a later stage begins, and when a run goes on inside one, with what is trained on.

        What it computes is not saved, and depends on weights that the stage leaves alone and on `data` only.
        """

    def adapt(self, data: LoadedSplit, support: Tensor) -> "Method":
        """A copy that has learnt from these sketches (k,) of a split; or itself, as by default."""
        return self

    def after_step(self) -> None:
        """Called after each step of the optimiser, such as to average weights."""

    def clean(self, drawing: Recording) -> np.ndarray:
        """Which strokes of a drawing to search with, (strokes,) bool; all, unless a method `cleans`."""
        return np.ones(len(drawing.strokes), bool)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`encode`, under the name that several processes call."""
        return self.encode(batch)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """The rows of a batch by name, (b, ...) each; by default those that are searched with.

        A scalar is a mean over the rows of the batch, such as a loss that each picture has by itself: chunks
        and processes average it.
        """
        return {"sketch": self.embed_sketches(batch.sketch), "photo": self.embed_photos(batch.photo)}

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The loss terms of the rows of a whole batch, a scalar for each of `terms`.

        `batch` may have been put together from chunks or processes: then its views are empty, but its
        `photo_ids` and `numbers` are there.
        """
        raise NotImplementedError

    def embed_sketches(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) in [0, 1], any size -> rows (b, ...), of unit length where `vectors` is set.

        Preprocessing is inside: images are made square as in training, unless they are of the model's size,
        and normalised for the backbone. Raises ValueError for another shape or type. Gradients flow: wrap in
        `torch.no_grad`.
        """
        return self._rows(self.sketch_encoder, images)

    def embed_photos(self, images: Tensor) -> Tensor:
        """As `embed_sketches`, with the photo encoder."""
        return self._rows(self.photo_encoder, images)

    def score(self, sketches: Tensor, photos: Tensor) -> Tensor:
        """How well rows of sketches (q, ...) and photos (g, ...) match: (q, g) float32, larger is better.

        By default the dot product, in fp64: equal photos then get equal scores wherever they stand.
        """
        return (sketches.double() @ photos.double().T).float()

    def _rows(self, encoder: Encoder, images: Tensor) -> Tensor:
        rows = encoder(self._square(images))
        return F.normalize(rows, dim=-1) if self.vectors else rows

    def _square(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            found = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"expected float images (b, 3, h, w) in [0, 1], found {found}")
        if images.numel() and (most := float(images.detach().amax())) > 2:
            raise ValueError(f"expected float images in [0, 1], found values up to {most:g}; divide by 255")
        sides = {self.image_size, self.view_size if self.training else self.image_size}
        if images.shape[-2] == images.shape[-1] and images.shape[-1] in sides:
            return images  # made so already: framing would cut them once more
        return fit_square(images, self.image_size, self.fit)


def fingerprint(module: nn.Module) -> str:
    """SHA-256 in hexadecimal of all weights of `module`, in the order of its state dict, hidden ones last."""
    digest = hashlib.sha256()
    for part in (module, *hidden_layers(module)):
        for weight in part.state_dict().values():
            digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def hidden_layers(module: nn.Module) -> list[nn.Module]:
    """The layers inside `module` that torch does not see, as in the released code."""
    return [layer for part in module.modules() for layer in getattr(part, "hidden", ())]


def _on_edges(encoder: Encoder) -> Encoder:
    """The same weights as `encoder`, which may serve sketches as well, behind edge maps."""
    # Shallow copies share layers, buffers and hooks: only what the backbone does first differs.
    backbone, behind = copy.copy(encoder.backbone), copy.copy(encoder)
    backbone.edges, behind._modules = True, dict(encoder._modules)
    behind.backbone = backbone
    return behind
