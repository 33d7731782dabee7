"""Subsets of images: what is held out, the same pictures in every data set, and what is left out for sibling sets."""

import doctest
from pathlib import Path

import pytest

from maskselect.data import subsets
from maskselect.data.groups import DatasetGroups
from maskselect.data.refer import ReferDataset
from maskselect.data.subsets import chosen_samples
from maskselect.structures.provenance import TrainingData
from tests.data.test_refer import REFS, write_root

IMAGES = [f"coco/{number}" for number in range(2000) for _ in range(2)]


def test_examples() -> None:
    assert doctest.testmod(subsets).failed == 0


def parts(images: list[str], numbered: bool = True) -> tuple[list[int], list[int]]:
    apart = chosen_samples(images, "held_out", 0.05, numbered=numbered)
    return chosen_samples(images, "training", 0.05, numbered=numbered), apart


def test_each_image_is_on_one_side() -> None:
    training, apart = parts(IMAGES)
    assert sorted(training + apart) == chosen_samples(IMAGES) == list(range(4000))
    assert 0.03 < len(apart) / len(IMAGES) < 0.07
    assert not {IMAGES[n] for n in training} & {IMAGES[n] for n in apart}


def test_pictures_of_several_sets_are_held_out_in_all_of_them() -> None:
    names = [f"COCO_train2014_{number:012}.jpg" for number in range(2000)]
    assert {int(IMAGES[n][5:]) for n in parts(IMAGES)[1]} == set(parts(names)[1])
    assert set(parts(names)[1]) != set(parts(names, numbered=False)[1])


def test_a_larger_share_holds_out_more_of_the_same_images() -> None:
    assert set(parts(IMAGES)[1]) < set(chosen_samples(IMAGES, "held_out", 0.2, numbered=True))


def test_a_small_set_holds_out_one_image() -> None:
    assert len(chosen_samples(["a", "b", "c"], "held_out", 0.001)) == 1
    assert len(chosen_samples(["a", "b", "c"], "training", 0.001)) == 2
    assert chosen_samples([], "held_out") == []


def test_a_share_of_the_training_images_holds_nothing_that_is_held_out() -> None:
    training, apart = parts(IMAGES)
    some = chosen_samples(IMAGES, "training", 0.05, image_share=0.25, numbered=True)
    assert set(some) < set(training) and 0.2 < len(some) / len(training) < 0.3
    # A share of its own digests: otherwise half of the images would hold everything that is held out.
    half = set(chosen_samples(IMAGES, image_share=0.5, numbered=True))
    assert 0.3 < len(half & set(apart)) / len(apart) < 0.7


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_shares_that_cannot_be(share: float) -> None:
    with pytest.raises(ValueError, match=r"held_out_share is .*; expected a number above 0"):
        chosen_samples(["a"], "held_out", share)
    with pytest.raises(ValueError, match="image_share is"):
        chosen_samples(["a"], image_share=share)


def test_groups_of_both_parts(tmp_path: Path) -> None:
    root = write_root(tmp_path, refs=[{**ref, "split": "train"} for ref in REFS])
    training, apart = (DatasetGroups("refcoco", root, part=part) for part in ("training", "held_out"))
    assert sorted(training.images + apart.images) == ["1", "2"] and len(apart) == 1
    assert DatasetGroups("refcoco", root, part="held_out", limit=1).prompts_of(0) == 1
    with pytest.raises(ValueError, match=r"refcoco train in .* has no image in the part 'training'"):
        DatasetGroups("refcoco", root, part="training", held_out_share=1.0)


def test_what_a_part_learned_from() -> None:
    arguments = {"dataset": "refcoco", "part": "training", "settings": {"without": ["refcocog"]}}
    (data,) = DatasetGroups.training_data(arguments)
    assert data == TrainingData("refcoco", part="training", held_out_share=0.01, without=("refcocog",))
    assert TrainingData(**{**vars(data), "without": ["refcocog"]}) == data  # as JSON has it
    assert data.described_images == ", without the held-out images, without the evaluation images of refcocog"
    (whole,) = DatasetGroups.training_data({"dataset": "refcoco"})
    assert whole == TrainingData("refcoco") and whole.described_images == ""


def test_images_that_a_sibling_set_is_evaluated_on_are_left_out(tmp_path: Path) -> None:
    """By REFER's splits RefCOCO trains on image 1, which RefCOCOg validates on."""
    write_root(tmp_path, refs=[{**ref, "split": "train"} for ref in REFS])
    write_root(
        tmp_path, "refcocog", refs=[{**ref, "split": "val" if ref["image_id"] == 1 else "train"} for ref in REFS]
    )
    assert set(ReferDataset("refcoco", tmp_path, "train").image_ids()) == {"1", "2"}
    apart = ReferDataset("refcoco", tmp_path, "train", without=["refcoco", "refcocog"])
    assert set(apart.image_ids()) == {"2"} and [s.prompt.text for s in apart] == ["c", "e"]
    with pytest.raises(FileNotFoundError, match=r"annotations of refcoco\+"):
        ReferDataset("refcoco", tmp_path, "train", without=["refcoco+"])
    with pytest.raises(ValueError, match="unknown data set 'coco'"):
        ReferDataset("refcoco", tmp_path, "train", without=["coco"])
    groups = {"dataset": "refcoco", "root": str(tmp_path), "settings": {"without": ["refcoco+"]}}
    assert "annotations of refcoco+" in DatasetGroups.needs(groups)[0].what
