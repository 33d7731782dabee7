"""Candidates are made once for each picture, by whoever asks, and never mixed up between proposers."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from maskselect.proposers.kept import KeptProposer
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import PromptableProposer


class Log:
    """What was asked; not of the project, so no identity looks into it."""

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []


class Counting:
    """Halves of a picture, with a log of what it was asked."""

    def __init__(self, score: float = 0.1) -> None:
        self.score, self.log = score, Log()

    def cache_key(self) -> str:
        return str(self.score)

    def propose(self, image: np.ndarray) -> MaskSet:
        self.log.images.append(image)
        masks = torch.zeros(2, *image.shape[:2], dtype=torch.bool)
        masks[0, :, : image.shape[1] // 2], masks[1, :, image.shape[1] // 2 :] = True, True
        return MaskSet(masks, torch.tensor([self.score, 1 / 3]), "halves", {"stability": torch.tensor([0.7, 0.2])})


def _image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (12, 20, 3), dtype=np.uint8)


def test_a_picture_is_proposed_once_and_read_exactly_as_it_was(tmp_path: Path) -> None:
    made = Counting()
    first, again = (KeptProposer(made, tmp_path).propose(_image()) for _ in range(2))
    fresh = Counting().propose(_image())
    assert len(made.log.images) == 1
    for one in (first, again):
        assert torch.equal(one.masks, fresh.masks) and torch.equal(one.scores, fresh.scores)
        assert torch.equal(one.columns["stability"], fresh.columns["stability"]) and one.source == "halves"


def test_another_picture_and_the_same_pixels_in_another_shape_are_others(tmp_path: Path) -> None:
    made = Counting()
    kept = KeptProposer(made, tmp_path)
    for image in (_image(), _image(1), _image().reshape(20, 12, 3)):
        assert kept.propose(image).image_size == image.shape[:2]
    assert len(made.log.images) == 3


def test_a_proposer_with_other_settings_has_its_own(tmp_path: Path) -> None:
    scores = [KeptProposer(Counting(score), tmp_path).propose(_image()).scores[0].item() for score in (0.1, 0.9, 0.1)]
    assert scores == pytest.approx([0.1, 0.9, 0.1])
    assert len([*tmp_path.iterdir()]) == 2


def test_what_else_the_proposer_can_do_it_still_can(tmp_path: Path) -> None:
    class Pointing(Counting):
        def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> torch.Tensor:
            return torch.ones(image.shape[:2], dtype=torch.bool)

        segment_boxes = segment_point = segment_box

    assert isinstance(KeptProposer(Pointing(), tmp_path), PromptableProposer)
    assert not isinstance(KeptProposer(Counting(), tmp_path), PromptableProposer)
    assert pickle.loads(pickle.dumps(KeptProposer(_Plain(), tmp_path))).propose(_image()).source == "plain"


class _Plain:
    def cache_key(self) -> str:
        return "plain"

    def propose(self, image: np.ndarray) -> MaskSet:
        return MaskSet.empty((image.shape[0], image.shape[1]), "plain")


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    kept = KeptProposer(Counting(), tmp_path)
    first = kept.propose(_image())
    (file,) = tmp_path.rglob("*.json")
    whole = file.read_text()
    for damaged in ("{", whole[: len(whole) // 2], "[]", ""):
        file.write_text(damaged)
        assert torch.equal(KeptProposer(Counting(), tmp_path).propose(_image()).masks, first.masks)
        assert file.read_text() == whole
