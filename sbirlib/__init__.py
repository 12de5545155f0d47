"""Fine-grained sketch-based image retrieval with ARNet: `import sbirlib` is all a notebook needs."""

from sbirlib.arnet import ARNet
from sbirlib.checkpoints import load_run
from sbirlib.config import Config
from sbirlib.pairs import PairFolder
from sbirlib.retrieval import Gallery, evaluate
from sbirlib.train import train

__all__ = ["ARNet", "Config", "Gallery", "PairFolder", "evaluate", "load_run", "train"]
