"""Texts whose differences nobody sees are one text."""

import json
import os

import pytest
import torch

from maskselect.ops.text import readable, tidy
from maskselect.scenes.samples import ask_scenes
from maskselect.structures.sample import Prompt


@pytest.mark.parametrize(
    "text",
    [
        "the\tred mugs", "the\u00a0red\u00a0mugs", "the red\nmugs", "the red mugs\r\n", "  the  red   mugs ",
        "\ufeffthe red mugs", "the\u200b red mugs", "the red mu\u00adgs", "the\u2009red\u3000mugs",
        "the red mugs\u200d", "\u202athe red mugs\u202c", "the red \u2060mugs", "the red mugs\ufe0f",
        "the\u2028red\x0bmugs", "the\x00red mugs", "the red\u200c mugs", "\u180ethe red mugs", "the\u2800red mugs",
    ],
)  # fmt: skip
def test_what_nobody_sees_changes_nothing(text: str) -> None:
    assert tidy(text) == "the red mugs"
    assert Prompt(text, torch.zeros(0, 1, 1, dtype=torch.bool)).text == "the red mugs"


def test_what_is_seen_stays() -> None:
    for text in (
        "größte Kugel",
        "кружки слева",
        "红色的杯子",
        "a mug, two balls; 3 < 4!",
        "“the” red-hot mug",
        "👨‍👩‍👧 ❤️",
    ):
        assert tidy(text) == text
    assert (
        tidy("\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
        == "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    )
    assert tidy("u\u0308ber non\u2011breaking") == "über non-breaking"
    assert tidy("left of <mask\u00ad-ref>") == "left of <mask-ref>"


@pytest.mark.parametrize("split", ["val", "test", "test-words"])
def test_prompts_of_generated_scenes_are_as_they_were(split: str) -> None:
    texts = [prompt.text for scene in ask_scenes(split, 0, 8, reasoning_per_scene=2) for prompt in scene.prompts]
    assert len(texts) >= 24 and [tidy(text) for text in texts] == texts


def test_lone_surrogates_are_refused() -> None:
    for text in ("gr\udcfcn", "\ud83d mugs"):
        with pytest.raises(ValueError, match=r"prompt '.*' cannot be read: the text holds the lone surrogate \\ud"):
            Prompt(text, torch.zeros(0, 1, 1, dtype=torch.bool))


@pytest.mark.parametrize("given", [["the mugs"], b"the mugs", None, 3])
def test_a_prompt_is_a_text(given: object) -> None:
    with pytest.raises(TypeError, match=r"prompt is of type \w+; expected a str"):
        Prompt(given, torch.zeros(0, 1, 1, dtype=torch.bool))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", " \n", "\u200b\ufeff", "\u00a0"])
def test_an_empty_prompt(text: str) -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        Prompt(text, torch.zeros(0, 1, 1, dtype=torch.bool))


def test_names_of_files_can_be_written() -> None:
    assert readable("grün.png") == "grün.png"
    assert readable(os.fsdecode(b"bad\xff.png")) == "bad\\xff.png"
    assert readable("gr\udcc3\udcbcn.png") == "grün.png"  # UTF-8 under an ASCII locale
    assert json.loads(json.dumps(readable("\ud83d"))) == "\\ud83d"
