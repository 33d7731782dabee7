"""Sizes of scenes."""

from maskselect.scenes.render import render
from maskselect.scenes.stream import image_size_of, scene_of


def test_a_quarter_of_the_scenes_are_not_square() -> None:
    sizes = [image_size_of(f"train-0-{k}") for k in range(2000)]
    assert 0.2 < sum(h != w for h, w in sizes) / 2000 < 0.3
    assert set(sizes) == {(256, 256), (192, 256), (256, 192)}


def test_scenes_are_drawn_at_their_size() -> None:
    for number in range(8):
        name = f"val-3-{number}"
        assert render(scene_of(name)).image.shape[:2] == image_size_of(name)
