"""The shipped models answer what they answered when their answers were stored: 12 prompts each on 4 test scenes.

Commit 66c5f86 wrote `shipped_answers.json`, before the house was rebuilt, with the weights that are shipped. On the
machine that wrote it the answers are equal bit for bit. Other processors round otherwise, and this test allows for it.
"""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maskselect
from maskselect.data.images import load_image
from maskselect.evaluation.questions import open_samples
from maskselect.ops import rle

STORED: dict[str, Any] = json.loads(Path(__file__).with_name("shipped_answers.json").read_text())


@pytest.mark.parametrize("name", sorted(STORED))
def test_shipped_models_answer_as_before(name: str) -> None:
    model, wanted = maskselect.load(name, device="cpu"), STORED[name]
    samples, count = open_samples("scenes", None, "test", scenes=4, seed=5)
    assert count == len(wanted) == 12
    for _, run in groupby(samples, key=lambda sample: sample.image_id):
        group = list(run)
        references = [[mask.numpy() for mask in sample.prompt.references] for sample in group]
        answers = model.select_many(load_image(group[0].image), [sample.prompt.text for sample in group], references)
        for sample, answer in zip(group, answers, strict=True):
            stored = wanted[sample.sample_id]
            masks = [rle.decode({"size": list(answer.size), "counts": counts}) for counts in stored["masks"]]
            assert len(answer) == len(masks), sample.sample_id
            np.testing.assert_allclose(answer.scores, stored["scores"], atol=5e-3)
            for mask, other in zip(answer, masks, strict=True):
                assert (mask & other).sum() >= 0.98 * (mask | other).sum(), sample.sample_id
