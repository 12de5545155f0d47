"""A batch made by hand, for tests of methods."""

import torch

from sbirlib.data.batches import DRAWS, Batch, Epoch


def batch_of(views, photo_ids=None, seed=0):
    """Views (4, b, 3, s, s): sketch, its second view, photo, its second view; by default a photo each."""
    sketch, sketch_second, photo, photo_second = views
    count = len(sketch)
    numbers = torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(seed))
    ids = torch.arange(count) if photo_ids is None else torch.as_tensor(photo_ids)
    rows = torch.arange(count)
    views = sketch, photo, sketch_second, photo_second, sketch_second
    return Batch(ids, numbers, torch.zeros_like(ids), rows, *views, designers=rows // 2)


def epoch_batches(data, config, *, seed, epoch, batch_size, device):
    """All batches of an epoch, as training takes them."""
    plan, batch_size = Epoch(data, config, seed=seed, epoch=epoch), min(batch_size, len(data.sketches))
    steps = range(len(data.sketches) // batch_size)
    return [plan.batch(plan.rows(step, batch_size), device) for step in steps]


def images(*shape, seed=0):
    """Random pictures (..., 3, s, s) in [0, 1]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def loss_of(model, batch):
    """What a method minimises for a batch, from the pictures to the scalar."""
    return model.compare(model.encode(batch), batch)["total"]
