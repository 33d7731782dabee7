import numpy as np
import pytest

from maskselect.ops import drawing
from maskselect.structures.prediction import MaskGroup


def group(size: tuple[int, int] = (64, 96), masks: int = 2, references: int = 0, prompt: str = "the mugs") -> MaskGroup:
    """Squares from the left to the right; references along the lower edge."""
    height, width = size
    chosen, pointed = np.zeros((masks, *size), bool), np.zeros((references, *size), bool)
    for k in range(masks):
        chosen[k, : height // 2, k * width // masks : k * width // masks + width // (2 * masks)] = True
    for k in range(references):
        pointed[k, 2 * height // 3 :, k * width // references : k * width // references + width // (2 * references)] = (
            True
        )
    image = np.full((*size, 3), 120, np.uint8)
    return MaskGroup(image, prompt, chosen, np.linspace(0.9, 0.6, masks, dtype=np.float32), 37, 0.5, pointed)


@pytest.mark.parametrize(
    ("size", "width"), [((64, 96), 768), ((1000, 500), 500), ((30, 4000), 2048), ((4000, 20), 360), ((1, 1), 768)]
)
def test_small_images_grow_and_large_ones_shrink(size: tuple[int, int], width: int) -> None:
    picture = group(size, masks=1).overlay()
    assert picture.mode == "RGB"
    assert picture.width == width


def test_the_image_itself_is_left_alone() -> None:
    asked = group((800, 900))
    before = asked.image.copy()
    asked.overlay()
    assert np.array_equal(asked.image, before)


def test_chosen_masks_are_tinted_and_the_rest_is_dimmed() -> None:
    asked = group((800, 900), masks=1)
    drawn = np.asarray(asked.overlay())
    inside, outside = drawn[20, 200].astype(int), drawn[700, 800].astype(int)
    assert inside[1] - inside[0] > 50  # the palette's green on grey
    assert np.ptp(outside) == 0
    assert outside[0] == int(120 * drawing.REST)


def test_nothing_chosen_leaves_the_picture_as_it_is() -> None:
    drawn = np.asarray(group((800, 900), masks=0).overlay())
    assert (drawn[:800] == 120).all()


def test_references_are_outlined_in_their_own_colour() -> None:
    drawn = np.asarray(group((800, 900), masks=0, references=1, prompt="near <mask-ref>").overlay())
    edge = drawn[530:545, :450].reshape(-1, 3)
    assert (edge == drawing.REFERENCE).all(1).any()
    assert (edge == 255).all(1).any()


def test_the_caption_grows_with_the_prompt_up_to_a_limit() -> None:
    heights = [group(prompt=text).overlay().height for text in ("mugs", "mugs " * 40, "m" * 5000)]
    assert heights[0] < heights[1] < heights[2]
    assert heights[2] == group(prompt="mugs " * 5000).overlay().height


def test_colours_never_end_and_differ_from_the_references() -> None:
    colours = [drawing.colour_of(k) for k in range(60)]
    assert len(set(colours)) == 60
    distance = min(np.abs(np.subtract(colour, drawing.REFERENCE)).max() for colour in colours)
    assert distance > 50


def test_labels_stay_inside_and_do_not_cover_each_other() -> None:
    asked = group((400, 400), masks=6)
    crowded = MaskGroup(asked.image, "x", np.repeat(asked.masks[:1], 4, 0), asked.scores[:4], 9, 0.5, asked.references)
    for one in (asked, crowded):
        assert one.overlay().width == 768
