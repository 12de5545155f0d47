"""Every hyper-parameter of the kit, once."""

from sbirlib.config.config import Config, DataConfig, ModelConfig, OptimConfig, RunConfig, knobs
from sbirlib.config.fields import Knob
from sbirlib.config.methods import LossConfig, MSTRConfig

__all__ = [
    "Config", "DataConfig", "Knob", "LossConfig", "MSTRConfig", "ModelConfig", "OptimConfig", "RunConfig",
    "knobs",
]  # fmt: skip
