#!/usr/bin/env python3
"""`maskselect calibrate` as a script. `--help` prints its options."""

from _environment import run

if __name__ == "__main__":
    run("calibrate")
