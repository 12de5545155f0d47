"""What trainer, scorer, galleries and panels know of a method."""

from __future__ import annotations

import hashlib

from torch import nn

from sbirlib.layers.mstr import MSTR


def fingerprint(module: nn.Module) -> str:
    """SHA-256, in hexadecimal, of every weight of `module`, in the order of its state dict.

    Transformers that a MSTR hides from torch come last.
    """
    digest = hashlib.sha256()
    hidden = [
        transformer
        for part in module.modules()
        if isinstance(part, MSTR) and isinstance(part.transformers, list)
        for transformer in part.transformers
    ]
    for part in (module, *hidden):
        for weight in part.state_dict().values():
            digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
