"""The command line."""

from sbirlib.cli.app import main

__all__ = ["main"]
