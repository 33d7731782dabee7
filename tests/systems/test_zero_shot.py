"""`ZeroShot` on public models of tiny size with random weights, and without a language model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskselect.data.clips import open_clip
from maskselect.encoders.image_text import ImageText
from maskselect.lmm.qwen_vl import QwenVl
from maskselect.predictor import Model
from maskselect.proposers.sam2 import Sam2Proposer
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import System
from maskselect.structures.references import BoxRef
from maskselect.structures.sample import Prompt
from maskselect.systems.relations import stated
from maskselect.systems.zero_shot import ZeroShot
from tests.systems.tiny import Nothing, Quarters
from tests.systems.tiny_public import write_qwen2_vl, write_sam2, write_siglip

IMAGE = np.kron(np.random.default_rng(1).integers(0, 255, (6, 8, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
PROMPTS = ["the red mugs", "left of <mask-ref>", "between <mask-ref> and <mask-ref>", "stars"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "sam2": write_sam2(tmp_path_factory.mktemp("sam2")),
        "siglip": write_siglip(tmp_path_factory.mktemp("siglip")),
        "qwen": write_qwen2_vl(tmp_path_factory.mktemp("qwen")),
    }


def system_of(folders: dict[str, Path], fast: bool = False, proposer: Any = None, **settings: Any) -> ZeroShot:
    lmm = None if fast else QwenVl(model=str(folders["qwen"]))
    sides = {"view_side": 84, "crop_side": 56, "rows": 3}
    return ZeroShot(proposer or Quarters(), ImageText(str(folders["siglip"])), lmm, **(sides | settings))


@pytest.fixture(scope="module")
def system(folders: dict[str, Path]) -> ZeroShot:
    return system_of(folders)


@pytest.fixture(scope="module")
def fast(folders: dict[str, Path]) -> ZeroShot:
    return system_of(folders, fast=True)


def quarter(number: int) -> torch.Tensor:
    return Quarters().propose(IMAGE).masks[number]


def prompts_of(texts: list[str], *numbers: int) -> list[Prompt]:
    """Each prompt with quarters as references."""
    none = torch.zeros(0, *IMAGE.shape[:2], dtype=torch.bool)
    chosen = [quarter(number)[None] for number in numbers or (1, 2)]
    return [Prompt(text, torch.cat([none, *chosen[: text.count("<mask-ref>")]])) for text in texts]


def test_it_is_a_system_whose_scores_are_those_of_the_shortlist(folders: dict[str, Path]) -> None:
    system = system_of(folders, shortlist=2)
    assert isinstance(system, System) and not any(p.requires_grad for p in system.parameters())
    reading = system.read(IMAGE)
    for prompt, answer in zip(prompts_of(PROMPTS), system.answer(reading, prompts_of(PROMPTS), 0.0), strict=True):
        assert answer.pool is not None and answer.pool_scores is not None
        verified = system.shortlisted(reading, stated(prompt.text))
        assert len(verified) == 2 and len(answer.pool) == 4
        others = [number for number in range(4) if number not in verified]
        assert answer.pool_scores[others].tolist() == [0, 0] and bool((answer.pool_scores[verified] > 0).all())
        assert answer.scores.tolist() == sorted(answer.pool_scores.tolist(), reverse=True)


def test_the_shortlist_is_by_similarity_or_by_the_proposer(folders: dict[str, Path]) -> None:
    system = system_of(folders, shortlist=4)
    reading = system.read(IMAGE)
    logits = system.similarity.logits(reading.embeddings, system.similarity.texts(["a photo of the red mugs"]))[0]
    assert system.shortlisted(reading, stated("the red mugs")) == logits.argsort(descending=True).tolist()
    assert system.shortlisted(reading, stated("everything left of <mask-ref>")) == [0, 1, 2, 3]


def test_prompts_together_equal_one_by_one_and_twice_is_the_same(system: ZeroShot) -> None:
    prompts = prompts_of(PROMPTS)
    together = system.answer(system.read(IMAGE), prompts, 0.5)
    again = system.answer(system.read(IMAGE), prompts, 0.5)
    for prompt, one, two in zip(prompts, together, again, strict=True):
        alone = system.answer(system.read(IMAGE), [prompt], 0.5)[0]
        assert torch.equal(one.pool_scores, two.pool_scores)  # type: ignore[arg-type]
        torch.testing.assert_close(one.pool_scores, alone.pool_scores, atol=1e-5, rtol=1e-4)
        assert torch.equal(one.masks, alone.masks)


def test_other_references_are_another_question(system: ZeroShot) -> None:
    reading = system.read(IMAGE)
    first, second = (
        system.answer(reading, prompts_of(["left of <mask-ref>"], number), 0.5)[0].pool_scores for number in (1, 2)
    )
    assert first is not None and second is not None and not torch.allclose(first, second, atol=1e-5)


def test_no_yes_is_no_target_and_no_candidate_neither(system: ZeroShot, folders: dict[str, Path]) -> None:
    answer = system.answer(system.read(IMAGE), prompts_of(["stars"]), 1.0)[0]
    assert answer.masks.shape == (0, *IMAGE.shape[:2]) and len(answer.scores) == 0 and answer.pool is not None
    for empty in (system_of(folders, proposer=Nothing()), system_of(folders, fast=True, proposer=Nothing())):
        for answer in empty.answer(empty.read(IMAGE), prompts_of(PROMPTS), 0.0):
            assert len(answer.masks) == 0 and answer.pool_scores is not None and len(answer.pool_scores) == 0


def test_passes_bound_the_rows(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    system, seen = system_of(folders, rows=3), []
    hidden = system.verifier.lmm.hidden  # type: ignore[union-attr]

    def watched(embeddings: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(embeddings.shape[:2])
        return hidden(embeddings, *rest)

    monkeypatch.setattr(system.verifier.lmm, "hidden", watched)  # type: ignore[union-attr]
    reading = system.read(IMAGE)
    system.answer(reading, prompts_of(PROMPTS), 0.5)
    # The picture once, then 4 candidates, shared by the prompts without references, for each of 3 views.
    assert [rows for rows, _ in seen] == [1, 3, 3, 3, 3]
    system.answer(reading, prompts_of(PROMPTS[:1]), 0.5)
    assert [rows for rows, _ in seen[5:]] == [3, 1]
    system.answer(reading, prompts_of(PROMPTS[:1]) * 17, 0.5)
    assert [rows for rows, _ in seen[7:]] == [3, 3, 3, 3]  # 8 questions a row at most


def test_everything_by_public_parts_through_the_predict_path(folders: dict[str, Path]) -> None:
    proposer = Sam2Proposer(
        str(folders["sam2"]), device="cpu", points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0,
        box_nms_thresh=1.0, max_candidates=5,
    )  # fmt: skip
    model = Model(system_of(folders, proposer=proposer, duplicates_iou=None), prompter=proposer)
    group, other = model.select_many(
        IMAGE, ["the dogs", "the dogs left of <mask-ref>"], [[], [BoxRef((10, 10, 90, 70))]], threshold=0.0
    )
    assert group.candidates == len(group) == len(proposer.propose(IMAGE)) > 1
    assert group.size == IMAGE.shape[:2] and other.references.any()
    assert not np.allclose(group.candidate_scores, other.candidate_scores, atol=1e-5)
    extra = np.zeros((1, *IMAGE.shape[:2]), bool)
    extra[0, 4:20, 4:20] = True
    assert model.select_many(IMAGE, ["the dogs"], extra_candidates=extra)[0].candidates == group.candidates + 1


def test_clips_are_read_frame_by_frame(system: ZeroShot) -> None:
    clip = open_clip([IMAGE, IMAGE])
    reading = system.read(clip)
    (found,) = system.answer(reading, prompts_of(["the red mugs"]), 0.0)
    (still,) = system.answer(system.read(IMAGE), prompts_of(["the red mugs"]), 0.0)
    assert len(found.masks) == len(still.masks) == 4
    torch.testing.assert_close(found.scores, still.scores)
    with pytest.raises(ValueError, match="reads <mask-ref> in pictures only"):
        system.answer(reading, prompts_of(["left of <mask-ref>"]), 0.5)
    with pytest.raises(ValueError, match="a clip takes no extra candidates"):
        system.read(clip, MaskSet.empty((4, 4)))


def test_without_a_language_model_relations_are_those_of_masks(fast: ZeroShot) -> None:
    """Quarters: 0 and 1 above, 2 and 3 below; 0 and 2 left."""
    reading = fast.read(IMAGE)
    texts = {
        "things left of <mask-ref>": [0, 2],
        "everything above <mask-ref>": [],
        "everything below <mask-ref>": [2, 3],
        "<mask-ref>": [1],
        "everything except <mask-ref>": [0, 2, 3],
        "objects touching <mask-ref>": [0, 2, 3],
        "things not left of <mask-ref>": [3],
    }
    for text, wanted in texts.items():
        (answer,) = fast.answer(reading, prompts_of([text], 1), 0.5)
        assert answer.pool_scores is not None
        assert answer.pool_scores.nonzero()[:, 0].tolist() == wanted, text
        assert len(answer.masks) == len(wanted)


def test_without_a_language_model_a_noun_is_compared_with_other_texts(fast: ZeroShot) -> None:
    reading = fast.read(IMAGE)
    bare, left = fast.answer(reading, prompts_of(["the red mugs", "the red mugs left of <mask-ref>"], 1), 0.0)
    assert bare.pool_scores is not None and left.pool_scores is not None
    assert bool(((bare.pool_scores > 0) & (bare.pool_scores < 1)).all())
    expected = bare.pool_scores * torch.tensor([1.0, 0.0, 1.0, 0.0])
    torch.testing.assert_close(left.pool_scores, expected)
    with pytest.raises(ValueError, match="the relation to <mask-ref> is not understood; expected one of: left of"):
        fast.answer(reading, prompts_of(["the handle of <mask-ref>"], 1), 0.5)


def test_settings_that_cannot_be(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="shortlist 0 and rows 3; expected at least 1"):
        system_of(folders, shortlist=0)
