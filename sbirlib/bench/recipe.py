"""The recipe of the released code, rewritten from its description, to be measured beside the kit.

fp32; four passes through the whole encoder a step; four PIL decodes a pair in DataLoader workers; pictures
decoded and embedded again for every evaluation. Model, loss and hyper-parameters are the kit's own. Where
there is a choice, the faster way is taken: workers stay alive, pictures turn to the nearest pixel.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, default_collate
from torchvision import transforms

from sbirlib.config.config import Config
from sbirlib.data import Batch, Epoch, PairFolder
from sbirlib.methods.arnet import ARNet
from sbirlib.retrieval.scores import Scores, score
from sbirlib.training.files import RunFiles
from sbirlib.training.setup import lr_factor, make_optimizer
from sbirlib.training.trainer import Trainer


def view_of(kind: str, config: Config) -> Callable[[Image.Image], Tensor]:
    """PIL picture -> one view (3, s, s) float in [0, 1], of the same kind as `make_view` makes."""
    data, size = config.data, config.model.image_size
    larger, flip = round(size * data.enlarge), transforms.RandomHorizontalFlip(data.flip)
    turn = transforms.RandomRotation(data.rotation, fill=255)  # on white paper
    colour = transforms.ColorJitter(data.jitter, data.jitter, data.jitter, data.hue / 360)
    kinds = {
        "A0": [transforms.Resize((size, size))],
        "A1": [transforms.Resize((larger, larger)), turn, flip, transforms.CenterCrop(size)],
        "A2": [transforms.RandomResizedCrop(size, (data.crop, 1)), flip, colour],
    }
    return transforms.Compose([*kinds[kind], transforms.ToTensor()])


def decoded(rows: list[list]) -> list[Tensor]:
    """Rows of (picture file, view) -> each view (b, 3, s, s), its file decoded for it alone."""
    return default_collate([[view(Image.open(path).convert("RGB")) for path, view in row] for row in rows])


def four_passes(model: ARNet, batch: Batch) -> dict[str, Tensor]:
    """What `ARNet.encode` gives, with a pass through the whole encoder for each of the four views."""
    rows = {}
    for name, encoder in (("sketch", model.sketch_encoder), ("photo", model.photo_encoder)):
        views = getattr(batch, name), getattr(batch, f"{name}_second")
        first, second = (encoder.recycle(encoder.backbone(view)) for view in views)
        rows |= {name: first.embedding, f"{name}_cls": first.cls, f"{name}_second_cls": second.cls}
        rows[f"recyc_{name}"] = encoder.recycling_loss(first)
    return rows


class ReleasedRecipe:
    """The kit's `trainer`, and beside it the released recipe: same seed, files and device."""

    def __init__(self, config: Config) -> None:
        self.trainer = trainer = Trainer(PairFolder(config.data.root), RunFiles(Path(), config))
        split, held, self.device = trainer.data.split, trainer.held_out.split, trainer.accelerator.device
        torch.manual_seed(config.run.seed)
        self.model = ARNet.from_config(config).to(self.device)
        self.optimizer = make_optimizer(self.model, config.optim)
        self.schedule = LambdaLR(self.optimizer, lr_factor(config.optim, trainer.steps, config.run.epochs))
        workers = {"num_workers": max(2, torch.get_num_threads()), "persistent_workers": True}
        load = partial(DataLoader, collate_fn=decoded, **workers)
        views = [view_of(kind, config) for kind in (config.data.first_view, config.data.second_view)]
        pairs = [(s, split.photos[row]) for s, row in zip(split.sketches, split.photo_index, strict=True)]
        rows = [[(item.path, view) for view in views for item in pair] for pair in pairs]
        self.pairs = load(rows, trainer.batch_size, shuffle=True, drop_last=True)
        whole = view_of("A0", config)
        files = ([[(item.path, whole)] for item in items] for items in (held.sketches, held.photos))
        self.sketches, self.photos = (load(rows, config.run.eval_batch) for rows in files)

    def make_views(self) -> None:
        """Loads the views of an epoch: batches of sketches, photos, second sketches, second photos."""
        for batch in self.pairs:
            [view.to(self.device) for view in batch]

    def step(self, plan: Epoch, step: int) -> dict[str, Tensor]:
        """A step of the optimiser on the views that the kit's plan gives it; returns its loss terms."""
        batch = plan.batch(plan.rows(step, self.trainer.batch_size), self.device)
        self.optimizer.zero_grad()
        terms = self.model.train().compare(four_passes(self.model, batch), batch)
        terms["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.trainer.config.optim.clip)
        self.optimizer.step()
        self.schedule.step()
        return terms

    @torch.no_grad()
    def evaluate(self) -> Scores:
        """The scores of the photos held out."""
        self.model.eval()
        ways = (self.model.embed_sketches, self.sketches), (self.model.embed_photos, self.photos)
        rows = [torch.cat([embed(x.to(self.device)).cpu() for (x,) in files]) for embed, files in ways]
        return score((rows[0] @ rows[1].T).numpy(), self.trainer.held_out.photo_index.numpy())
