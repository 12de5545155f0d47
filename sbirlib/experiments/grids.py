"""The variants of an ablation: ready-made grids, and combinations of one's own."""

import itertools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import yaml

from sbirlib.config.config import RELEASED, Config
from sbirlib.errors import ConfigError
from sbirlib.layers.backbone import is_plain_vit

GridName = Literal["losses", "views", "mstr", "released"]
GRIDS = get_args(GridName)


class Variant(NamedTuple):
    """A name and the dotted fields that it changes."""

    name: str
    changes: dict[str, Any]


def grid(name: str, base: Config) -> list[Variant]:
    """The variants of a ready-made grid of ARNet; the first is what the others are compared with.

    `losses`: each term off; `views`: one and two views as in the paper's figure; `mstr`: recycling off, its
    scales, share, loss and similarity, and for a plain ViT the place of its tokens; `released`: each way of
    the released code alone, but for its file pattern, which changes the queries. Raises ConfigError for
    another name or method, or where `base` does not use what the grid is about.
    """
    if name not in GRIDS:
        raise ConfigError(f"unknown grid {name!r}; known: {', '.join(GRIDS)}")
    if base.method != "arnet":
        own = "views, losses and token recycling are those of arnet"
        raise ConfigError(f"grid {name!r} does not fit method {base.method}: its {own}; use --vary")
    if name in ("mstr", "released") and not base.mstr.enabled:
        raise ConfigError(f"grid {name!r} needs token recycling: use preset mini_full or full")
    no_intra = {"loss.intra_sketch": 0, "loss.intra_photo": 0}
    no_recyc = {"loss.recyc_sketch": 0, "loss.recyc_photo": 0}
    if name == "losses":
        terms = ["loss.multi", "loss.inter", *no_intra, *(no_recyc if base.mstr.enabled else ())]
        variants: dict[str, dict[str, Any]] = {"all terms": {}}
        variants |= {f"without {term.removeprefix('loss.')}": {term: 0} for term in terms}
        variants["without intra"] = no_intra
    elif name == "views":
        # One view alone has nothing to be matched with inside its domain.
        views, pairs = ("data.first_view", "data.second_view"), ("A0+A1", "A0+A2", "A1+A2", "A2+A1")
        variants = {view: dict.fromkeys(views, view) | no_intra for view in ("A0", "A1", "A2")}
        variants |= {pair: dict(zip(views, pair.split("+"), strict=True)) for pair in pairs}
    elif name == "mstr":
        scales, weights = base.mstr.scales, {0.1, 0.3, 0.5, 1.0} - {base.mstr.weight}
        variants = {"with MSTR": {}, "without MSTR": {"mstr.enabled": False}}
        for fewer in (scales[:k] for k in range(1, len(scales))):
            variants[f"scales {' '.join(map(str, fewer))}"] = {"mstr.scales": fewer}
        variants |= {f"weight {weight}": {"mstr.weight": weight} for weight in sorted(weights)}
        variants["learned weight"] = {"mstr.learn_weight": True}
        variants["without L_recyc"] = no_recyc
        variants["dot similarity"] = {"mstr.similarity": "dot"}
        if is_plain_vit(base.model.backbone):
            variants["tokens one block earlier"] = {"model.early_patches": 1}
    else:
        options = {field: value for field, value in RELEASED.items() if field != "data.pattern"}
        variants = {"default": {}} | {field: {field: value} for field, value in options.items()}
        variants["all of these"] = options
    return [Variant(*variant) for variant in variants.items()]


def vary(settings: Sequence[str]) -> list[Variant]:
    """Every combination of `field=value,value`: `vary(["mstr.weight=0.1,0.5", "optim.lr=1e-3"])`.

    Values are read as YAML; a list goes in brackets: `mstr.scales=[1],[1,2]`. Raises ConfigError.
    """
    axes: dict[str, list[Any]] = {}
    for setting in settings:
        field, sign, text = setting.partition("=")
        try:
            # Number by number: YAML takes 1e-3, which Python writes, for a word.
            values = [_number(value) for value in yaml.safe_load(f"[{text}]")]
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


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _word(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
