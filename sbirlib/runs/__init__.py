"""One run folder: its models, checkpoints, history, provenance and report."""

from sbirlib.runs.atomic import RunError
from sbirlib.runs.history import find_runs, read_config, read_history
from sbirlib.runs.model import load_frozen, load_run, save_model_folder
from sbirlib.runs.released import load_released
from sbirlib.runs.report import describe, write_page
from sbirlib.runs.state import CheckpointWarning

__all__ = [
    "CheckpointWarning",
    "RunError",
    "describe",
    "find_runs",
    "load_frozen",
    "load_released",
    "load_run",
    "read_config",
    "read_history",
    "save_model_folder",
    "write_page",
]
