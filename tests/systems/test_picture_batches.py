"""Batches of pictures with masks and with texts."""

import numpy as np
import pytest
import torch

from maskselect.recipes.compact.sam import SamTask
from maskselect.scenes.groups import SceneGroups
from maskselect.structures.batches import MaskBatch
from maskselect.structures.groups import Annotated, PrepareSettings, Query, UnusableImageError
from maskselect.structures.protocols import GroupLearner
from maskselect.systems.picture_batches import MaskPreparer, TextPreparer, photometric, squared_image

RNG = np.random.default_rng


class Photographs:
    """Two pictures of different shapes; the second has overlapping masks, the third cannot be read."""

    shapes = ((40, 100), (90, 60))

    def __len__(self) -> int:
        return 3

    def image_id(self, item: int) -> str:
        return f"photo {item}"

    def version(self, item: int) -> str:
        return "1"

    def prompts_of(self, item: int) -> int:
        return 0

    def load(self, item: int) -> Annotated:
        if item == 2:
            raise OSError("file is truncated")
        height, width = self.shapes[item]
        image = np.full((height, width, 3), 50 * (item + 1), np.uint8)
        masks = torch.zeros(item + 1, height, width, dtype=torch.bool)
        masks[0, : height // 2], masks[-1, :, : width // 2] = True, True
        return Annotated(image, masks)

    def queries(self, item: int, extra: object, count: int, rng: object) -> list[Query]:
        return []

    def caption(self, item: int, extra: object, rng: object) -> str:
        raise ValueError("no captions")


def batch_of(preparer: MaskPreparer, count: int = 2) -> MaskBatch:
    source = Photographs()
    return preparer.collate([preparer.prepare(source, k, RNG(k), 4) for k in range(count)])


def test_pictures_lie_in_the_middle_of_a_square_with_their_masks() -> None:
    batch = batch_of(MaskPreparer(60))
    assert batch.images.shape == (2, 3, 60, 60) and batch.images.dtype == torch.uint8
    assert batch.sizes.tolist() == [[24, 60], [60, 40]]
    assert [masks.shape for masks in batch.masks] == [(1, 60, 60), (2, 60, 60)]
    inside = torch.zeros(2, 60, 60, dtype=torch.bool)
    inside[0, 18:42], inside[1, :, 10:50] = True, True
    assert torch.equal(batch.images[:, 0] > 0, inside)
    assert (batch.images[1][:, inside[1]] == 100).all()
    assert torch.equal(batch.masks[1][1].any(0).nonzero()[:, 0], torch.arange(10, 30))
    assert batch.image_ids == ["photo 0", "photo 1"]


def test_of_masks_that_overlap_the_index_shows_the_last() -> None:
    index = batch_of(MaskPreparer(60)).index()[1]
    assert index[0, 15] == 2 and index[0, 45] == 1 and index[50, 45] == 0 and index[0, 5] == 0
    many = MaskBatch(
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.ones(1, 2), [torch.ones(256, 4, 4).bool()], ["a"]
    )
    with pytest.raises(ValueError, match="256 masks; an index map holds 255"):
        many.index()


def test_light_changes_in_training_alone() -> None:
    plain, changed = batch_of(MaskPreparer(60)), batch_of(MaskPreparer(60, augment=True))
    assert not torch.equal(plain.images, changed.images)
    assert all(torch.equal(*pair) for pair in zip(plain.masks, changed.masks, strict=True))
    image = Photographs().load(0).image
    assert np.array_equal(photometric(image, RNG(3)), photometric(image, RNG(3)))


def test_a_picture_of_the_side_is_not_touched() -> None:
    image = RNG(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    square, size = squared_image(image, 64)
    assert size == (48, 64) and np.array_equal(square[:, 8:56].permute(1, 2, 0).numpy(), image)


def test_a_picture_that_cannot_be_read_is_named() -> None:
    with pytest.raises(UnusableImageError, match="photo 2: file is truncated"):
        MaskPreparer(60).prepare(Photographs(), 2, RNG(0), 4)
    with pytest.raises(TypeError, match="Photographs has no texts"):
        TextPreparer(60, 2).prepare(Photographs(), 0, RNG(0), 4)


def test_texts_are_captions_and_dialogues() -> None:
    preparer, scenes = TextPreparer(256, 12), SceneGroups("val", 3, 4)
    batch = preparer.collate([preparer.prepare(scenes, k, RNG(k), 1) for k in range(4)])
    assert batch.images.shape == (4, 3, 256, 256) and [len(texts) for texts in batch.texts] == [12] * 4
    questions = [question for texts in batch.texts for question, _ in texts]
    assert 0.1 < sum(bool(question) for question in questions) / len(questions) < 0.6
    only = SceneGroups("val", 3, 4, dialogue_share=0.0)
    assert all(question == "" for question, _ in preparer.prepare(only, 0, RNG(0), 1).texts)


def test_learners_of_compact_parts_are_fed_by_groups() -> None:
    sam = dict(image_size=64, patch_size=16, embed_dim=16, depth=1, num_heads=2, window_size=0, prompt_dim=16)
    task = SamTask(sam | dict(global_attn_indexes=[0], decoder_mlp_dim=16, iou_head_hidden_dim=16))
    preparer = task.preparer(PrepareSettings(), True)
    assert isinstance(task, GroupLearner)
    assert preparer.collate([preparer.prepare(Photographs(), 0, RNG(0), 1)]).images.shape == (1, 3, 64, 64)
