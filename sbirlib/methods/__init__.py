"""One file for each paper, and what they have in common."""

from sbirlib.methods.arnet import ARNet
from sbirlib.methods.base import fingerprint

__all__ = ["ARNet", "fingerprint"]
