from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskselect.reports import overlay
from maskselect.reports.files import answer_paths, output_folder, refuse_overwriting, write_answer, write_json
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
    picture = overlay.draw_overlay(group(size, masks=1))
    assert picture.mode == "RGB"
    assert picture.width == width


def test_the_image_itself_is_left_alone() -> None:
    asked = group((800, 900))
    before = asked.image.copy()
    overlay.draw_overlay(asked)
    assert np.array_equal(asked.image, before)


def test_chosen_masks_are_tinted_and_the_rest_is_dimmed() -> None:
    asked = group((800, 900), masks=1)
    drawn = np.asarray(overlay.draw_overlay(asked))
    inside, outside = drawn[20, 200].astype(int), drawn[700, 800].astype(int)
    assert inside[1] - inside[0] > 50  # the palette's green on grey
    assert np.ptp(outside) == 0
    assert outside[0] == int(120 * overlay.REST)


def test_nothing_chosen_leaves_the_picture_as_it_is() -> None:
    drawn = np.asarray(overlay.draw_overlay(group((800, 900), masks=0)))
    assert (drawn[:800] == 120).all()


def test_references_are_outlined_in_their_own_colour() -> None:
    drawn = np.asarray(overlay.draw_overlay(group((800, 900), masks=0, references=1, prompt="near <mask-ref>")))
    edge = drawn[530:545, :450].reshape(-1, 3)
    assert (edge == overlay.REFERENCE).all(1).any()
    assert (edge == 255).all(1).any()


def test_the_caption_grows_with_the_prompt_up_to_a_limit() -> None:
    heights = [overlay.draw_overlay(group(prompt=text)).height for text in ("mugs", "mugs " * 40, "m" * 5000)]
    assert heights[0] < heights[1] < heights[2]
    assert heights[2] == overlay.draw_overlay(group(prompt="mugs " * 5000)).height


def test_placeholders_are_numbered_as_the_labels_are() -> None:
    assert overlay._numbered("left of <mask-ref>, near <mask-ref>") == "left of <ref1>, near <ref2>"


def test_colours_never_end_and_differ_from_the_references() -> None:
    colours = [overlay._colour(k) for k in range(60)]
    assert len(set(colours)) == 60
    distance = min(np.abs(np.subtract(colour, overlay.REFERENCE)).max() for colour in colours)
    assert distance > 50


def test_labels_stay_inside_and_do_not_cover_each_other() -> None:
    asked = group((400, 400), masks=6)
    crowded = MaskGroup(asked.image, "x", np.repeat(asked.masks[:1], 4, 0), asked.scores[:4], 9, 0.5, asked.references)
    for one in (asked, crowded):
        assert overlay.draw_overlay(one).width == 768


def test_groups_draw_themselves(tmp_path: Path) -> None:
    base = group()
    drawn = MaskGroup(**(vars(base) | {"drawer": overlay.draw_overlay}))
    assert drawn.overlay(tmp_path / "a.png").size == Image.open(tmp_path / "a.png").size
    with pytest.raises(RuntimeError, match="no drawer"):
        base.overlay()


# Files.
def test_the_output_folder_is_tried_first_and_removed_when_nothing_comes(tmp_path: Path) -> None:
    with output_folder(tmp_path / "a" / "b") as folder:
        assert folder.is_dir()
    assert not (tmp_path / "a").exists()
    with output_folder(tmp_path / "a" / "b") as folder:
        write_json({"x": 1}, folder / "r.json")
    assert (tmp_path / "a" / "b" / "r.json").is_file()


def test_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "under"):
        with pytest.raises(ValueError, match="is not writable"), output_folder(folder):
            pass


def test_an_answer_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_answer(group(), tmp_path, Path("some/cup.jpg"), "ras")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cup.json", "cup.mask.png", "cup.overlay.png"]
    assert all(path.is_file() for path in answer_paths(tmp_path, "cup"))

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("maskselect.reports.files._json_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        write_answer(group(), tmp_path, Path("other.jpg"), "ras")
    assert len(list(tmp_path.iterdir())) == 3


def test_an_answer_never_takes_the_place_of_an_image(tmp_path: Path) -> None:
    refuse_overwriting([tmp_path / "a.png"], tmp_path)
    with pytest.raises(ValueError, match=r"would overwrite the image .*a\.mask\.png"):
        refuse_overwriting([tmp_path / "a.png", tmp_path / "a.mask.png"], tmp_path)
