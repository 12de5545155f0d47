"""Saving and loading a trained model; a frozen backbone as a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from sbirlib.config.config import Config, released_options
from sbirlib.errors import ConfigError
from sbirlib.layers.backbone import pretrained_config
from sbirlib.methods.base import Encoder, Method
from sbirlib.methods.catalogue import build
from sbirlib.runs.atomic import RunError, replacing

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"


def save_model_folder(folder: str | Path, model: Method, config: Config) -> None:
    """Writes `model.safetensors`, which also holds the configuration, and `config.yaml`.

    An older folder is replaced only once both are on the disk. Raises RunError if they cannot be written;
    the older folder then stays as it is.
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
        # The file holds every weight, so the backbone's need not be fetched.
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

    It sees images at the backbone's own size; the global token is what the model itself pools to. `weights`
    is a local file, instead of the published ones. Raises BackboneError.
    """
    # For an unknown name the backbone has the better message.
    size = pretrained_config(backbone).input_size[-1] if timm.is_model(backbone) else 224
    options: dict[str, Any] = {"image_size": size, "pool": "own", "pretrained": True, "weights": weights}
    model = Method(lambda trunk: Encoder(trunk, nn.Identity()), backbone, share_encoders=True, **options)
    model.origin = f"backbone {backbone}, frozen, {model.photo_encoder.backbone.source}: nothing was trained"
    return model.eval()


def _chosen_by(config: Config, which: str) -> str:
    """How the weights of `which` were chosen, and the options of the released code they were trained with."""
    on_test, share = config.run.protocol == "released", config.data.val_fraction
    if which == "last" or not (on_test or share):
        choice = "of the last epoch"
    elif on_test:
        choice = "CHOSEN ON THE TEST SET (run.protocol released): its test score is too good"
    else:
        choice = f"chosen on {100 * share:g} % of the training photos, held out"
    released = ", ".join(name for name in released_options(config) if name != "run.protocol")
    return choice + (f"; as in the released code: {released}" if released else "")
