"""Checkpoints in the layout of the paper's released code."""

from pathlib import Path
from typing import Any, Literal

import torch

from sbirlib.config.config import RELEASED
from sbirlib.layers.weights import read_weights
from sbirlib.methods.arnet import ARNet
from sbirlib.runs.atomic import RunError

_TRANSFORMERS = "recycle_model.transformer_models."
# Names in the released layout and here; the classifier of the pretrained ViT is saved there, but unused.
_RELEASED_NAMES = {
    "encoder.head.": None,
    "encoder.": "backbone.encoder.",
    "mlp_head.0.": "embed.",
    "recycle_model.fc.": "mstr.mix.",
    _TRANSFORMERS: "mstr.transformers.",
}
_RELEASED_MSTR = {name[5:]: value for name, value in RELEASED.items() if name.startswith("mstr.")}


def load_released(path: str | Path, *, transformers: Literal["refuse", "random"] = "refuse") -> ARNet:
    """The model of a checkpoint in the released layout, in eval mode on the CPU.

    ViT-B/16 at 224 px with e = 512, fed as released: images in [0, 1] without normalisation, stretched to the
    square. A checkpoint of the full model lacks the MSTR transformers, which were never saved: that is an
    error, unless `transformers="random"` draws new ones from torch's generator, as the released evaluation
    silently does. Raises RunError that names what it lacks; BackboneError if the file cannot be read.
    Source: released code.
    """
    path = Path(path)
    states = _read_released(path)
    names = [name for state in states.values() for name in state]
    is_full = any(name.startswith("recycle_model.") for name in names)
    is_lacking = is_full and not any(name.startswith(_TRANSFORMERS) for name in names)
    if is_lacking and transformers == "refuse":
        raise RunError(
            f"{path} is a full model, but lacks the MSTR transformers ({_TRANSFORMERS}*): the released code "
            "never saves them. It draws random ones at each start, so that its score changes every time; for "
            "the same, --released-transformers random"
        )
    mstr = _RELEASED_MSTR | {"registered": not is_lacking} if is_full else None
    model = ARNet("vit_base_patch16_224", fit="stretch", normalise=False, mstr=mstr)
    for side, encoder in (("skt_model", model.sketch_encoder), ("img_model", model.photo_encoder)):
        try:
            encoder.load_state_dict(_our_names(states[side]))
        except RuntimeError as error:
            what = str(error).splitlines()[1].strip()[:200]  # the first line says that something is wrong
            reason = f"is no ViT-B/16 with e = 512 in the released layout ({what})"
            raise RunError(f"{path}: {side} {reason}") from None
    full = "; MSTR as released, attention over the batch" if is_full else ""
    drawn = ", transformers random and dropout on" if is_lacking else ""
    model.origin = f"released checkpoint {path.name}{full}{drawn}"
    return model.eval()


def _read_released(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The two state dicts of a released checkpoint; nothing in it is executed."""
    checkpoint: dict[str, Any] = read_weights(path)
    sides = ("skt_model", "img_model")
    if not all(isinstance(checkpoint.get(side), dict) for side in sides):
        reason = f"it needs img_model and skt_model, found {', '.join(map(str, checkpoint))[:200]}"
        raise RunError(f"{path}: is not in the released layout: {reason}")
    for side in sides:
        content = checkpoint[side].items()
        if not all(isinstance(name, str) and torch.is_tensor(value) for name, value in content):
            raise RunError(f"{path}: {side} holds something else than named tensors")
    return {side: checkpoint[side] for side in sides}


def _our_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    result = {}
    for name, tensor in state.items():
        theirs = next((start for start in _RELEASED_NAMES if name.startswith(start)), "")
        ours = _RELEASED_NAMES.get(theirs, "")
        if ours is not None:
            result[ours + name.removeprefix(theirs)] = tensor
    return result
