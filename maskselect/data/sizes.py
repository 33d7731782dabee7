"""The check of training, evaluation and `data check` that masks have the size of their image."""

from pathlib import Path

from maskselect.data.images import is_turned
from maskselect.structures.sample import Sample


def refuse_other_size(sample: Sample, size: tuple[int, int]) -> None:
    """Refuse a sample whose masks have another size than its image.

    The usual cause is a photograph with an EXIF orientation, labelled by a tool that ignores it.

    Args:
        sample: the sample.
        size: (H, W) of the image, upright.

    Raises:
        ValueError: the sizes differ.
    """
    shape = (int(sample.gt_pool.shape[1]), int(sample.gt_pool.shape[2]))
    if shape == size:
        return
    hint = ""
    if shape == size[::-1] and isinstance(sample.image, Path) and is_turned(sample.image):
        hint = "; its EXIF orientation turns it, and the masks are in the frame before: label the upright picture"
    image = str(sample.image) if isinstance(sample.image, Path) else sample.image_id
    raise ValueError(f"sample {sample.sample_id}: masks of {list(shape)}, image {image} of {list(size)} (h, w){hint}")
