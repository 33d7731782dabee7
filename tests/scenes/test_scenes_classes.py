"""Prompts of scenes that list classes, and prompts that words answer, for Text4Seg."""

import numpy as np
import pytest
import torch

from maskselect.codecs.descriptors import DescriptorCodec
from maskselect.scenes.classes import SCENE_CLASSES, draw_class_prompt, label_scenes
from maskselect.scenes.facts import SceneFacts
from maskselect.scenes.groups import SceneGroups
from maskselect.scenes.layout import build_scene
from maskselect.scenes.render import render
from maskselect.systems.text_questions import group_of, listed_classes


def test_prompts_list_classes_and_their_objects() -> None:
    scene = build_scene("train-0-1", (128, 128))
    facts, rng = SceneFacts.measure(scene, render(scene).index), np.random.default_rng(0)
    prompts = [draw_class_prompt(facts, rng) for _ in range(200)]
    whole = 0
    for text, targets, labels in prompts:
        assert group_of(text) == "condition" and len(set(text.split("|"))) == len(text.split("|"))
        listed = listed_classes(text)
        assert targets == tuple(n for n, one in enumerate(scene.objects) if one.category in listed)
        assert labels == tuple(scene.objects[n].category for n in targets)
        whole += text == "|".join(SCENE_CLASSES)
    assert 70 < whole < 130
    assert 120 < sum("others" in text for text, _, _ in prompts) < 180


def test_shares_of_prompts() -> None:
    def asked(**shares: float) -> list[str]:
        source = SceneGroups("train", 0, 2, **shares)  # type: ignore[arg-type]
        return [query.text for query in source.queries(0, source.load(0).extra, 40, np.random.default_rng(1))]

    plain = asked()
    assert {group_of(text) for text in plain} <= {"partial", "reasoning"}
    groups = [group_of(text) for text in asked(classes_share=0.3, texts_share=0.2)]
    assert len(groups) == 40 and 5 < groups.count("condition") < 20 and 3 < groups.count("text") < 16
    assert set(map(group_of, asked(texts_share=1.0))) == {"text"}
    with pytest.raises(ValueError, match="texts_share must be within 0 to 1"):
        asked(texts_share=2.0)
    source = SceneGroups("train", 0, 2, texts_share=1.0, dialogue_share=0.0)
    (query,) = source.queries(0, source.load(0).extra, 1, np.random.default_rng(1))
    assert query.text == '"Describe the image."' and query.answer and query.targets == ()


def test_answers_describe_the_label_map_that_is_evaluated() -> None:
    """Training and evaluation agree: the masks of a prompt of all classes are the class of each pixel."""
    source = SceneGroups("val", 0, 1, classes_share=1.0)
    annotated = source.load(0)
    size = annotated.image.shape[0], annotated.image.shape[1]
    (image,) = label_scenes("val", 0, 1, size)
    codec = DescriptorCodec(grid=size, special_tags=True)
    for query in source.queries(0, annotated.extra, 12, np.random.default_rng(0)):
        if query.text == "|".join(SCENE_CLASSES):
            break
    else:
        raise AssertionError("no prompt lists all classes")
    text = codec.encode(annotated.masks[list(query.targets)], query.labels)
    decoded = codec.decode(text, size, SCENE_CLASSES[1:])
    painted = torch.zeros(*size, dtype=torch.uint8)
    for label, mask in zip(decoded.labels, decoded.masks, strict=True):
        painted[mask] = SCENE_CLASSES.index(label)
    assert torch.equal(painted, image.classes) and np.array_equal(annotated.image, image.image)
