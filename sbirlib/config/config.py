"""Every hyper-parameter of the kit, once: command line, panels, YAML files and tables come from here."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import Field

from sbirlib.config import methods
from sbirlib.config.fields import Knob, group, knob, limits_of
from sbirlib.config.files import read_yaml
from sbirlib.errors import ConfigError, brief

_FILE = yaml.safe_load(Path(__file__).with_name("presets.yaml").read_text(encoding="utf-8"))
PRESETS: dict[str, dict[str, dict[str, Any]]] = _FILE["presets"]
RELEASED: dict[str, Any] = _FILE["released"]
DEFAULTS: dict[str, dict[str, Any]] = _FILE["methods"]
Share = Annotated[float, Field(ge=0.25, le=1)]


@group
class DataConfig:
    """What is read, and which views of it the model sees."""

    root: str = knob("data/MiniClothes")
    """Folder with trainA/trainB (and testA/testB): A sketches, B photos."""
    on_fault: Literal["stop", "skip"] = knob("stop")
    """What to do about files that cannot be used: stop with their list, or leave them out and count them."""
    pattern: Literal["digits", "one_character"] = knob("digits")
    """Names of sketches: photo id and any digits; released: id, one character, .png, the rest overlooked."""
    sketches: Literal["pairs", "from_photos", "both"] = knob("pairs")
    """What is trained on: sketches of the folder, ones made from its photos (it needs no other), or both."""
    unlabelled: str = knob("")
    """Folder of further photos without a sketch, for methods that learn from such; trainB's count as well."""
    fit: Literal["pad", "stretch", "frame"] = knob("pad")
    """How an image becomes square: padded with white, stretched, or framed: cut out of a light ground."""
    val_fraction: float = knob(0.1, ge=0, le=0.5, unit="share of photos")
    """Training photos (with their sketches) held out to choose the checkpoint."""
    first_view: Literal["A0", "A1", "A2"] = knob("A0")
    """View that is matched across the domains: A0 original, A1 rotate and flip, A2 crop and jitter."""
    second_view: Literal["A0", "A1", "A2"] = knob("A1")
    """View that is matched with the first one inside each domain."""
    enlarge: float = knob(1.2, ge=1, le=2, unit="times")
    """A1: enlargement before the centre crop."""
    rotation: float = knob(30.0, ge=0, le=180, unit="degrees")
    """A1: largest rotation to either side."""
    flip: float = knob(0.8, ge=0, le=1, unit="probability")
    """A1 and A2: left-right flip."""
    crop: float = knob(0.5, gt=0, le=1, unit="share of area")
    """A2: smallest part of the image that a random resized crop keeps."""
    jitter: float = knob(0.4, ge=0, le=1)
    """A2: largest change of brightness, contrast and saturation, as a factor 1 +- jitter."""
    hue: float = knob(0.0, ge=0, le=180, unit="degrees")
    """A2: largest turn of the hue to either side; sketches have no colour, so photos need not rely on it."""
    redraw: float = knob(0.0, ge=0, le=1)
    """How far training sketches are redrawn by other hands: proportions, wobble, width of lines, gaps."""


@group
class ModelConfig:
    """The two encoders."""

    backbone: str = knob("vit_base_patch16_224")
    """Any timm model by name, sbir_mini, the kit's own small ViT, or sketch_a_net, the first papers' CNN."""
    pretrained: bool = knob(True)
    """Start from published weights: a package's, or timm's; `python -m sbirlib weights` says whose."""
    weights: str = knob("")
    """Local file (.pth, .safetensors) with weights for the backbone, instead of the published ones."""
    image_size: int = knob(224, ge=16, le=2048, unit="px")
    """Side of the square that the encoders see."""
    embed_dim: int = knob(512, ge=2, le=65536)
    """Size e of the embedding that is searched."""
    stride: int = knob(0, ge=0, le=64, unit="px")
    """Take a CNN's or Swin's feature map of this stride, without the layers after it; 0: its last one."""
    pool: Literal["cls", "mean", "own", "grid"] = knob("cls")
    """Global token: CLS, mean of patch tokens (always without CLS), backbone's own, or a grid of means."""
    cells: int = knob(3, ge=1, le=64)
    """Side of that grid: a global token of 3 x 3 means still knows what is where in the picture."""
    freeze: int = knob(0, ge=0, le=1000, unit="parts")
    """Parts of the backbone, counted from its stem, that keep their pretrained weights."""
    keep_statistics: bool = knob(False)
    """BatchNorm keeps its pretrained statistics; sketches and photos in turn make poor ones."""
    pointwise_only: bool = knob(False)
    """Depthwise convolutions and BatchNorm keep their pretrained weights: little to learn, much of a step."""
    normalise: bool = knob(True)
    """Normalise images with the backbone's mean and std; the released code does not."""
    share_encoders: bool = knob(False)
    """One encoder for sketches and photos instead of two, which begin with the same weights."""
    photo_edges: bool = knob(False)
    """Photos are seen as edge maps, which a small model from scratch can match with sketches; paper: no."""
    drop_path: float = knob(0.0, ge=0, lt=1, unit="probability")
    """Stochastic depth, for backbones that have it."""


@group
class OptimConfig:
    """How the weights are updated."""

    name: Literal["adam", "adamw"] = knob("adam")
    """Optimiser; adamw decouples the weight decay."""
    lr: float = knob(6e-6, gt=0, le=1)
    """Peak learning rate."""
    weight_decay: float = knob(1e-4, ge=0, le=1)
    """Weight decay; biases and norms are exempt under adamw."""
    batch_size: int = knob(16, ge=2, le=65536, unit="pairs")
    """Sketch-photo pairs per step and process; the other pairs of the step are the negatives."""
    chunk: int = knob(0, ge=0, le=65536, unit="pairs")
    """Pairs that the encoders see at a time, 0 for all: less memory, the same gradient (gradient caching)."""
    warmup: float = knob(0.0, ge=0, le=1000, unit="epochs")
    """Linear warm-up from zero."""
    schedule: Literal["cosine", "constant"] = knob("constant")
    """Learning rate after the warm-up."""
    clip: float = knob(1.0, gt=0, le=1e6)
    """Largest norm of the gradient; larger ones are scaled down to it."""


@group
class RunConfig:
    """How long to train, where, and what to keep."""

    epochs: int = knob(500, ge=1, le=100000)
    """Passes over the training sketches."""
    sizes: tuple[Share, ...] = knob((), unit="of image_size")
    """Sizes of the training images, each for an equal part of the epochs; none: model.image_size for all."""
    seed: int = knob(0, ge=0, le=2**31 - 1)
    """Seed of weights, data order, views and validation split."""
    device: Literal["auto", "cpu", "cuda"] = knob("auto")
    """Where to compute; auto takes what Accelerate finds."""
    precision: Literal["auto", "fp32", "bf16"] = knob("auto")
    """Number format of the forward pass; auto is bf16 on a GPU or CPU that has it, else fp32."""
    protocol: Literal["validation", "released"] = knob("validation")
    """What is searched after an epoch: held-out training photos; released: the test set."""
    keep: Literal["auto", "last", "best"] = knob("auto")
    """The epoch that the run is for; auto: the last where the learning rate ends at zero, else the best."""
    eval_every: int = knob(1, ge=1, le=100000, unit="epochs")
    """How often these photos are searched."""
    eval_batch: int = knob(128, ge=1, le=65536, unit="images")
    """Images embedded at a time when nothing is trained."""
    save_minutes: float = knob(2.0, ge=0, le=1e6, unit="minutes")
    """Longest time between two checkpoints that --resume can go on from; 0 saves one after every step."""
    tracker: Literal["tensorboard", "none"] = knob("tensorboard")
    """Where the curves go besides history.csv."""


@group
class Config:
    """All hyper-parameters of one run."""

    method: methods.MethodName = knob("arnet")
    """Which paper's method to train; `python -m sbirlib methods` describes them."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    mstr: methods.MSTRConfig = dataclasses.field(default_factory=methods.MSTRConfig)
    loss: methods.LossConfig = dataclasses.field(default_factory=methods.LossConfig)
    b_siamese: methods.BSiameseConfig = dataclasses.field(default_factory=methods.BSiameseConfig)
    triplet_sn: methods.TripletSNConfig = dataclasses.field(default_factory=methods.TripletSNConfig)
    dssa: methods.DSSAConfig = dataclasses.field(default_factory=methods.DSSAConfig)
    sketch_aa: methods.SketchAAConfig = dataclasses.field(default_factory=methods.SketchAAConfig)
    part_sbir: methods.PartSBIRConfig = dataclasses.field(default_factory=methods.PartSBIRConfig)
    eups: methods.EUPSConfig = dataclasses.field(default_factory=methods.EUPSConfig)
    on_the_fly: methods.OnTheFlyConfig = dataclasses.field(default_factory=methods.OnTheFlyConfig)
    cmhm: methods.CMHMConfig = dataclasses.field(default_factory=methods.CMHMConfig)
    style_me_up: methods.StyleMeUpConfig = dataclasses.field(default_factory=methods.StyleMeUpConfig)
    adpt_sbir: methods.AdptSBIRConfig = dataclasses.field(default_factory=methods.AdptSBIRConfig)
    nt_sbir: methods.NTSBIRConfig = dataclasses.field(default_factory=methods.NTSBIRConfig)
    semi_sup: methods.SemiSupConfig = dataclasses.field(default_factory=methods.SemiSupConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)

    @staticmethod
    def preset(name: str) -> "Config":
        """The preset `name`; ConfigError names the known ones."""
        if name not in PRESETS:
            raise ConfigError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
        return Config.from_dict(PRESETS[name])

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Config":
        """A Config from nested dicts; what is absent keeps its default. Raises ConfigError."""
        if not isinstance(values, dict):
            raise ConfigError(f"expected groups {', '.join(Config().groups)}, found {brief(values)}")
        return Config(**{str(key): value for key, value in values.items()})

    @staticmethod
    def from_yaml(path: str | Path) -> "Config":
        """Reads what `to_yaml` wrote. Raises ConfigError that names the file."""
        values = read_yaml(path)
        try:
            return Config.from_dict(values or {})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @property
    def chooses_best(self) -> bool:
        """Whether the epoch with the best search is kept, on few sketches a matter of luck, not the last."""
        ends_at_zero = self.optim.schedule == "cosine" and self.optim.warmup < self.run.epochs
        last = ends_at_zero and self.run.protocol != "released"
        return self.run.keep == "best" or (self.run.keep == "auto" and not last)

    @property
    def groups(self) -> list[str]:
        """The groups of settings that count: those of every method, and those of this one."""
        others = set(itertools.chain(*methods.GROUPS.values())) - set(methods.GROUPS[self.method])
        return [field.name for field in dataclasses.fields(self) if field.name not in {"method", *others}]

    def to_dict(self) -> dict[str, Any]:
        """The method, and its groups as nested dicts of plain values."""
        values = dataclasses.asdict(self)
        return {name: values[name] for name in ("method", *self.groups)}

    def flat(self) -> dict[str, Any]:
        """Every setting that counts, by dotted name."""
        return {knob.name: knob.default for knob in knobs(self)}

    def to_yaml(self, path: str | Path) -> None:
        """Writes the settings that count to `path`."""
        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")

    def updated(self, changes: dict[str, Any]) -> "Config":
        """A copy with dotted fields changed: `config.updated({"optim.lr": 1e-3})`. Raises ConfigError.

        Another `method` brings its own defaults with it, `DEFAULTS`, for what has still that of this one: a
        preset that pools over a grid does so for every method.
        """
        values, method = dataclasses.asdict(self), changes.get("method", self.method)
        if method != self.method and isinstance(method, str):
            here, before = self.flat(), Config().flat() | DEFAULTS[self.method]
            own = DEFAULTS.get(method, {}).items()
            changes = {name: value for name, value in own if here[name] == before[name]} | changes
        for name, value in changes.items():
            head, _, leaf = name.partition(".")
            if name == "method":
                values[name] = value
            elif head == "method" or leaf not in values.get(head, {}):
                raise ConfigError(f"unknown field {name!r}; fields: {', '.join(self.flat())}")
            else:
                values[head][leaf] = value
        return Config.from_dict(values)


def released_options(config: Config) -> list[str]:
    """The fields in which `config` follows the released code, not the paper; those of MSTR only if used."""
    values = config.flat()
    used = [name for name in RELEASED if config.mstr.enabled or not name.startswith("mstr.")]
    return [name for name in used if values.get(name) == RELEASED[name]]


def differing_settings(configs: Sequence[Config]) -> dict[str, list[Any]]:
    """The fields in which configurations differ, with the value in each; None where one does not count."""
    values = [config.flat() for config in configs]
    rows = {name: [one.get(name) for one in values] for name in dict.fromkeys(itertools.chain(*values))}
    return {name: row for name, row in rows.items() if len({repr(value) for value in row}) > 1}


def knobs(config: Config | None = None) -> Iterator[Knob]:
    """Every hyper-parameter that counts, by dotted name, with its value in `config` (or the paper's)."""
    config = config or Config()
    for head in ("", *config.groups):
        settings: Any = getattr(config, head) if head else config
        fields = type(settings).__pydantic_fields__
        for leaf in fields if head else ["method"]:
            field = fields[leaf]
            kind, unit, limits = field.annotation, field.json_schema_extra["unit"], limits_of(field)
            low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
            choices = get_args(kind) if get_origin(kind) is Literal else None
            name, value = f"{head}.{leaf}".lstrip("."), getattr(settings, leaf)
            yield Knob(name, value, kind, unit, low, high, choices, field.description)
