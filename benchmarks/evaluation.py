"""Where an evaluation's time goes: inside the model, or around it.

    .venv/bin/python benchmarks/evaluation.py --scenes 60

Runs what `tools/evaluate.py` runs, under a profiler, and prints the share of each part. Shares of one run do not depend
on the machine's speed, and the profiler's own time goes to what surrounds the model, which is Python; the floor is the
model alone, 100 %.
"""

import argparse
import cProfile
import pstats
import tempfile
from pathlib import Path

from maskselect import cli
from maskselect.cli import loading
from maskselect.predictor import load

PARTS = {
    "inside the model": ("predictor.py", "select_many"),
    "candidates asked again": ("predictor.py", "candidates"),
    "measuring": ("evaluation.py", "_measure"),
    "drawing scenes and their prompts": ("samples.py", "ask_scene"),
    "cases as pictures": ("cases.py", "watch"),
    "samples on disk": ("records.py", "add"),
    "report with intervals": ("evaluation.py", "build_report"),
}


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--model", default="ras")
    options = parser.parse_args()
    model = load(options.model)
    loading.load_model = lambda _: model  # loading is not evaluating
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        words = ["--model", options.model, "--dataset", "scenes", "--scenes", str(options.scenes), "--seed", "77"]
        profile.enable()
        cli.tool("evaluate", [*words, "--output", str(Path(folder) / "r.json")])
        profile.disable()
    stats = pstats.Stats(profile)
    total = stats.total_tt  # type: ignore[attr-defined]
    for name, (file, function) in PARTS.items():
        spent = sum(
            row[3]
            for (path, _, found), row in stats.stats.items()  # type: ignore[attr-defined]
            if path.endswith(f"/{file}") and found == function
        )
        print(f"{name:34} {100 * spent / total:5.1f} %")


if __name__ == "__main__":
    main()
