"""Fine-grained sketch-based image retrieval with ARNet: `import sbirlib` is all a notebook needs."""

import os

# Threads that wait for one another must sleep, not spin: on a laptop whose cores something else also
# uses, spinning makes training several times slower. Read by OpenMP when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from sbirlib.config import Config
from sbirlib.data import PairFolder
from sbirlib.layers import MSTR
from sbirlib.methods import ARNet
from sbirlib.retrieval import Gallery, evaluate
from sbirlib.runs import load_run
from sbirlib.training import train

__all__ = ["MSTR", "ARNet", "Config", "Gallery", "PairFolder", "evaluate", "load_run", "train"]
