"""`python -m sbirlib` runs the command line."""

import sys

from sbirlib.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
