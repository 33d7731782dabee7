import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from maskselect.evaluation.run import evaluate
from maskselect.metrics.protocols import PROTOCOLS, protocol_named
from maskselect.reports.table import print_report
from maskselect.scenes.samples import ask_scenes
from maskselect.structures.facts import ModelFacts
from maskselect.structures.masks import MaskSet
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.sample import Prompt, Sample

Choose = Callable[[np.ndarray], np.ndarray]


class StubModel:
    """Its pool is the quarters of the image; `choose` picks from the pool and whatever was added to it."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.calls: list[tuple[list[str], list[int]]] = []

    def facts(self) -> ModelFacts:
        return ModelFacts("stub")

    def candidates(self, image: np.ndarray) -> MaskSet:
        height, width = image.shape[:2]
        masks = torch.zeros(4, height, width, dtype=torch.bool)
        for k in range(4):
            y, x = (k // 2) * height // 2, (k % 2) * width // 2
            masks[k, y : y + height // 2, x : x + width // 2] = True
        return MaskSet(masks, torch.ones(4), "quarters")

    def select_many(
        self,
        image: np.ndarray,
        prompts: list[str],
        references: list[list[np.ndarray]] | None = None,
        *,
        extra_candidates: np.ndarray | None = None,
        keep_pool: bool = False,
    ) -> list[MaskGroup]:
        assert references is not None
        self.calls.append((prompts, [len(masks) for masks in references]))
        found = self.candidates(image)
        if extra_candidates is not None:
            extra = torch.from_numpy(extra_candidates)
            found = found.concat(MaskSet(extra, torch.ones(len(extra)), "extra"))
        pool = found.masks.numpy()
        chosen = self.choose(pool)
        none = np.zeros((0, *image.shape[:2]), bool)
        return [MaskGroup(image, p, chosen, np.ones(len(chosen)), len(pool), 0.5, none, pool=found) for p in prompts]


def sample(name: str, image_id: str, targets: tuple[int, ...], references: int = 0, kind: str = "") -> Sample:
    pool = torch.zeros(2, 8, 8, dtype=torch.bool)
    pool[0, :4, :4] = pool[1, :4, 4:] = True  # exactly the two upper quarters
    prompt = Prompt("x" + " <mask-ref>" * references, pool[:1].repeat(references, 1, 1))
    return Sample(np.zeros((8, 8, 3), np.uint8), image_id, name, prompt, pool, targets, kind=kind)


def run(choose: Choose, samples: list[Sample], **options: Any) -> tuple[dict, StubModel]:
    model = StubModel(choose)
    report = evaluate(model, samples, split="s", **options)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    return report, model


SAMPLES = [
    sample("1", "a", (0,), kind="category"),
    sample("2", "a", (0, 1), references=1, kind="comparison"),
    sample("3", "b", (), kind="category"),
]


def test_the_report_by_hand() -> None:
    report, _ = run(lambda pool: pool[:1], SAMPLES)
    assert {k: report[k] for k in ("dataset", "split", "model", "samples", "images")} == {
        "dataset": "samples", "split": "s", "model": "stub", "samples": 3, "images": 2,
    }  # fmt: skip
    assert list(report["metrics"]) == ["overall", "w/o mask-ref", "w/ mask-ref"]
    overall, without, with_ref = report["metrics"].values()
    assert (overall["samples"], without["samples"], with_ref["samples"]) == (3, 2, 1)
    assert overall["gIoU"] == 50.0  # 1, 1/2 and 0
    assert overall["cIoU"] == 50.0  # 16 + 16 of 16 + 32 + 16
    assert (overall["N-acc"], overall["T-acc"]) == (0.0, 100.0)
    assert (without["gIoU"], with_ref["gIoU"], with_ref["N-acc"]) == (50.0, 50.0, None)
    assert overall["oracle_cIoU"] == overall["oracle_gIoU"] == 100.0
    assert report["by_kind"]["category"]["samples"] == 2
    assert list(report["by_targets"]) == ["0", "1", "2-5"]
    assert report["candidates_per_image"] == 4
    assert report["latency"]["prompts_per_image"] == 1.5


def test_one_call_an_image_with_the_references_of_each_prompt() -> None:
    _, model = run(lambda pool: pool[:0], SAMPLES)
    assert model.calls == [(["x", "x <mask-ref>"], [0, 1]), (["x"], [0])]


def test_ground_truth_joins_the_pool_only_when_asked_for() -> None:
    report, _ = run(lambda pool: pool[4:6], SAMPLES[1:2], with_gt_candidates=True)
    assert report["metrics"]["overall"]["gIoU"] == 100.0
    assert report["candidates_per_image"] == 6
    assert "ground-truth" in report["protocol"]["candidates"]
    assert "ground-truth" not in run(lambda pool: pool, SAMPLES)[0]["protocol"]["candidates"]


def test_pools_that_differ_are_asked_apart_when_they_are_candidates() -> None:
    other = Sample(**(vars(SAMPLES[0]) | {"gt_pool": SAMPLES[0].gt_pool.flip(0)}))
    assert len(run(lambda pool: pool, [SAMPLES[0], other], with_gt_candidates=True)[1].calls) == 2
    assert len(run(lambda pool: pool, [SAMPLES[0], other])[1].calls) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_small_perfect_answer_is_right_under_every_protocol(protocol: str) -> None:
    report, _ = run(lambda pool: pool[:1], SAMPLES[:1], protocol=protocol)  # 16 pixels
    overall = report["metrics"]["overall"]
    assert (overall["gIoU"], overall["T-acc"]) == (100.0, 100.0)


def test_gref_asks_whether_the_model_answered_with_nothing() -> None:
    small = torch.zeros(1, 480, 480, dtype=torch.bool)
    small[0, :6, :6] = True  # 36 pixels of the canvas, and the answer is all of them
    asked = Sample(np.zeros((480, 480, 3), np.uint8), "a", "1", Prompt("x", small[:0]), small, (0,))
    absent = Sample(np.zeros((480, 480, 3), np.uint8), "a", "2", Prompt("x", small[:0]), small, ())
    overall = run(lambda pool: small.numpy(), [asked, absent], protocol="grefcoco")[0]["metrics"]["overall"]
    assert (overall["gIoU"], overall["T-acc"], overall["N-acc"]) == (50.0, 100.0, 0.0)
    overall = run(lambda pool: pool[:0], [asked, absent], protocol="grefcoco")[0]["metrics"]["overall"]
    assert (overall["gIoU"], overall["T-acc"], overall["N-acc"]) == (50.0, 0.0, 100.0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_report_describes_the_protocol_that_ran(protocol: str) -> None:
    told = run(lambda pool: pool[:1], SAMPLES, protocol=protocol)[0]["protocol"]
    assert told["name"] == protocol
    assert protocol_named(protocol).describe().items() <= told.items()
    assert told["intervals"].startswith("none: fewer than 20 images")


def test_questions_of_one_image_are_weighed_together_under_muse() -> None:
    report, _ = run(lambda pool: pool[:2], [SAMPLES[0], SAMPLES[1]], protocol="muse")
    # 2 masks for 1 target (IoUs 1 and 0), 2 for 2 (1 and 1): 3 of max(2 + 2, 1 + 2).
    assert report["metrics"]["overall"]["gIoU"] == 75.0


def test_rows_without_targets_have_no_share_of_true_pixels() -> None:
    rows = run(lambda pool: pool[:1], SAMPLES)[0]["by_targets"]
    assert (rows["0"]["cIoU"], rows["0"]["ncIoU"], rows["0"]["oracle_cIoU"]) == (None, None, None)
    assert rows["0"]["N-acc"] == 0.0 and rows["1"]["cIoU"] == 100.0


def test_parts_without_samples_are_null() -> None:
    report, _ = run(lambda pool: pool[:1], SAMPLES[:1])
    assert list(report["metrics"]) == ["overall", "w/o mask-ref", "w/ mask-ref"]
    assert set(report["metrics"]["w/ mask-ref"].values()) == {0, None}


def test_no_sample_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no sample"):
        run(lambda pool: pool, [])


def test_the_table_holds_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(run(lambda pool: pool[:1], SAMPLES)[0])
    shown = capsys.readouterr().out
    assert "stub on samples s" in shown
    assert "w/ mask-ref" in shown
    assert "4.0 candidates an image" in shown
    assert "1 target " in shown and "1 targets" not in shown and "2-5 targets" in shown


def test_generated_scenes_with_ground_truth_alone_are_answered_perfectly() -> None:
    samples = [one for scene in ask_scenes("test", 0, 2, (96, 96)) for one in scene.samples()]
    for one in samples:

        def right(pool: np.ndarray, one: Sample = one) -> np.ndarray:
            return pool[4:][list(one.targets)]

        metrics = run(right, [one], with_gt_candidates=True)[0]["metrics"]["overall"]
        assert (metrics["gIoU"], metrics["F1"]) == (100.0, 100.0)
