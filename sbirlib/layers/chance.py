"""Whose turn it is to draw from torch's generator, which dropout and new weights share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_TURN = threading.RLock()


@contextmanager
def drawing(*key: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Lets one thread at a time draw, such as of two trainings side by side.

    What is drawn on the CPU and on `device` depends on the `key` alone, and whatever is drawn afterwards goes
    on as if nothing had been.
    """
    place = torch.device(device).type
    with _TURN, torch.random.fork_rng([] if place == "cpu" else [device], device_type=place):
        # A single number is a seed as it is, so that `torch.manual_seed` gives the same.
        seed = key[0] if len(key) == 1 else int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(seed)
        if place != "cpu":
            getattr(torch, place).manual_seed(seed)
        yield
