#!/usr/bin/env python3
"""How often relations to references, computed from masks, give exactly the targets of a generated scene.

The candidates are the true masks. Counted are prompts with references whose text has no noun ("everything left of
<mask-ref>"), so that only the relations decide; "same kind" needs an image-text model and is left out.
"""

import argparse

import torch

from maskselect.scenes.samples import ask_scenes
from maskselect.structures.sample import Sample
from maskselect.systems.relations import Regions, fulfilled, stated


def exact(sample: Sample) -> bool | None:
    """Whether the answer is right; None if the prompt is not counted."""
    found = stated(sample.prompt.text)
    if not found.clauses or found.unread or found.noun or any(c.key == "same shape" for c in found.clauses):
        return None
    assert not isinstance(sample.image, str)
    candidates, references = (
        Regions(masks, sample.image, torch.zeros(len(masks), 1)) for masks in (sample.gt_pool, sample.prompt.references)
    )
    right = torch.zeros(len(sample.gt_pool), dtype=torch.bool)
    right[list(sample.targets)] = True
    answers = [fulfilled(candidates, references, clause) for clause in found.clauses]
    return torch.equal(torch.stack(answers).all(0), right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    samples = [one for scene in ask_scenes("test", options.seed, options.scenes) for one in scene.samples()]
    pointed = [sample for sample in samples if len(sample.prompt.references)]
    unread = sum(bool(stated(sample.prompt.text).unread) for sample in pointed)
    answers = [answer for sample in pointed if (answer := exact(sample)) is not None]
    print(f"{len(pointed)} prompts with references, {unread} not understood")
    print(f"{sum(answers)} of {len(answers)} prompts without a noun are answered exactly")


if __name__ == "__main__":
    main()
