"""Masks must be of the size of their picture: the check that training, evaluation and `data check` share."""

from pathlib import Path

from maskselect.data.images import is_turned
from maskselect.structures.sample import Sample


def refuse_other_size(sample: Sample, size: tuple[int, int]) -> None:
    """Raise ValueError when a sample's masks are of another size than its picture.

    The usual cause is a photograph that is turned by its EXIF orientation, labelled by a tool that does not turn it.

    Args:
        size: (H, W) of the picture, upright.
    """
    shape = (int(sample.gt_pool.shape[1]), int(sample.gt_pool.shape[2]))
    if shape == size:
        return
    hint = ""
    if shape == size[::-1] and isinstance(sample.image, Path) and is_turned(sample.image):
        hint = "; its EXIF orientation turns it, and the masks are in the frame before: label the upright picture"
    raise ValueError(
        f"sample {sample.sample_id}: masks of {list(shape)}, image {_named(sample)} of {list(size)} (h, w){hint}"
    )


def _named(sample: Sample) -> str:
    return str(sample.image) if isinstance(sample.image, Path) else sample.image_id
