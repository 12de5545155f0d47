"""The trainer, on Hugging Face Accelerate."""

from sbirlib.training.trainer import Trainer, TrainingError, train

__all__ = ["Trainer", "TrainingError", "train"]
