#!/usr/bin/env python3
"""`maskselect make_scenes` as a script. `--help` prints its options."""

import _environment

if __name__ == "__main__":
    _environment.run("make_scenes")
