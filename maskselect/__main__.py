"""`python -m maskselect VERB …`, the same as `maskselect VERB …`."""

import sys

from maskselect.cli import main

if __name__ == "__main__":
    sys.exit(main(prog="maskselect"))
