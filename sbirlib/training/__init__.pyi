"""The names of `sbirlib.training`: what type checkers see, and what is loaded when first asked for."""

from .setup import check_exactness, stage_ends
from .signals import Stop, handled
from .trainer import Trainer, TrainingError, train

__all__ = ["Stop", "Trainer", "TrainingError", "check_exactness", "handled", "stage_ends", "train"]
