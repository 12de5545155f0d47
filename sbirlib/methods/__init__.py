"""One file for each paper, and the interface that they have in common."""

from sbirlib.config.config import Config
from sbirlib.methods.arnet import ARNet
from sbirlib.methods.b_siamese import BSiamese
from sbirlib.methods.base import Batch, Encoder, Method, Needs, Paper, Stage, fingerprint

METHODS: dict[str, type[Method]] = {method.name: method for method in (ARNet, BSiamese)}


def build(config: Config) -> Method:
    """The untrained model of `config.method`, as `config` describes it."""
    return METHODS[config.method].from_config(config)


__all__ = [
    "METHODS", "ARNet", "BSiamese", "Batch", "Encoder", "Method", "Needs", "Paper", "Stage", "build", "fingerprint",
]  # fmt: skip
