"""The kit beside the released recipe, measured."""

from sbirlib.bench.run import measure

__all__ = ["measure"]
