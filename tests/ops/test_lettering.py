"""Captions in any script: no boxes where there should be letters."""

import numpy as np
import pytest
from PIL import Image

from maskselect.ops import lettering
from maskselect.ops.lettering import Lettering
from maskselect.structures.prediction import MaskGroup

TEXTS = ["größte Äpfel, naïve façade", "красная кружка", "κόκκινα", "红色的杯子", "赤いカップ", "빨간 컵", "a … b → c"]


def drawn(letters: Lettering, text: str) -> np.ndarray:
    picture = Image.new("RGB", (1200, 60))
    letters.draw(picture, (5, 5), text, (255, 255, 255))
    return np.asarray(picture)


def boxes(letters: Lettering, text: str) -> np.ndarray:
    """What the text would look like if no letter were known."""
    return drawn(letters, text.encode("ascii", "backslashreplace").decode())


@pytest.mark.parametrize("text", TEXTS)
def test_letters_are_letters_or_code_points(text: str) -> None:
    letters = Lettering(24)
    for face, part in letters._parts(text):
        assert all(lettering._has(face, letter) for letter in part), part
    assert drawn(letters, text).any() and letters.length(text) > 10


def test_scripts_are_written_where_a_font_has_them() -> None:
    """OpenCV brings one from version 5 on."""
    letters = Lettering(24)
    if not any(isinstance(face, lettering._OpenCv) for face in lettering._faces(24)):
        pytest.skip("this OpenCV brings no font")
    for text in TEXTS:
        assert "".join(part for _, part in letters._parts(text)) == text
        assert not np.array_equal(drawn(letters, text), boxes(letters, text))
    distinct = {drawn(letters, letter).tobytes() for letter in "äöüßжя红杯あ한"}
    assert len(distinct) == 10


def test_ascii_is_written_as_before() -> None:
    from PIL import ImageDraw, ImageFont

    picture = Image.new("RGB", (1200, 60))
    ImageDraw.Draw(picture).text((5, 5), "the red mugs (2)", font=ImageFont.load_default(24), fill=(255, 255, 255))
    assert np.array_equal(drawn(Lettering(24), "the red mugs (2)"), np.asarray(picture))


def test_letters_that_no_font_has_are_code_points(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [lettering._faces(24)[0]]
    monkeypatch.setattr(lettering, "_faces", lambda size: own)
    letters = Lettering(24)
    assert [part for _, part in letters._parts("grün 红")] == ["gr\\xfcn \\u7ea2"]
    assert np.array_equal(drawn(letters, "红"), boxes(letters, "红"))
    assert "".join(part for _, part in letters._parts("ก้ x")) == "\\u0e01\\u0e49 x"


def test_captions_of_any_script_are_drawn() -> None:
    image, none = np.full((60, 90, 3), 90, np.uint8), np.zeros((0, 60, 90), bool)
    pictures = [
        MaskGroup(image, text, none, np.zeros(0, np.float32), 3, 0.5, none).overlay() for text in (*TEXTS, "x" * 400)
    ]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
