"""`python -m leap`: the command `leap` where its script is not on the path."""

import sys

from leap.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
