"""The recipe of the released code, written anew from its description to be measured beside the kit.

fp32 without autocast; four passes through the whole encoder a step; a plain optimiser; four PIL
decodes an item in DataLoader workers; and after every epoch training and test pictures decoded and
embedded anew. Model class, loss and hyper-parameters are the kit's own. Where the description leaves
a choice, the faster one is taken: workers stay alive between epochs, pictures rotate to the nearest pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.utils import set_seed
from PIL import Image
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from sbirlib.bench.measure import cores
from sbirlib.config.config import Config, DataConfig
from sbirlib.data.batches import Views
from sbirlib.data.pairs import Split
from sbirlib.layers.backbone import Tokens
from sbirlib.methods.arnet import ARNet, ARNetOutput, LossTerms, arnet_loss
from sbirlib.retrieval.scores import Scores, score
from sbirlib.training.setup import lr_factor, make_optimizer

PAPER = 255  # what a turned picture leaves free


def decode(path: Path) -> Image.Image:
    """The picture file as RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")


def view_of(kind: str, config: DataConfig, size: int) -> Callable[[Image.Image], Tensor]:
    """PIL picture -> one view (3, size, size) float in [0, 1], of the same kind as `views.make_view`.

    Raises ValueError for an unknown kind.
    """
    flip, tensor = transforms.RandomHorizontalFlip(config.flip), transforms.ToTensor()
    if kind == "A0":
        return transforms.Compose([transforms.Resize((size, size)), tensor])
    if kind == "A1":
        larger = round(size * config.enlarge)
        return transforms.Compose(
            [
                transforms.Resize((larger, larger)),
                transforms.RandomRotation(config.rotation, fill=PAPER),
                flip,
                transforms.CenterCrop(size),
                tensor,
            ]
        )
    if kind == "A2":
        jitter = transforms.ColorJitter(config.jitter, config.jitter, config.jitter, config.hue / 360)
        return transforms.Compose(
            [transforms.RandomResizedCrop(size, (config.crop, 1)), flip, jitter, tensor]
        )
    raise ValueError(f"unknown view {kind!r}; known: A0, A1, A2")


class PairDataset(Dataset):
    """The sketches of a split as (sketch, sketch_second, photo, photo_second, photo row), decoded at every visit."""

    def __init__(self, split: Split, config: Config) -> None:
        data, size = config.data, config.model.image_size
        self.sketches = [sketch.path for sketch in split.sketches]
        self.photos = [photo.path for photo in split.photos]
        self.photo_index = split.photo_index.tolist()
        self.first, self.second = view_of(data.first_view, data, size), view_of(data.second_view, data, size)

    def __len__(self) -> int:
        return len(self.sketches)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        sketch, photo = self.sketches[row], self.photos[self.photo_index[row]]
        return (
            self.first(decode(sketch)),
            self.second(decode(sketch)),
            self.first(decode(photo)),
            self.second(decode(photo)),
            self.photo_index[row],
        )


class PictureDataset(Dataset):
    """Picture files as squares (3, size, size) float in [0, 1], decoded at every visit."""

    def __init__(self, paths: Sequence[Path], config: Config) -> None:
        self.paths, self.view = list(paths), view_of("A0", config.data, config.model.image_size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        return self.view(decode(self.paths[row]))


def workers() -> int:
    """How many processes decode: one a core, and two at least."""
    return max(2, cores())


@contextmanager
def decoding(*loaders: DataLoader) -> Iterator[None]:
    """At the end, ends the processes that decode for these loaders, which otherwise live as long as the loaders."""
    try:
        yield
    finally:
        for loader in loaders:
            # torch has no public way: its workers end with the iterator that started them.
            loader._iterator = None


def pair_loader(split: Split, config: Config) -> DataLoader:
    """Shuffled batches of `PairDataset`, less the rest that does not fill one."""
    return DataLoader(
        PairDataset(split, config),
        min(config.optim.batch_size, len(split.sketches)),
        shuffle=True,
        drop_last=True,
        num_workers=workers(),
        persistent_workers=True,
    )


def four_passes(model: ARNet, views: Views) -> ARNetOutput:
    """What `ARNet.forward` gives, with a pass through the whole encoder for each of the four views."""
    sketch, photo = model.sketch_encoder(views.sketch), model.photo_encoder(views.photo)
    sketch_second, photo_second = (
        model.sketch_encoder(views.sketch_second),
        model.photo_encoder(views.photo_second),
    )
    return ARNetOutput(
        sketch,
        Tokens(sketch_second.cls, sketch_second.patches),
        photo,
        Tokens(photo_second.cls, photo_second.patches),
        model.sketch_encoder.recycling_loss(sketch),
        model.photo_encoder.recycling_loss(photo),
    )


class ReleasedRecipe:
    """Model, optimiser and learning rate, begun from the same seed as the kit's `Trainer`."""

    def __init__(self, config: Config, steps: int, device: torch.device) -> None:
        self.config, self.device = config, device
        set_seed(config.run.seed)
        self.model = ARNet.from_config(config).to(device).train()
        self.optimizer = make_optimizer(self.model, config.optim, fused=False)
        self.schedule = LambdaLR(self.optimizer, lr_factor(config, steps))

    def step(self, views: Views) -> LossTerms:
        """One step on `views`, which are on the device; returns the loss before it."""
        self.optimizer.zero_grad()
        loss = arnet_loss(four_passes(self.model, views), views.photo_ids, self.config.loss)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip)
        self.optimizer.step()
        self.schedule.step()
        return loss

    def epoch(self, loader: DataLoader) -> None:
        """One pass over the batches of `pair_loader`."""
        self.model.train()
        for batch in loader:
            self.step(Views(*(value.to(self.device) for value in batch)))


class ReleasedEvaluation:
    """Scores of a split whose pictures are decoded and embedded anew at every call, in fp32."""

    def __init__(self, split: Split, config: Config) -> None:
        self.split = split
        self.loaders = tuple(
            DataLoader(
                PictureDataset([item.path for item in items], config),
                config.run.eval_batch,
                num_workers=workers(),
                persistent_workers=True,
            )
            for items in (split.photos, split.sketches)
        )

    def __call__(self, model: ARNet) -> Scores:
        device, (photo_files, sketch_files) = next(model.parameters()).device, self.loaders
        model.eval()
        with torch.no_grad():
            photos = torch.cat([model.embed_photos(batch.to(device)).cpu() for batch in photo_files])
            sketches = torch.cat([model.embed_sketches(batch.to(device)).cpu() for batch in sketch_files])
        model.train()
        return score(sketches.numpy() @ photos.numpy().T, self.split.photo_index)
