"""`python -m samovar` is the command `samovar`."""

import sys

from samovar.cli import main

if __name__ == "__main__":
    sys.exit(main())
