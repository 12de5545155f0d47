"""The variants of an ablation: ready-made grids, and combinations of one's own."""

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import yaml

from sbirlib.config.config import RELEASED, Config
from sbirlib.errors import ConfigError

GridName = Literal["methods", "losses", "views", "mstr", "released"]
GRIDS = get_args(GridName)


class Variant(NamedTuple):
    """A name and the dotted fields that it changes; without `trained`, the backbone as it is: one row."""

    name: str
    changes: dict[str, Any]
    trained: bool = True


def grid(name: str, base: Config) -> list[Variant]:
    """The variants of a ready-made grid; the first, ARNet's, is what the others are compared with.

    `methods`: every method with its own defaults, and two baselines, as `_methods` says. The others vary
    ARNet. `losses`: each term off; `views`: one and two views as in the paper's figure; `mstr`: recycling
    off, its scales, share, loss and similarity; `released`: each way of the released code alone, but for its
    file pattern, which changes the queries. Raises ConfigError for another name or method, or where `base`
    does not use what the grid is about.
    """
    if name not in GRIDS:
        raise ConfigError(f"unknown grid {name!r}; known: {', '.join(GRIDS)}")
    if base.method != "arnet":
        own = "its settings are those of arnet; leave --method out"
        raise ConfigError(f"grid {name!r} does not fit method {base.method}: {own}, or use --vary")
    if name == "methods":
        return _methods(base)
    if name in ("mstr", "released") and not base.mstr.enabled:
        raise ConfigError(f"grid {name!r} needs token recycling: use preset mini_full or full")
    tables = yaml.safe_load(Path(__file__).with_name("grids.yaml").read_text(encoding="utf-8"))
    variants: dict[str, dict[str, Any]] = tables.get(name, {})
    if name == "losses" and not base.mstr.enabled:
        variants = {title: changes for title, changes in variants.items() if "recyc" not in title}
    elif name == "mstr":
        variants.pop(f"weight {base.mstr.weight}", None)
    elif name == "released":
        options = {field: value for field, value in RELEASED.items() if field != "data.pattern"}
        variants = {"default": {}} | {field: {field: value} for field, value in options.items()}
        variants["all of these"] = options
    return [Variant(*variant) for variant in variants.items()]


def _methods(base: Config) -> list[Variant]:
    """ARNet as `base` has it, the other methods with their own defaults, a plain triplet, frozen features.

    Backbone, image size, embedding size, data and optimiser are those of `base`. Each is trained for as many
    epochs as let about as many pictures through the encoders as ARNet's do. The plain triplet keeps the pool
    and the sharing of encoders of `base`, unless B-Siamese does. Frozen features are the backbone's own. What
    the folder has not enough for, such as strokes, or `base` refuses, is left out with a warning.
    """
    # Torch takes seconds to import, and who only asks what grids there are does not need it.
    from sbirlib.data import training_folder
    from sbirlib.methods import METHODS, build

    pairs = training_folder(base.data.root, base.data.pattern, base.data.sketches)
    plain = {f"model.{field}": getattr(base.model, field) for field in ("pool", "share_encoders")}
    chosen: dict[str, dict[str, Any]] = {name: {"method": name} for name in METHODS}
    chosen["plain triplet"] = {"method": "b_siamese"} | plain
    if base.updated(chosen["plain triplet"]) == base.updated(chosen["b_siamese"]):
        del chosen["plain triplet"]  # B-Siamese is one, where all methods pool and share as `base` does
    pictures = base.run.epochs * build(base, fetch=False).passes
    for name, changes in list(chosen.items()):
        needs = METHODS[changes["method"]].needs
        if needs.edges:
            # Edge maps of edge maps would show every line twice.
            changes["model.photo_edges"] = not pairs.edge_maps
        config = base.updated(changes)
        model = build(config, fetch=False)
        what = needs.lacking(pairs, config)
        if base.optim.chunk and model.indivisible:
            what = f"whole batches, optim.chunk 0: {model.indivisible}"
        if what:
            warnings.warn(f"{name} is left out: it needs {what}", stacklevel=3)
            del chosen[name]
            continue
        changes["run.epochs"] = max(len(model.stages()), round(pictures / model.passes))
    known = base.model.pretrained or base.model.weights
    frozen = Variant("frozen" if known else "frozen, random weights", {}, trained=False)
    return [*(Variant(*variant) for variant in chosen.items()), frozen]


def vary(settings: Sequence[str]) -> list[Variant]:
    """Every combination of `field=value,value`: `vary(["mstr.weight=0.1,0.5", "optim.lr=1e-3"])`.

    Values are read as YAML; a list goes in brackets: `mstr.scales=[1],[1,2]`. Raises ConfigError.
    """
    axes: dict[str, list[Any]] = {}
    for setting in settings:
        field, sign, text = setting.partition("=")
        try:
            values = yaml.safe_load(f"[{text}]")
        except yaml.YAMLError:
            values = []
        if not sign or not values:
            raise ConfigError(f"--vary {setting}: expected field=value,value such as mstr.weight=0.1,0.5")
        if field in axes:
            raise ConfigError(f"--vary names {field} twice; give all its values at once: {field}=value,value")
        axes[field] = values
    changes = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    names = (" ".join(f"{field}={_word(value)}" for field, value in one.items()) for one in changes)
    return [Variant(*variant) for variant in zip(names, changes, strict=True)]


def _word(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
