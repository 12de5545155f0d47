"""The names of `sbirlib.runs`: what type checkers see, and what is loaded when first asked for."""

from .atomic import RunError, write_text
from .folder import Run, describe, load_run
from .model import frozen, load_frozen, save_model_folder
from .records import EpochRecord, data_fingerprint
from .state import CheckpointWarning, Progress, load_state, save_state

__all__ = [
    "CheckpointWarning", "EpochRecord", "Progress", "Run", "RunError", "data_fingerprint", "describe",
    "frozen", "load_frozen", "load_run", "load_state", "save_model_folder", "save_state", "write_text",
]  # fmt: skip
