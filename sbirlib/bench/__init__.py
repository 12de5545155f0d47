"""The kit beside the released recipe, measured."""

from sbirlib.bench.run import Bench

__all__ = ["Bench"]
