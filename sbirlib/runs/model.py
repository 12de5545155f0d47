"""Saving and loading a trained model; a frozen backbone as a baseline; checkpoints of the released code."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sbirlib.config.config import RELEASED, Config, ModelConfig, released_options
from sbirlib.errors import ConfigError
from sbirlib.layers.chance import drawing
from sbirlib.layers.weights import BackboneError, pretrained_config
from sbirlib.layers.weights import read_weights as read_tensors
from sbirlib.methods import ARNet, Method, build
from sbirlib.runs.atomic import RunError, replacing

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"
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


def save_model_folder(folder: str | Path, model: Method, config: Config, *, queries: int = 0) -> None:
    """Writes `model.safetensors`, which also holds the configuration, and `config.yaml`.

    `queries` is the number of sketches that chose these weights, if any did. An older folder is replaced only
    once both are on the disk. Raises RunError if they cannot be written;
    the older folder then stays as it is.
    """
    with replacing(folder) as fresh:
        write_weights(fresh / WEIGHTS, model, config, queries=str(queries))
        config.to_yaml(fresh / CONFIG)


def load_model_folder(folder: Path) -> Method:
    """The model that `save_model_folder` wrote, in eval mode on the CPU; `model.config` is its Config.

    Raises RunError if its weights are damaged or of another model.
    """
    try:
        config = Config.from_yaml(folder / CONFIG)
        model = build(config, fetch=False)
    except ConfigError as error:
        raise RunError(str(error)) from None
    read_weights(folder / WEIGHTS, model)
    with safe_open(folder / WEIGHTS, "pt") as file:
        queries = (file.metadata() or {}).get("queries")
    # Older versions did not note it: there the folder's name has to do.
    chosen = folder.resolve().name != "last" if queries is None else queries != "0"
    model.config, model.origin = config, f"checkpoint {_chosen_by(config, chosen, int(queries or 0))}"
    return model.eval()


def write_weights(path: Path, model: nn.Module, config: Config, **notes: str) -> None:
    """All weights of `model`, each once under its first name, configuration and `notes`. Raises OSError."""
    weights = {min(names): weight.detach().contiguous() for weight, names in _weights(model)}
    try:
        save_file(weights, path, metadata={"config": config.as_yaml(), **notes})
    except SafetensorError as error:
        # Its only word of a full or broken disk: "I/O error", or "IoError" in older versions.
        if "ioerror" in str(error).lower().replace("/", "").replace(" ", ""):
            raise OSError(str(error)) from error
        raise


def read_weights(path: Path, model: nn.Module) -> None:
    """Puts what `write_weights` wrote into `model`. Raises RunError if it is damaged or of another model."""
    try:
        found = read_tensors(path)
    except BackboneError as error:
        raise RunError(str(error)) from error
    for _, names in _weights(model):
        for present in found.keys() & names:
            found |= dict.fromkeys(names, found[present])
    try:
        model.load_state_dict(found)
    except RuntimeError as error:
        raise RunError(f"{path} cannot be loaded; {CONFIG} beside it is of another model") from error


def _weights(model: nn.Module) -> list[tuple[Tensor, set[str]]]:
    """Every parameter and buffer with all its names: a shared encoder gives two to each."""
    found: dict[int, tuple[Tensor, set[str]]] = {}
    for name, weight in model.state_dict(keep_vars=True).items():
        found.setdefault(id(weight), (weight, set()))[1].add(name)
    return list(found.values())


def load_frozen(backbone: str, *, weights: str | Path = "") -> Method:
    """A timm backbone as it is, for sketches and photos alike, without any training: a baseline.

    It sees images at the backbone's own size; the global token is what the model itself pools to. `weights`
    is a local file, instead of the published ones. Raises BackboneError.
    """
    size = pretrained_config(backbone).input_size[-1]
    model = ModelConfig(backbone=backbone, image_size=size, pool="own", weights=str(weights))
    return frozen(Config(model=model))


def frozen(config: Config) -> Method:
    """The backbone of `config` with its pool and image size, without any training or embedding layer.

    From scratch, its weights are drawn from the run's seed. Raises BackboneError.
    """
    options = asdict(config.model) | {"share_encoders": True, "fit": config.data.fit}
    backbone, _ = options.pop("backbone"), options.pop("embed_dim")
    with drawing(config.run.seed):
        model = Method(backbone, **options)
    model.origin = f"backbone {backbone}, frozen, {model.photo_encoder.backbone.source}: nothing was trained"
    return model.eval()


def _chosen_by(config: Config, chosen: bool, queries: int) -> str:
    """How weights were chosen, if so, and the options of the released code they were trained with."""
    on_test, share = config.run.protocol == "released", config.data.val_fraction
    if not chosen or not (on_test or share):
        choice = "of the last epoch"
    elif on_test:
        choice = "CHOSEN ON THE TEST SET (run.protocol released): its test score is too good"
    else:
        sketches = f"{queries} sketches of " if queries else ""
        choice = f"chosen on {sketches}{100 * share:g} % of the training photos, held out"
    ways = {"from_photos": "without a real sketch", "both": "also on sketches made of photos"}
    if way := ways.get(config.data.sketches):
        choice = f"trained {way}, {choice}"
    released = ", ".join(name for name in released_options(config) if name != "run.protocol")
    return choice + (f"; as in the released code: {released}" if released else "")


def load_released(path: str | Path) -> ARNet:
    """The model of a checkpoint in the released layout, in eval mode on the CPU.

    ViT-B/16 at 224 px with e = 512, fed as released: images in [0, 1] without normalisation, stretched to the
    square. A checkpoint of the full model lacks the MSTR transformers, which were never saved; the released
    evaluation silently draws random ones, here that is an error. Raises RunError that names what it lacks;
    BackboneError if the file cannot be read. Source: released code.
    """
    path = Path(path)
    states = _read_released(path)
    names = [name for state in states.values() for name in state]
    is_full = any(name.startswith("recycle_model.") for name in names)
    if is_full and not any(name.startswith(_TRANSFORMERS) for name in names):
        raise RunError(
            f"{path} is a full model, but lacks the MSTR transformers ({_TRANSFORMERS}*): the released code "
            "never saves them, and draws random ones at each start, so that its score changes every time; "
            "take a checkpoint of the basic model"
        )
    mstr = _RELEASED_MSTR | {"registered": True} if is_full else None
    model = ARNet("vit_base_patch16_224", fit="stretch", normalise=False, mstr=mstr)
    for side, encoder in (("skt_model", model.sketch_encoder), ("img_model", model.photo_encoder)):
        try:
            encoder.load_state_dict(_our_names(states[side]))
        except RuntimeError as error:
            what = str(error).splitlines()[1].strip()[:200]  # the first line says that something is wrong
            reason = f"is no ViT-B/16 with e = 512 in the released layout ({what})"
            raise RunError(f"{path}: {side} {reason}") from None
    full = "; MSTR as released, attention over the batch" if is_full else ""
    model.origin = f"released checkpoint {path.name}{full}"
    return model.eval()


def _read_released(path: Path) -> dict[str, dict[str, Tensor]]:
    """The two state dicts of a released checkpoint; nothing in it is executed."""
    checkpoint: dict[str, Any] = read_tensors(path)
    sides = ("skt_model", "img_model")
    if not all(isinstance(checkpoint.get(side), dict) for side in sides):
        reason = f"it needs img_model and skt_model, found {', '.join(map(str, checkpoint))[:200]}"
        raise RunError(f"{path}: is not in the released layout: {reason}")
    for side in sides:
        content = checkpoint[side].items()
        if not all(isinstance(name, str) and torch.is_tensor(value) for name, value in content):
            raise RunError(f"{path}: {side} holds something else than named tensors")
    return {side: checkpoint[side] for side in sides}


def _our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    result = {}
    for name, tensor in state.items():
        theirs = next((start for start in _RELEASED_NAMES if name.startswith(start)), "")
        ours = _RELEASED_NAMES.get(theirs, "")
        if ours is not None:
            result[ours + name.removeprefix(theirs)] = tensor
    return result
