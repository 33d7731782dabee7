"""`SceneDataset`: framing, sizes, cache, augmentation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from maskselect.scenes import stream
from maskselect.scenes.render import render
from maskselect.scenes.stream import SceneDataset

COUNT = 8


def test_items_are_the_drawn_scenes_in_the_middle_of_a_square() -> None:
    dataset = SceneDataset("val", 3, COUNT)
    shapes = set()
    for item in (dataset[k] for k in range(COUNT)):
        height, width = item["size"].tolist()
        assert (height, width) == SceneDataset.image_size_of(item["scene_id"])
        shapes.add((height, width))
        drawing = render(SceneDataset.scene_of(item["scene_id"]))
        top, left = (256 - height) // 2, (256 - width) // 2
        window = (slice(top, top + height), slice(left, left + width))
        assert item["image"].dtype == item["index"].dtype == torch.uint8
        assert item["image"].shape == (3, 256, 256)
        np.testing.assert_array_equal(item["index"].numpy()[window], drawing.index)
        np.testing.assert_array_equal(item["image"].permute(1, 2, 0).numpy()[window], drawing.image)
        assert int(item["index"].sum()) == int(drawing.index.sum())
    assert len(shapes) > 1


def test_a_quarter_of_the_scenes_are_not_square() -> None:
    sizes = [SceneDataset.image_size_of(f"train-0-{k}") for k in range(2000)]
    assert 0.2 < sum(h != w for h, w in sizes) / 2000 < 0.3
    assert set(sizes) == {(256, 256), (192, 256), (256, 192)}


def test_other_side() -> None:
    item = SceneDataset("val", 3, 2, size=96)[0]
    assert item["image"].shape == (3, 96, 96)
    assert item["index"].shape == (96, 96)
    assert max(item["size"].tolist()) == 96


def test_cache_gives_the_same_bytes_and_is_not_drawn_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [SceneDataset("val", 3, 4)[k] for k in range(4)]
    # Two processes fill it at once; another count shares it.
    list(DataLoader(SceneDataset("val", 3, 4, cache_dir=tmp_path), num_workers=2))
    monkeypatch.setattr(stream, "render", lambda scene: pytest.fail(f"drew {scene.id} again"))
    cached = SceneDataset("val", 3, 2, cache_dir=tmp_path)
    for k in range(2):
        assert torch.equal(cached[k]["image"], plain[k]["image"])
        assert torch.equal(cached[k]["index"], plain[k]["index"])


@pytest.mark.parametrize("name", ["image", "index", "done"])
def test_a_cache_that_was_cut_off_is_drawn_anew(name: str, tmp_path: Path) -> None:
    plain = [SceneDataset("val", 3, 2, cache_dir=tmp_path)[k] for k in range(2)]
    (file,) = tmp_path.rglob(f"{name}.u8")
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size * 2 // 3)
    for k, item in enumerate(plain):
        assert torch.equal(SceneDataset("val", 3, 2, cache_dir=tmp_path)[k]["image"], item["image"])


def test_augmentation_changes_pixels_but_not_the_cache_or_the_masks(tmp_path: Path) -> None:
    plain = SceneDataset("val", 3, 1, cache_dir=tmp_path)
    changed = SceneDataset("val", 3, 1, augment=True, cache_dir=tmp_path)
    before = plain[0]
    first, second = changed[0], changed[0]
    assert not torch.equal(first["image"], second["image"])
    assert torch.equal(first["index"], before["index"])
    assert torch.equal(plain[0]["image"], before["image"])
