"""``python -m dirtytrack``: the same as the command ``dirtytrack``."""

import sys

from dirtytrack.cli import main

if __name__ == "__main__":
    sys.exit(main())
