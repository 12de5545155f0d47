"""Saving and loading a trained model; a frozen backbone as a baseline."""

from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sbirlib.config.config import Config, ModelConfig, released_options
from sbirlib.errors import ConfigError
from sbirlib.layers.chance import drawing
from sbirlib.layers.weights import BackboneError, pretrained_config
from sbirlib.layers.weights import read_weights as read_tensors
from sbirlib.methods import Method, build
from sbirlib.runs.atomic import RunError, replacing
from sbirlib.runs.records import CONFIG, WEIGHTS


def save_model_folder(folder: str | Path, model: Method, config: Config, *, queries: int = 0) -> None:
    """Writes `model.safetensors` and `config.yaml`.

    `queries` is the number of sketches that chose these weights, if any did. An older folder is replaced only
    once both are on the disk. Raises RunError if they cannot be written; the older folder then stays.
    """
    with replacing(folder) as fresh:
        write_weights(fresh / WEIGHTS, model, queries=str(queries))
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
    if queries is None:
        advice = "write it with save_model_folder, or train again"
        raise RunError(f"{folder / WEIGHTS} does not say how its weights were chosen; {advice}")
    model.config, model.origin = config, f"checkpoint {_chosen_by(config, int(queries))}"
    return model.eval()


def write_weights(path: Path, model: nn.Module, **notes: str) -> None:
    """All weights of `model`, each once under its first name, and `notes`. Raises OSError."""
    weights = {min(names): weight.detach().contiguous() for weight, names in _weights(model)}
    try:
        save_file(weights, path, metadata=notes)
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


def _chosen_by(config: Config, queries: int) -> str:
    """How weights were chosen, if so, and the options of the released code they were trained with."""
    if not queries:
        choice = "of the last epoch"
    elif config.run.protocol == "released":
        choice = "CHOSEN ON THE TEST SET (run.protocol released): its test score is too good"
    else:
        share = f"{100 * config.data.val_fraction:g} % of the training photos"
        choice = f"chosen on {queries} sketches of {share}, held out"
    ways = {"from_photos": "without a real sketch", "both": "also on sketches made of photos"}
    if way := ways.get(config.data.sketches):
        choice = f"trained {way}, {choice}"
    released = ", ".join(name for name in released_options(config) if name != "run.protocol")
    return choice + (f"; as in the released code: {released}" if released else "")
