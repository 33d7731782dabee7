"""Random damage to a valid COCO file: own data gives samples or one sentence, never another error."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from maskselect.data.own import open_own
from tests.data.test_own import PROMPTS, _own

CASES = 120
ODD: list[Any] = [
    None, True, -1, 0, 1, 2, 10**6, 2**63, 1e300, -0.5, 40.0, float("nan"), float("inf"), "", "x", "3", "10", "false",
    "../x", "/x", "http://x/y", "\0", "\ud800", "é", [], [[]], [1], [1, 2], [[1, 2], [3, 4], [5, 6]], {}, {"a": 1},
    [0.1, 0.2, 0.3, 0.1, 0.2, 0.4], {"size": [8.0, 12.0], "counts": [90, 6]}, {"size": [8, 12], "counts": "0"},
]  # fmt: skip
"""Values in all forms that tools write, and some that none does."""


def _changed(value: Any, rng: random.Random) -> Any:
    """The value with something in it replaced, removed, doubled or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.92:
        key, how = rng.choice(list(value)), rng.random()
        if how < 0.1:
            return {name: one for name, one in value.items() if name != key}
        if how < 0.15:
            return {name + "s" if name == key else name: one for name, one in value.items()}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.92:
        place, how = rng.randrange(len(value)), rng.random()
        if how < 0.1:
            return value[:place] + value[place + 1 :]
        if how < 0.2:
            return [*value, value[place]]
        return [*value[:place], _changed(value[place], rng), *value[place + 1 :]]
    return rng.choice(ODD)


@pytest.mark.parametrize("prompts", [PROMPTS, None], ids=["prompts", "categories"])
def test_damage_gives_samples_or_one_sentence(tmp_path: Path, prompts: list[dict[str, Any]] | None) -> None:
    rng, outcomes = random.Random(7), Counter[str]()
    root = _own(tmp_path, prompts)
    whole = json.loads((root / "train.json").read_text())
    for number in range(CASES):
        damaged = whole
        for _ in range(rng.choice((1, 1, 2, 4))):
            damaged = _changed(damaged, rng)
        folder = root / str(number)
        folder.mkdir()
        (folder / "images").symlink_to(root / "images")
        (folder / "train.json").write_text(json.dumps(damaged))
        outcomes[_read(folder)] += 1
    assert set(outcomes) == {"read", "refused in part", "refused"}, outcomes
    assert min(outcomes.values()) > CASES // 20, outcomes


def _read(folder: Path) -> str:
    """What became of it. Raises whatever the reader raises that is no sentence."""
    try:
        samples = open_own(folder)
        assert len(samples) == len(samples.image_ids()) > 0
    except ValueError as error:
        _check_sentence(error)
        return "refused"
    refused = False
    for number in range(len(samples)):
        try:
            sample = samples[number]
        except (ValueError, FileNotFoundError) as error:
            refused = True
            _check_sentence(error)
        else:
            assert sample.prompt.text and all(0 <= place < len(sample.gt_pool) for place in sample.targets)
    return "refused in part" if refused else "read"


def _check_sentence(error: Exception) -> None:
    assert len(str(error)) > 20 and "Traceback" not in str(error) and "\n" not in str(error).strip(), error
