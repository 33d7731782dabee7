"""Reasoning prompts on their way: scenes, data set, files, training groups, report; and the rest as it was."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskselect import cli
from maskselect.data.maskgroups import MaskGroupsDataset
from maskselect.evaluation.questions import open_samples
from maskselect.evaluation.run import evaluate
from maskselect.recipes.scene_files import write_scenes
from maskselect.scenes.facts import SceneFacts
from maskselect.scenes.groups import SceneGroups
from maskselect.scenes.phrases import CATEGORY_NAMES
from maskselect.scenes.prompts import draw_prompts
from maskselect.scenes.render import render
from maskselect.scenes.samples import ask_scene, ask_scenes
from maskselect.scenes.sentences import plural
from maskselect.scenes.spec import CATEGORIES, KINDS, SPLITS
from maskselect.scenes.stream import scene_of
from maskselect.structures.groups import Query
from maskselect.structures.sample import Sample
from tests.evaluation.test_evaluation import StubModel

DIGESTS = {
    "train": "c2743b7d384428fd",
    "val": "12fcccff52b3d153",
    "test": "074bcff1553a6dd5",
    "test-words": "e14bbd8558b861fe",
    "test-look": "260c236eaf9adae3",
}
NAMES = {*CATEGORIES, *map(plural, CATEGORIES), *(name for names in CATEGORY_NAMES.values() for name in names)}


def digest(rows: list[list[object]]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def names_something(text: str) -> bool:
    return bool(NAMES & set(text.lower().replace("?", " ").replace(".", " ").replace(",", " ").split()))


# What published numbers rest on.
@pytest.mark.parametrize("split", SPLITS)
def test_the_prompts_of_scenes_are_those_that_models_were_measured_with(split: str) -> None:
    prompts = [prompt for scene in ask_scenes(split, 0, 20) for prompt in scene.prompts]
    assert digest([[p.text, p.references, p.targets, p.kind] for p in prompts]) == DIGESTS[split]


def test_the_training_prompts_are_those_that_models_were_trained_with() -> None:
    rows: list[list[object]] = []
    for split in ("train", "val"):
        groups, rng = SceneGroups(split, 0, 4), np.random.default_rng(3)
        for item in range(4):
            asked = groups.queries(item, groups.load(item).extra, 16, rng)
            rows += [[query.text, query.references, query.targets] for query in asked]
    assert digest(rows) == "3c7a9c0fb098218b"


# Scenes.
def test_reasoning_prompts_come_after_the_others_and_leave_them_alone() -> None:
    plain, both, alone = (ask_scene("val-1-0", (96, 96), *counts) for counts in ((3, 0), (3, 2), (0, 2)))
    assert both.prompts == plain.prompts + alone.prompts
    assert [prompt.kind for prompt in alone.prompts] == ["reasoning", "naming"] * 2
    assert np.array_equal(plain.image, alone.image)
    assert [sample.kind for sample in both.samples()][3:] == ["reasoning", "naming"] * 2


@pytest.mark.parametrize(
    ("prompts", "reasoning", "said"),
    [
        (0, 0, "prompts_per_scene must be at least 1, got 0"),
        (3, -1, "reasoning_per_scene must be at least 0, got -1"),
        (-1, 2, "prompts_per_scene must be at least 0, got -1"),
    ],
)
def test_numbers_of_prompts_that_cannot_be(prompts: int, reasoning: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ask_scenes("val", 0, 1, prompts_per_scene=prompts, reasoning_per_scene=reasoning)


# The data set.
def test_scenes_reasoning_asks_both_ways_about_the_pictures_of_scenes() -> None:
    samples, total = open_samples("scenes-reasoning", None, "test", scenes=3, seed=5)
    asked = list(samples)
    assert len(asked) == total == 18
    for reasoning, naming in zip(asked[::2], asked[1::2], strict=True):
        assert (reasoning.kind, naming.kind) == ("reasoning", "naming")
        assert (reasoning.targets, reasoning.reference_ids) == (naming.targets, naming.reference_ids)
        assert torch.equal(reasoning.prompt.references, naming.prompt.references)
        assert names_something(naming.prompt.text) and not names_something(reasoning.prompt.text)
    pictures = {sample.image_id: sample.image for sample in open_samples("scenes", None, "test", scenes=3, seed=5)[0]}
    assert all(np.array_equal(sample.image, pictures[sample.image_id]) for sample in asked)
    again, fewer = open_samples("scenes-reasoning", None, "test", limit=4, seed=5)
    assert fewer == 4
    assert [s.prompt.text for s in again] == [s.prompt.text for s in asked[:4]]


def test_the_names_that_there_are_tell_both_generated_sets(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown dataset 'scene'; expected one of own, .*, scenes, scenes-reas"):
        open_samples("scene", tmp_path, "val")
    with pytest.raises(ValueError, match="scenes have no split 'exam'"):
        open_samples("scenes-reasoning", None, "exam")


def test_the_report_tells_both_kinds() -> None:
    samples = list(open_samples("scenes-reasoning", None, "val", scenes=1)[0])

    def named_only(pool: np.ndarray) -> np.ndarray:
        return pool[:0]

    def measured(chosen: list[Sample]) -> dict:
        model = StubModel(named_only)
        return evaluate(model, chosen)

    report = measured(samples)
    assert list(report["by_kind"]) == ["naming", "reasoning"]
    assert report["by_kind"]["naming"] == report["by_kind"]["reasoning"]  # an answer that never looks at the prompt


# On disk.
def test_written_scenes_hold_reasoning_prompts_with_their_kind(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_scenes(tmp_path / "a", "test", 2, 4, (96, 96), 2, reasoning_per_scene=2)
    made = [sample for k in range(2) for sample in ask_scene(f"test-4-{k}", (96, 96), 2, 2).samples()]
    stored = list(MaskGroupsDataset(tmp_path / "a", "test"))
    assert [(s.sample_id, s.prompt.text, s.targets, s.kind) for s in stored] == [
        (s.sample_id, s.prompt.text, s.targets, s.kind) for s in made
    ]
    assert [s.kind for s in open_samples("scenes-reasoning", tmp_path / "a", "test")[0]] == [s.kind for s in made]
    options = ["--split", "test", "--count", "2", "--seed", "4", "--size", "96", "--prompts-per-scene", "2"]
    assert cli.main(["make_scenes", "--output", str(tmp_path / "b"), *options, "--reasoning-per-scene", "2"]) == 0
    assert "2 scenes with up to 6 prompts each" in capsys.readouterr().out
    assert (tmp_path / "b" / "test.parquet").read_bytes() == (tmp_path / "a" / "test.parquet").read_bytes()
    write_scenes(tmp_path / "c", "test", 2, 4, (96, 96), 2)
    assert [s.prompt.text for s in MaskGroupsDataset(tmp_path / "c", "test")] == [
        s.prompt.text for s in made if s.kind not in ("reasoning", "naming")
    ]


# Training.
def queries(share: float, count: int = 40, **options: Any) -> list[Query]:
    groups = SceneGroups("train", 0, 1, reasoning_share=share, **options)
    return groups.queries(0, groups.load(0).extra, count, np.random.default_rng(5))


def test_training_groups_have_the_share_of_reasoning_prompts_that_is_asked_for() -> None:
    facts = _facts("train-0-0")
    plain = draw_prompts(facts, 40, np.random.default_rng(5), "train")
    assert queries(0.0) == [Query(p.text, p.references, p.targets) for p in plain]
    assert not any(names_something(query.text) for query in queries(1.0))
    kinds = {**dict.fromkeys(KINDS, 0.001), "category": 1.0}
    mixed = queries(0.5, 20, reference_share=0.0, kind_shares=kinds)
    assert len(mixed) == 20
    assert 5 < sum(names_something(query.text) for query in mixed) < 15
    assert all(query.references and query.targets for query in queries(1.0, reference_share=1.0, no_target_share=0.0))


def test_more_reasoning_prompts_than_a_scene_gives_are_made_up_for_by_others() -> None:
    asked = queries(1.0, 400, reference_share=0.0, no_target_share=0.0)
    unnamed = sum(not names_something(query.text) for query in asked)
    assert 5 < unnamed < 380
    assert len(asked) > unnamed


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match="reasoning_share must be within 0 to 1"):
        SceneGroups(reasoning_share=share)


def _facts(scene_id: str) -> SceneFacts:
    scene = scene_of(scene_id)
    return SceneFacts.measure(scene, render(scene).index)
