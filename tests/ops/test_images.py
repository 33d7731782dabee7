"""Pictures in the corner of a square."""

import numpy as np
import pytest
import torch

from maskselect.ops.images import cornered_image, resized_image


@pytest.mark.parametrize(("height", "width"), [(16, 32), (32, 16), (20, 20), (1, 99), (301, 200)])
def test_a_picture_is_in_the_top_left_corner_of_a_grey_square(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 100, (height, width, 3), dtype=np.uint8)  # darker than the grey
    square, inner = cornered_image(image, 64)
    assert square.shape == (3, 64, 64) and square.dtype == torch.uint8 and max(inner) == 64
    assert abs(min(inner) - 64 * min(height, width) / max(height, width)) <= 0.5
    assert torch.equal(square[:, : inner[0], : inner[1]], resized_image(image, inner))
    assert (square[:, inner[0] :] == 128).all() and (square[:, :, inner[1] :] == 128).all()
    assert (square[:, : inner[0], : inner[1]] < 128).all()
