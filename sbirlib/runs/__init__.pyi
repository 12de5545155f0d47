"""The names of `sbirlib.runs`: what type checkers see, and what is loaded when first asked for."""

from .atomic import RunError
from .folder import Run, describe, load_run
from .model import load_frozen, save_model_folder
from .state import CheckpointWarning

__all__ = [
    "CheckpointWarning", "Run", "RunError", "describe", "load_frozen", "load_run", "save_model_folder",
]  # fmt: skip
