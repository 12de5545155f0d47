"""Save and load a trained model."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from sbirlib.arnet import ARNet
from sbirlib.config import Config, ConfigError, InputError, released_options

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"


class RunError(InputError):
    """A run folder that cannot be used; the message names it and says what to do."""


def save_model_folder(folder: str | Path, model: ARNet, config: Config) -> None:
    """Writes `model.safetensors` and `config.yaml`; an older folder is replaced only once both are there."""
    folder = Path(folder)
    fresh, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_model(model, str(fresh / WEIGHTS))
    config.to_yaml(fresh / CONFIG)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_run(run: str | Path, which: str = "best") -> ARNet:
    """The trained model of a run folder, in eval mode on the CPU; `model.config` is its Config.

    `which` is "best" (highest validation score) or "last". `run` may also be such a folder itself.
    Raises RunError if it is not a run, or if its weights are damaged or of another model.
    """
    run = Path(run)
    folder = run if (run / WEIGHTS).is_file() else run / which
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


def fingerprint(module: nn.Module) -> str:
    """SHA-256, in hexadecimal, of every weight of `module`, in the order of its state dict."""
    digest = hashlib.sha256()
    for weight in module.state_dict().values():
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
