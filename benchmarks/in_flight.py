"""Images in flight: candidates of scenes with one image at a time on all threads, against several at a time that share
them, as `tools/propose.py --workers N` does. Turns alternate; ratios are the former's time over the latter's.

    OMP_NUM_THREADS=2 python benchmarks/in_flight.py --in-flight 2
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from PIL import Image

from maskselect.proposers.proposal_rows import ProposalRows
from maskselect.proposers.store import proposer_key
from maskselect.recipes.engine import run
from maskselect.recipes.image_sources import FolderImages
from maskselect.recipes.proposals import NamedProposer, ProposalWorker
from maskselect.scenes.samples import ask_scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--in-flight", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--proposer", default="sam", help="name or config, as of tools/propose.py")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for scene in ask_scenes("test", 5, options.images):
            Image.fromarray(scene.image).save(pictures / f"{scene.id.replace('/', '_')}.png")
        images, maker = FolderImages(pictures), NamedProposer(options.proposer, "cpu")
        proposer = maker.open()
        worker, units = ProposalWorker(images, maker, proposer_key(proposer), proposer), images.units()

        def seconds(in_flight: int, turn: int) -> float:
            start = time.perf_counter()
            out = Path(folder) / f"{in_flight}-{turn}"
            _, counts = run(worker, units, out, "rows", ProposalRows(), {}, message=quiet, in_flight=in_flight)
            assert counts["images"] == len(units)
            return time.perf_counter() - start

        seconds(1, -1)
        ratios = sorted(seconds(1, turn) / seconds(options.in_flight, turn) for turn in range(options.turns))
    print(
        f"{options.in_flight} in flight on {torch.get_num_threads()} threads: {statistics.median(ratios):.2f} times as "
        f"fast ({ratios[0]:.2f} to {ratios[-1]:.2f}), {options.turns} turns of {options.images} images"
    )


def quiet(counts: Counter[str]) -> str:
    return "Proposing"


if __name__ == "__main__":
    main()
