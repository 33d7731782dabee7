#!/usr/bin/env python3
"""`maskselect average` as a script. `--help` tells its options."""

import sys

import _environment  # noqa: F401  finds the repository's own environment

from maskselect.cli import tool

if __name__ == "__main__":
    sys.exit(tool("average"))
