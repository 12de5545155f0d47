"""Every hyper-parameter of the kit, once."""

from sbirlib.config.config import (
    PRESETS,
    RELEASED,
    Config,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    knobs,
    released_options,
)  # fmt: skip
from sbirlib.config.fields import Knob
from sbirlib.config.methods import LossConfig, MSTRConfig

__all__ = [
    "PRESETS", "RELEASED", "Config", "DataConfig", "Knob", "LossConfig", "MSTRConfig", "ModelConfig",
    "OptimConfig", "RunConfig", "knobs", "released_options",
]  # fmt: skip
