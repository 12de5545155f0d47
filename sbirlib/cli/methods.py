"""The command `methods`."""

from __future__ import annotations

import textwrap

from sbirlib.config.config import Config, knobs
from sbirlib.config.methods import GROUPS
from sbirlib.methods import METHODS
from sbirlib.methods.base import Needs


def methods_command() -> int:
    """List the methods: paper, what each needs beyond pairs, its own settings, and where its formula comes from."""
    for name, method in METHODS.items():
        paper, usual = method.paper, Needs()._asdict()
        needs = [f"{key} {value}" for key, value in method.needs._asdict().items() if value != usual[key]]
        own = [
            field.name for field in knobs(Config(method=name)) if field.name.partition(".")[0] in GROUPS[name]
        ]
        print(f"{name}: {paper.title}\n  {paper.authors}, {paper.venue}, {paper.link}")
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
