#!/usr/bin/env python3
"""`maskselect make_scenes` as a script. `--help` prints its options."""

from _environment import run

if __name__ == "__main__":
    run("make_scenes")
