"""Cold start: one prompt by `tools/predict.py` as a whole process, against `import torch` alone.

    python benchmarks/cold_start.py                    # ras, 9 pairs
    python benchmarks/cold_start.py --model llmseg --pairs 15

The two commands run in turn, each in a process of its own, after one unmeasured pair that leaves bytecode and file
cache warm. A ratio is the prediction's time over that of the import of the same pair. CPU time is that of the process
and its children, user and system.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ras", help="shipped name or path of a checkpoint")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--image", type=Path, default=ROOT / "docs" / "example.png")
    parser.add_argument("--prompt", default="the red leaves")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        predict = [sys.executable, str(ROOT / "tools" / "predict.py"), "--image", str(options.image)]
        predict += ["--prompt", options.prompt, "--model", options.model, "--output", folder]
        commands = ([sys.executable, "-c", "import torch"], predict)
        pairs = [tuple(map(measured, commands)) for _ in range(options.pairs + 1)][1:]
    print(f"{options.pairs} pairs, model {options.model}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}")
    for kind, name in enumerate(("CPU", "wall")):
        base, whole = ([pair[which][kind] for pair in pairs] for which in (0, 1))
        ratios = sorted(b / a for a, b in zip(base, whole, strict=True))
        print(
            f"{name:>5}: import torch {statistics.median(base):.2f} s, predict {statistics.median(whole):.2f} s, "
            f"ratio {statistics.median(ratios):.2f} (median; from {ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def measured(command: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of a command. Raises SystemExit when it fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"status {process.returncode} of: {' '.join(command)}")
    return used.ru_utime + used.ru_stime, wall


if __name__ == "__main__":
    main()
