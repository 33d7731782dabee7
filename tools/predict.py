#!/usr/bin/env python3
"""`maskselect predict` as a script. `--help` prints its options."""

import _environment

if __name__ == "__main__":
    _environment.run("predict")
