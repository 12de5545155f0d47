"""`python -m sbirlib` with parts of four photos: `python tests/tools/small_parts.py embed ...`."""

import sys

from sbirlib.cli.app import main
from sbirlib.retrieval import gallery

if __name__ == "__main__":
    gallery.PART = 4
    sys.exit(main())
