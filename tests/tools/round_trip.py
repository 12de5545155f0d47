"""A run that is stopped between two steps, and what a model makes of pictures, to be compared."""

from typing import NamedTuple

import torch

from sbirlib import Gallery, evaluate, train
from sbirlib.training.signals import Stop
from sbirlib.training.trainer import Trainer


def trained(monkeypatch, pairs, config, out, *, stop_after=None, **options):
    """Trains, if asked to only so many steps; the records, and the model as it is in memory."""
    trainers, stop, step = [], Stop(), Trainer.step

    def watched(trainer, plan, number):
        step(trainer, plan, number)
        trainers.append(trainer)
        if len(trainers) == stop_after:
            stop.ask(now=True)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", watched)
        records = list(train(pairs, config, out=out, stop=stop, **options))
    return records, trainers[-1].method.eval()


class View(NamedTuple):
    """What a model makes of pictures: rows, the rank of every query, the photos that a search finds."""

    rows: torch.Tensor
    ranks: list[int]
    found: list[str]


def view(model, pairs, gallery):
    """All of it by a model, in a gallery that may be another's."""
    pictures = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows = torch.cat([model.embed_sketches(pictures).flatten(), model.embed_photos(pictures).flatten()])
    if not gallery.exists():
        Gallery.from_folder(model, pairs.root / "testB").save(gallery)
    hits = Gallery.load(gallery, model).search(pairs.split("test").sketches[0].path, k=4)
    return View(rows, evaluate(model, pairs).ranks.tolist(), [hit.path.name for hit in hits])


def assert_alike(one, other):
    torch.testing.assert_close(one.rows, other.rows, rtol=0, atol=1e-6)
    assert one[1:] == other[1:]
