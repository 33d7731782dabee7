"""The shipped models on words that neither training nor the choice of its threshold read."""

import numpy as np
import pytest

import maskselect
from maskselect.predictor import Model
from maskselect.scenes.samples import ask_scenes
from maskselect.scenes.unknown_words import words_of

HELD_OUT = ("submarine", "skyscraper", "laptop", "elephant", "helicopter", "sofa", "banana", "penguin")


@pytest.fixture(scope="module", params=["ras", "llmseg"])
def model(request: pytest.FixtureRequest) -> Model:
    return maskselect.load(request.param)


def test_things_that_the_scenes_never_show_are_not_found_and_those_they_show_are(model: Model) -> None:
    assert set(HELD_OUT) <= set(words_of("test")[0])
    prompts = [f"the {word}" for word in HELD_OUT]
    wrongly_found, found, known = 0, 0, 0
    for scene in ask_scenes("test", 5, 4, (256, 256), 6):
        references: list[list[np.ndarray]] = [[] for _ in prompts]
        wrongly_found += sum(not group.no_target for group in model.select_many(scene.image, prompts, references))
        asked = [prompt for prompt in scene.prompts if prompt.targets and not prompt.references]
        known += len(asked)
        groups = model.select_many(scene.image, [prompt.text for prompt in asked], [[] for _ in asked])
        found += sum(not group.no_target for group in groups)
    assert wrongly_found <= 0.15 * 4 * len(HELD_OUT)
    assert known >= 8 and found >= 0.7 * known
