#!/usr/bin/env python3
"""Average the weights of checkpoints of one system: points of one chain of training often generalise better together.

tools/average.py runs/a/ras.safetensors runs/b/ras.safetensors --output runs/average/ras.safetensors

The threshold is the last one's; tools/calibrate.py finds the average's own.
"""

import argparse
import sys
from pathlib import Path

import _environment  # noqa: F401  finds the repository's own environment

from maskselect.backends.checkpoints import average_checkpoints


def main() -> int:
    """Exit status 2 with one sentence when the checkpoints do not fit together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors")
    options = parser.parse_args()
    try:
        average_checkpoints(options.checkpoints, options.output)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    print(f"{len(options.checkpoints)} checkpoints averaged -> {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
