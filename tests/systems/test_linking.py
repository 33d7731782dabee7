"""Masks of frames become objects: by overlap while they move slowly, by likeness when they come back."""

import numpy as np
import torch

from maskselect.predictor import Model
from maskselect.structures.clip import ClipMasks
from maskselect.systems.linking import Links
from tests.systems.tiny import tiny_llmseg, tiny_ras


def box(x: int, y: int = 4, side: int = 8) -> torch.Tensor:
    mask = torch.zeros(32, 48, dtype=torch.bool)
    mask[y : y + side, x : x + side] = True
    return mask


RED, BLUE = torch.tensor([1.0, -1.0, 0.2]), torch.tensor([-1.0, 1.0, 0.1])


def masks_of(links: Links) -> ClipMasks:
    masks = links.answer().masks
    assert isinstance(masks, ClipMasks)
    return masks


def test_two_objects_that_cross_keep_their_numbers() -> None:
    links = Links(5, (32, 48))
    for t in range(5):
        red, blue = box(2 + 8 * t, 4), box(34 - 8 * t, 6)
        order = [0, 1] if t % 2 else [1, 0]  # the order of a frame's masks says nothing
        masks, features = torch.stack([red, blue])[order], torch.stack([RED, BLUE])[order]
        links.add(t, masks, torch.tensor([0.9, 0.8])[order], features)
    found = masks_of(links)
    assert len(found) == 2 and torch.equal(links.answer().scores, torch.tensor([0.9, 0.8]))
    for t in range(5):
        assert np.array_equal(found.frame(t), torch.stack([box(2 + 8 * t, 4), box(34 - 8 * t, 6)]).numpy())


def test_an_object_comes_back_and_another_is_new() -> None:
    links = Links(4, (32, 48))
    links.add(0, box(2)[None], torch.tensor([0.9]), RED[None])
    links.add(1, torch.zeros(0, 32, 48, dtype=torch.bool), torch.zeros(0), torch.zeros(0, 3))
    links.add(2, torch.stack([box(30), box(2)]), torch.tensor([0.7, 0.6]), torch.stack([RED, BLUE]))
    found = masks_of(links)
    assert len(found) == 2
    assert found.get(0, 0) is not None and found.get(0, 1) is None
    assert np.array_equal(found.get(0, 2), box(30).numpy()) and np.array_equal(found.get(1, 2), box(2).numpy())
    assert found.get(1, 0) is None and torch.allclose(links.answer().scores, torch.tensor([0.8, 0.6]))


def test_a_picture_is_a_clip_of_one_frame() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[:10, :10] = True
    for system in (tiny_ras(), tiny_llmseg()):
        model = Model(system, threshold=0.0)
        for prompt, references in (("stars", []), ("left of <mask-ref>", [mask])):
            group, clip = model.select(picture, prompt, references), model.select_video([picture], prompt, references)
            assert len(group) == len(clip)
            assert np.array_equal(clip.frame(0), group.masks) and np.array_equal(clip.scores, group.scores)
            assert clip == model.select_video([picture], prompt, references)
            assert clip != model.select_video([picture, picture], prompt, references)


def test_a_reference_of_a_later_frame_is_that_frame() -> None:
    """The features of a reference are of the frame on which it is given, for the answers on all frames."""
    first, second = (np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8) for seed in (1, 2))
    mask = np.zeros((40, 60), bool)
    mask[:20, :20] = True
    model = Model(tiny_ras(), threshold=0.0)
    asked = "left of <mask-ref>"
    on_second = model.select_video([first, second], asked, [mask], frames=[1])
    swapped = model.select_video([second, first], asked, [mask], frames=[0])
    alone = model.select(second, asked, [mask])
    assert np.array_equal(on_second.frame(1).any(0), alone.mask) and np.array_equal(swapped.frame(0).any(0), alone.mask)
    assert on_second.reference_frames == (1,)
