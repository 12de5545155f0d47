"""Run folders: models, checkpoints, history, provenance and report."""

from sbirlib.runs.atomic import RunError
from sbirlib.runs.folder import Run, describe, load_run
from sbirlib.runs.model import load_frozen, save_model_folder
from sbirlib.runs.state import CheckpointWarning

__all__ = [
    "CheckpointWarning", "Run", "RunError", "describe", "load_frozen", "load_run", "save_model_folder",
]  # fmt: skip
