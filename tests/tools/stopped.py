"""The command line, the last process of which is interrupted within a step: `stopped.py STEP ARGUMENTS`."""

import os
import signal
import sys

from sbirlib.cli.app import main
from sbirlib.training.trainer import Trainer

steps = int(sys.argv[1])
trainer = sys.modules[Trainer.__module__]
original = trainer.backward


def backward(*args):
    """Interrupts this process if it is the last, in the step that was asked for."""
    global steps
    steps -= 1
    if not steps and os.environ["RANK"] == "1":
        signal.raise_signal(signal.SIGINT)
    return original(*args)


trainer.backward = backward
# 130 says that it was interrupted, which is what was asked for.
sys.exit(0 if main(sys.argv[2:]) in (0, 130) else 1)
