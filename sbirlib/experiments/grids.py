"""The variants of an ablation: ready-made grids, and combinations of one's own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from sbirlib.config.config import RELEASED, Config
from sbirlib.errors import ConfigError
from sbirlib.layers.backbone import is_plain_vit

GRIDS = ("losses", "views", "mstr", "released")


class Variant(NamedTuple):
    """A name and the dotted fields that it changes."""

    name: str
    changes: dict[str, Any]


def grid(name: str, base: Config) -> list[Variant]:
    """The variants of a ready-made grid; the first is what the others are compared with.

    `losses`: each term off; `views`: one and two views as in the paper's figure; `mstr`: recycling
    off, its scales, share, loss and similarity, and for a plain ViT the place of its tokens;
    `released`: each behaviour of the released code alone, but for its file pattern, which changes
    the queries. Raises ConfigError for another name, or where `base` does not use what the grid is about.
    """
    if name in ("mstr", "released") and not base.mstr.enabled:
        raise ConfigError(f"grid {name!r} needs token recycling: use preset mini_full or full")
    if name == "losses":
        terms = ["multi", "inter", "intra_sketch", "intra_photo"]
        terms += ["recyc_sketch", "recyc_photo"] if base.mstr.enabled else []
        both = Variant("without intra", {"loss.intra_sketch": 0, "loss.intra_photo": 0})
        return [
            Variant("all terms", {}),
            *(Variant(f"without {term}", {f"loss.{term}": 0}) for term in terms),
            both,
        ]
    if name == "views":
        # One view alone has nothing to be matched with inside its domain.
        alone = [
            Variant(
                view,
                {
                    "data.first_view": view,
                    "data.second_view": view,
                    "loss.intra_sketch": 0,
                    "loss.intra_photo": 0,
                },
            )
            for view in ("A0", "A1", "A2")
        ]
        return alone + [
            Variant(f"{first}+{second}", {"data.first_view": first, "data.second_view": second})
            for first, second in (("A0", "A1"), ("A0", "A2"), ("A1", "A2"), ("A2", "A1"))
        ]
    if name == "mstr":
        scales = base.mstr.scales
        return [
            Variant("with MSTR", {}),
            Variant("without MSTR", {"mstr.enabled": False}),
            *(
                Variant(f"scales {' '.join(map(str, scales[:k]))}", {"mstr.scales": scales[:k]})
                for k in range(1, len(scales))
            ),
            *(
                Variant(f"weight {weight}", {"mstr.weight": weight})
                for weight in (0.1, 0.3, 0.5, 1.0)
                if weight != base.mstr.weight
            ),
            Variant("learned weight", {"mstr.learn_weight": True}),
            Variant("without L_recyc", {"loss.recyc_sketch": 0, "loss.recyc_photo": 0}),
            Variant("dot similarity", {"mstr.similarity": "dot"}),
            *(
                [Variant("tokens one block earlier", {"model.early_patches": 1})]
                if is_plain_vit(base.model.backbone)
                else []
            ),
        ]
    if name == "released":
        options = {field: value for field, value in RELEASED.items() if field != "data.pattern"}
        return [
            Variant("default", {}),
            *(Variant(field, {field: value}) for field, value in options.items()),
            Variant("all of these", options),
        ]
    raise ConfigError(f"unknown grid {name!r}; known: {', '.join(GRIDS)}")


def vary(settings: Sequence[str]) -> list[Variant]:
    """Every combination of `field=value,value`: `vary(["mstr.weight=0.1,0.5", "optim.lr=1e-3"])`.

    Values are read as YAML; a list goes in brackets: `mstr.scales=[1],[1,2]`. Raises ConfigError.
    """
    axes = []
    for setting in settings:
        field, sign, text = setting.partition("=")
        try:
            # Number by number: YAML takes 1e-3, which Python writes, for a word.
            values = [_number(value) for value in yaml.safe_load(f"[{text}]")]
        except yaml.YAMLError:
            values = []
        if not sign or not values:
            raise ConfigError(f"--vary {setting}: expected field=value,value such as mstr.weight=0.1,0.5")
        if field in (name for axis in axes for name, _ in axis):
            raise ConfigError(f"--vary names {field} twice; give all its values at once: {field}=value,value")
        axes.append([(field, value) for value in values])
    return [
        Variant(" ".join(f"{field}={_word(value)}" for field, value in combination), dict(combination))
        for combination in itertools.product(*axes)
    ]


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _word(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
