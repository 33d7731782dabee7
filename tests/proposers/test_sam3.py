"""`Sam3Proposer` against the library's own model, processor and post-processing: tiny random weights, from folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskselect.ops.overlap import pairwise_iou
from maskselect.proposers.sam3 import NETWORKS, Sam3Proposer
from maskselect.structures.protocols import Proposer
from tests.proposers.tiny_networks import QUERIES, enliven_detector, model_of, phrase_processor, write

KINDS = ("sam3", "sam3_video", "sam3_lite_text")
PHRASES = ("red mug", "fish", "tree on the left")
OPEN: dict[str, Any] = dict(score_thresh=0.0, mask_nms_thresh=None, phrases=PHRASES, device="cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each kind as the hub has one; a published SAM 3 is of the second."""
    made = {}
    for kind in KINDS:
        torch.manual_seed(0)
        model = model_of(kind)
        enliven_detector(model)
        made[kind] = write(model, tmp_path_factory.mktemp(kind))
        phrase_processor().save_pretrained(made[kind])
    return made


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@torch.inference_mode()
def asked(
    kind: str, folder: Path, image: np.ndarray, phrase: str, score_thresh: float, mask_thresh: float
) -> dict[str, Tensor]:
    """The library's own answer to one phrase: scores (N,) and masks (N, H, W)."""
    model, processor = NETWORKS[kind].from_pretrained(folder).eval(), phrase_processor()
    given = processor(images=image, text=phrase, return_tensors="pt")
    sizes = given.pop("original_sizes").tolist()
    return processor.post_process_instance_segmentation(model(**given), score_thresh, mask_thresh, sizes)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(56, 56), (40, 70), (91, 30)])
def test_candidates_are_the_librarys_instances(folders: dict[str, Path], kind: str, size: tuple[int, int]) -> None:
    image = image_of(*size)
    scores = torch.cat([asked(kind, folders[kind], image, phrase, 0.0, 0.4)["scores"] for phrase in PHRASES])
    middle = float(scores.median()) + 1e-6
    proposer = Sam3Proposer(str(folders[kind]), **{**OPEN, "score_thresh": middle, "mask_thresh": 0.4})
    assert isinstance(proposer, Proposer)
    found = proposer.propose(image)
    assert found.image_size == size and found.source == "sam3" and 0 < len(found) < len(PHRASES) * QUERIES
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    for number, phrase in enumerate(PHRASES):
        theirs = asked(kind, folders[kind], image, phrase, middle, 0.4)
        shown = theirs["masks"].flatten(1).any(1)
        scores, order = theirs["scores"][shown].sort(descending=True)
        own = found.keep(found.columns["phrase"] == number)
        torch.testing.assert_close(own.scores, scores, atol=1e-5, rtol=0)
        if len(scores):  # the library does not resize where there is none
            assert float((own.masks == theirs["masks"][shown][order].bool()).float().mean()) > 0.9999


def test_image_and_phrases_are_encoded_once(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    proposer, calls = Sam3Proposer(str(folders["sam3"]), **OPEN), []
    for name in ("vision_encoder", "text_encoder"):
        part = getattr(proposer.model, name)
        part.register_forward_hook(lambda *_, name=name: calls.append(name))
    proposer.propose(image_of(40, 70))
    assert calls == ["vision_encoder"]


def test_what_phrases_find_twice_is_kept_once(folders: dict[str, Path]) -> None:
    image = image_of(40, 70)
    whole = Sam3Proposer(str(folders["sam3"]), **OPEN).propose(image)
    twice = Sam3Proposer(str(folders["sam3"]), **{**OPEN, "phrases": ["fish", "fish"], "mask_nms_thresh": 0.99})
    found = twice.propose(image)
    assert 0 < len(found) <= QUERIES and not found.columns["phrase"].any()
    thinned = Sam3Proposer(str(folders["sam3"]), **{**OPEN, "mask_nms_thresh": 0.4}).propose(image)
    overlaps = pairwise_iou(thinned.masks, thinned.masks).fill_diagonal_(0)
    assert 1 < len(thinned) < len(whole) and float(overlaps.max()) < 0.45
    few = Sam3Proposer(str(folders["sam3"]), **OPEN, max_candidates=2).propose(image)
    assert torch.equal(few.masks, whole.masks[:2])


def test_nothing_found_is_an_empty_set(folders: dict[str, Path]) -> None:
    for nms in (None, 0.8):
        settings = {**OPEN, "score_thresh": 1.0, "mask_nms_thresh": nms}
        found = Sam3Proposer(str(folders["sam3"]), **settings).propose(image_of(40, 70))
        assert len(found) == 0 and found.image_size == (40, 70) and found.columns["phrase"].dtype == torch.int64
    none = Sam3Proposer(str(folders["sam3"]), **{**OPEN, "mask_thresh": 1.0}).propose(image_of(40, 70))
    assert len(none) == 0


def test_half_the_digits_change_little(folders: dict[str, Path]) -> None:
    image = image_of(40, 70)
    whole, half = (
        Sam3Proposer(str(folders["sam3"]), **OPEN, precision=p).propose(image) for p in ("float32", "bfloat16")
    )
    assert half.scores.dtype == torch.float32
    best, place = pairwise_iou(whole.masks, half.masks).max(1)
    assert float(best.median()) > 0.8
    assert float((whole.scores - half.scores[place]).abs().median()) < 0.05


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2, 60)])
def test_very_small_images(folders: dict[str, Path], size: tuple[int, int]) -> None:
    assert Sam3Proposer(str(folders["sam3"]), **OPEN).propose(image_of(*size)).image_size == size


def test_images_of_other_kinds_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="image must be"):
        Sam3Proposer(str(folders["sam3"]), **OPEN).propose(np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"phrases": []}, r"phrases must be a list of at least one phrase, none of them empty, got \[\]"),
        ({"phrases": ["fish", " "]}, "none of them empty"),
        ({"phrases": "fish"}, "must be a list"),
        ({"phrases": ["a long tail of words " * 9]}, "takes [0-9]+ tokens, expected at most 32"),
        ({"score_thresh": 2}, "score_thresh must be between 0 and 1, got 2"),
        ({"mask_thresh": -1}, "mask_thresh must be between 0 and 1, got -1"),
    ],
)
def test_settings_that_cannot_be(folders: dict[str, Path], changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Sam3Proposer(str(folders["sam3"]), **{**OPEN, **changes})


def test_models_that_will_not_do(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"none' could not be loaded.*'facebook/sam3' .*hf download facebook/sam3"
    ):
        Sam3Proposer(str(tmp_path / "none"), device="cpu")
    model_of("sam2").config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"not a SAM 3 model such as 'facebook/sam3' .*hf download.*model_type 'sam2'"):
        Sam3Proposer(str(tmp_path), device="cpu")
    write(model_of("sam3"), tmp_path)
    with pytest.raises(FileNotFoundError, match="could not be loaded"):  # there is no processor
        Sam3Proposer(str(tmp_path), device="cpu")
