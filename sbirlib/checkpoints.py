"""Save and load a trained model; read released checkpoints and frozen backbones."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from sbirlib.arnet import ARNet
from sbirlib.backbones import pretrained_config
from sbirlib.config import RELEASED, Config, released_options
from sbirlib.fields import ConfigError, InputError, first_line
from sbirlib.mstr import MSTR

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"

# Names of the released layout and ours; the classifier of the pretrained ViT is carried along there unused.
_RELEASED_NAMES = {"encoder.head.": None, "encoder.": "backbone.encoder.", "mlp_head.0.": "embed.",
                   "recycle_model.fc.": "mstr.mix.", "recycle_model.transformer_models.": "mstr.transformers."}
_RELEASED_MSTR = {name.partition(".")[2]: value for name, value in RELEASED.items() if name.startswith("mstr.")}


class RunError(InputError):
    """A run folder that cannot be used; the message names it and says what to do."""


def save_model_folder(folder: str | Path, model: ARNet, config: Config) -> None:
    """Writes `model.safetensors`, which also holds the configuration, and `config.yaml`.

    An older folder is replaced only once both are on the disk; it stays as it is if they cannot be
    written, and RunError says so.
    """
    with replacing(folder) as fresh:
        save_model(model, str(fresh / WEIGHTS), metadata={"config": config.as_yaml()})
        config.to_yaml(fresh / CONFIG)


@contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """A new folder to write into that takes the place of `folder` once everything in it is on the disk.

    Whatever interrupts this, `settled(folder)` is the old one or the new one, whole. Raises RunError if
    the disk refuses.
    """
    folder = settled(folder)
    fresh, old = folder.with_name(f".{folder.name}.new"), _old(folder)
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        yield fresh
        for path in (*fresh.iterdir(), fresh):
            _sync(path)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        _sync(folder.parent)
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch and safetensors each have an error of their own for a disk that is full.
        shutil.rmtree(fresh, ignore_errors=True)
        raise RunError(f"{folder} cannot be written ({first_line(error)}); what was saved before is kept. Free some "
                       "space or mend the disk, then go on with resume (--resume)") from error
    shutil.rmtree(old, ignore_errors=True)


def settled(folder: str | Path) -> Path:
    """`folder`, brought back where a process was killed between the two renamings that replace it."""
    folder = Path(folder)
    if not folder.exists() and _old(folder).exists():
        _old(folder).rename(folder)
    return folder


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk, so that a power cut after the renaming finds it whole."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no such thing for a folder
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_run(run: str | Path, which: str = "best") -> ARNet:
    """The trained model of a run folder, in eval mode on the CPU; `model.config` is its Config.

    `which` is "best" (highest validation score) or "last". `run` may also be such a folder itself.
    Raises RunError if it is not a run, or if its weights are damaged or of another model.
    """
    run = Path(run)
    folder = run if (run / WEIGHTS).is_file() else settled(run / which)
    missing = [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]
    if missing:
        reason = "no such folder" if not run.exists() else f"{which}/ has no {' and no '.join(missing)}"
        raise RunError(f"{run} is not a run: {reason}; `python -m sbirlib train --out {run}` makes one")
    try:
        config = Config.from_yaml(folder / CONFIG)
        # The file holds every weight, so nothing need be fetched for the backbone.
        model = ARNet.from_config(config.updated({"model.pretrained": False, "model.weights": ""}))
        load_model(model, str(folder / WEIGHTS))
    except ConfigError as error:
        raise RunError(str(error)) from None
    except (SafetensorError, RuntimeError) as error:
        raise RunError(f"{folder / WEIGHTS} cannot be loaded ({str(error).splitlines()[0]}); "
                       "it is damaged, or config.yaml beside it is of another model") from error
    model.config, model.origin = config, f"checkpoint {_chosen_by(config, folder.name)}"
    return model.eval()


def load_released(path: str | Path, *, transformers: Literal["refuse", "random"] = "refuse") -> ARNet:
    """The model of a checkpoint in the released layout, in eval mode on the CPU.

    ViT-B/16 at 224 px with e = 512, fed as released: [0, 1] images as they are, others stretched to the
    square. A checkpoint of the full model lacks the MSTR transformers, which were never saved: it is
    refused, unless `transformers="random"` draws new ones from torch's generator, as the released
    evaluation does without saying so. Raises RunError that names the file, and which tensors it lacks.
    Source: released code.
    """
    path = Path(path)
    states = _read_released(path)
    is_full = any(name.startswith("recycle_model.") for state in states.values() for name in state)
    lacking = _lacking_transformers(states) if is_full else []
    if lacking and transformers == "refuse":
        raise RunError(
            f"{path} is a full model, but lacks {len(lacking)} tensors, the MSTR transformers ({lacking[0]} ... "
            f"{lacking[-1]}): the released code never saves them. With random ones, as it draws them at each start, "
            "the score is another each time; ask for that with --released-transformers random")
    mstr = _RELEASED_MSTR | {"registered": not lacking} if is_full else None
    model = ARNet("vit_base_patch16_224", fit="stretch", normalise=False, mstr=mstr)
    for side, encoder in (("skt_model", model.sketch_encoder), ("img_model", model.photo_encoder)):
        try:
            missing, unexpected = encoder.load_state_dict(_our_names(states[side]), strict=False)
        except RuntimeError as error:
            raise RunError(f"{path}: {side} has other shapes than ViT-B/16 with 512 dimensions "
                           f"({str(error).splitlines()[-1].strip()})") from None
        if missing or unexpected:
            raise RunError(f"{path}: {side} is no ViT-B/16 in the released layout: {len(missing)} tensors are missing "
                           f"({', '.join(missing[:3])}), {len(unexpected)} are unknown ({', '.join(unexpected[:3])})")
    model.origin = f"released checkpoint {path.name}" + (
        "; MSTR as released, attention over the batch" if is_full else "") + (
        ", transformers random and dropout on" if lacking else "")
    return model.eval()


def load_frozen(backbone: str, *, weights: str | Path = "") -> ARNet:
    """A timm backbone as it is, for sketches and photos alike, without any training: a baseline.

    Images are fed at the backbone's own size, the global token is what the model itself pools to.
    `weights` is a local file, instead of the published ones. Raises BackboneError. Source: ours.
    """
    # For an unknown name the backbone has the better message.
    size = pretrained_config(backbone).input_size[-1] if timm.is_model(backbone) else 224
    model = ARNet(backbone, image_size=size, embed_dim=None, pool="own", pretrained=True, weights=weights,
                  share_encoders=True)
    model.origin = f"backbone {backbone}, frozen, {model.photo_encoder.backbone.source}: nothing was trained"
    return model.eval()


def fingerprint(module: nn.Module) -> str:
    """SHA-256, in hexadecimal, of every weight of `module`, in the order of its state dict.

    Transformers that a MSTR hides from torch come last.
    """
    digest = hashlib.sha256()
    hidden = [transformer for part in module.modules() if isinstance(part, MSTR) and isinstance(part.transformers, list)
              for transformer in part.transformers]
    for part in (module, *hidden):
        for weight in part.state_dict().values():
            digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _chosen_by(config: Config, which: str) -> str:
    """How the weights of `which` came to be chosen, and what of the released code they were trained with."""
    if which == "last":
        choice = "of the last epoch"
    elif config.run.protocol == "released":
        choice = "CHOSEN ON THE TEST SET (run.protocol released): its test score is too good"
    elif not config.data.val_fraction:
        choice = "of the last epoch"
    else:
        choice = f"chosen on {100 * config.data.val_fraction:g} % of the training photos, held out"
    released = ", ".join(name for name in released_options(config) if name != "run.protocol")
    return choice + (f"; as in the released code: {released}" if released else "")


def _read_released(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The two state dicts of a released checkpoint; nothing in it is executed."""
    try:
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except Exception as error:  # what reads a pickle raises almost anything over a damaged one
        raise RunError(f"{path}: is not a checkpoint of tensors ({first_line(error)}); it is damaged or holds "
                       "something else") from None
    sides = ("skt_model", "img_model")
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(side), dict) for side in sides):
        found = ", ".join(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise RunError(f"{path}: is not in the released layout: it needs img_model and skt_model, found {found[:200]}")
    for side in sides:
        if not all(isinstance(name, str) and torch.is_tensor(value) for name, value in checkpoint[side].items()):
            raise RunError(f"{path}: {side} holds something else than named tensors")
    return {side: checkpoint[side] for side in sides}


def _lacking_transformers(states: dict[str, dict[str, torch.Tensor]]) -> list[str]:
    """The names of the MSTR transformers' tensors that either side of a full checkpoint is without."""
    with torch.device("meta"):  # names only, no memory
        names = MSTR(768, (14, 14)).transformers.state_dict()
    return [f"{side}.recycle_model.transformer_models.{name}" for side, state in states.items() for name in names
            if f"recycle_model.transformer_models.{name}" not in state]


def _our_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    result = {}
    for name, tensor in state.items():
        theirs = next((start for start in _RELEASED_NAMES if name.startswith(start)), "")
        ours = _RELEASED_NAMES.get(theirs, "")
        if ours is not None:
            result[ours + name.removeprefix(theirs)] = tensor
    return result
