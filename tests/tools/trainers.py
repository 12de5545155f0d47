"""A trainer by itself, to look at between its steps."""

from sbirlib.training.files import RunFiles
from sbirlib.training.trainer import Trainer


def trainer_of(pairs, config, out):
    """The trainer that `train` makes of these, with its folder."""
    files = RunFiles(out, config)
    files.claim(resume=True)  # whatever is there
    return Trainer(pairs, files)
