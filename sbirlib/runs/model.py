"""Saving and loading a trained model; a frozen backbone as a baseline."""

from __future__ import annotations

from pathlib import Path

import timm
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from sbirlib.config.config import Config, released_options
from sbirlib.errors import ConfigError
from sbirlib.layers.backbone import pretrained_config
from sbirlib.methods import build
from sbirlib.methods.base import Encoder, Method
from sbirlib.runs.atomic import RunError, replacing

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"


def save_model_folder(folder: str | Path, model: Method, config: Config) -> None:
    """Writes `model.safetensors`, which also holds the configuration, and `config.yaml`.

    An older folder is replaced only once both are on the disk; it stays as it is if they cannot be
    written, and RunError says so.
    """
    with replacing(folder) as fresh:
        save_model(model, str(fresh / WEIGHTS), metadata={"config": config.as_yaml()})
        config.to_yaml(fresh / CONFIG)


def load_model_folder(folder: Path) -> Method:
    """The model that `save_model_folder` wrote, in eval mode on the CPU; `model.config` is its Config.

    Raises RunError if its weights are damaged or of another model.
    """
    try:
        config = Config.from_yaml(folder / CONFIG)
        # The file holds every weight, so nothing need be fetched for the backbone.
        model = build(config.updated({"model.pretrained": False, "model.weights": ""}))
        load_model(model, str(folder / WEIGHTS))
    except ConfigError as error:
        raise RunError(str(error)) from None
    except (SafetensorError, RuntimeError) as error:
        raise RunError(
            f"{folder / WEIGHTS} cannot be loaded ({str(error).splitlines()[0]}); it is damaged, or {CONFIG} "
            "beside it is of another model"
        ) from error
    model.config, model.origin = config, f"checkpoint {_chosen_by(config, folder.name)}"
    return model.eval()


def load_frozen(backbone: str, *, weights: str | Path = "") -> Method:
    """A timm backbone as it is, for sketches and photos alike, without any training: a baseline.

    Images are fed at the backbone's own size, the global token is what the model itself pools to.
    `weights` is a local file, instead of the published ones. Raises BackboneError.
    """
    # For an unknown name the backbone has the better message.
    size = pretrained_config(backbone).input_size[-1] if timm.is_model(backbone) else 224
    model = Method(
        lambda trunk: Encoder(trunk, nn.Identity()),
        backbone,
        image_size=size,
        pool="own",
        pretrained=True,
        weights=weights,
        share_encoders=True,
    )
    model.origin = f"backbone {backbone}, frozen, {model.photo_encoder.backbone.source}: nothing was trained"
    return model.eval()


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
