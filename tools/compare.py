#!/usr/bin/env python3
"""`maskselect compare` as a script. `--help` prints its options."""

from _environment import run

if __name__ == "__main__":
    run("compare")
