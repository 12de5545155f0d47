"""The command line."""

from sbirlib.cli.app import main
from sbirlib.cli.draw import draw_page

__all__ = ["draw_page", "main"]
