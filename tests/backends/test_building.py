"""Objects from cards."""

import pytest

from maskselect.backends.building import build
from maskselect.lmm.llava import Llava

SIZES = {"width": 32, "layers": 2, "heads": 2, "ffn": 48, "vision_width": 16, "vision_layers": 2, "vision_heads": 2,
         "vision_ffn": 16, "image_size": 32}  # fmt: skip


def test_settings_may_be_plain_dicts() -> None:
    lora = {"r": 2, "alpha": 4, "targets": ["q_proj"]}
    made = build({"class_path": "maskselect.lmm.llava.Llava", "init_args": {"sizes": SIZES, "lora": lora}})
    assert isinstance(made, Llava)
    assert made.width == 32
    assert any("lora_A" in name for name, _ in made.named_parameters())


def test_a_setting_that_does_not_exist_is_told() -> None:
    with pytest.raises(ValueError, match=r"lora of Llava does not fit LoraSettings: .*rank"):
        build({"class_path": "maskselect.lmm.llava.Llava", "init_args": {"sizes": SIZES, "lora": {"rank": 2}}})


def test_foreign_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="not part of maskselect"):
        build({"class_path": "os.system", "init_args": {}})
