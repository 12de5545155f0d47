"""`python -m sbirlib` runs the command line."""

import sys

if __name__ == "__main__":
    try:
        from sbirlib.cli.app import main
    except KeyboardInterrupt:  # while libraries are imported
        print("stopped; nothing was begun", file=sys.stderr)
        sys.exit(130)
    sys.exit(main())
