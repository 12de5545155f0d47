"""The command `methods`."""

from __future__ import annotations

import textwrap

from sbirlib.config.config import Config, knobs
from sbirlib.config.methods import GROUPS
from sbirlib.methods.base import Needs
from sbirlib.methods.catalogue import METHODS


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
