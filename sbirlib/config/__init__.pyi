"""The names of `sbirlib.config`: what type checkers see, and what is loaded when first asked for."""

from .config import Config, DataConfig, ModelConfig, OptimConfig, RunConfig, knobs
from .fields import Knob
from .files import read_yaml
from .methods import GROUPS, LossConfig, MethodName, MSTRConfig

__all__ = [
    "GROUPS", "Config", "DataConfig", "Knob", "LossConfig", "MSTRConfig", "MethodName", "ModelConfig",
    "OptimConfig", "RunConfig", "knobs", "read_yaml",
]  # fmt: skip
