"""The names of `sbirlib.config`: what type checkers see, and what is loaded when first asked for."""

from .config import Config, DataConfig, ModelConfig, OptimConfig, RunConfig, knobs
from .fields import Knob
from .methods import LossConfig, MSTRConfig

__all__ = [
    "Config", "DataConfig", "Knob", "LossConfig", "MSTRConfig", "ModelConfig", "OptimConfig", "RunConfig",
    "knobs",
]  # fmt: skip
