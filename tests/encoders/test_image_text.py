"""`ImageText` against transformers' own processors and models: tiny random weights, loaded from folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor, Siglip2Tokenizer

from maskselect.encoders.image_text import ImageText
from tests.systems.tiny_public import gemma_words, write_clip, write_qwen2_vl, write_siglip

TEXTS = ["a red mug", "The Dog left of a very long table with many legs and things and more and more and more things"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "siglip": write_siglip(tmp_path_factory.mktemp("siglip")),
        "siglip2": write_siglip(tmp_path_factory.mktemp("siglip2"), naflex=True),
        "clip": write_clip(tmp_path_factory.mktemp("clip")),
    }


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in ((40, 60), (32, 32), (1, 5), (90, 20))]


@pytest.mark.parametrize("kind", ["siglip", "siglip2", "clip"])
def test_logits_are_transformers_own(folders: dict[str, Path], kind: str) -> None:
    ours = ImageText(str(folders[kind]), batch=3)
    model, processor = AutoModel.from_pretrained(folders[kind]).eval(), AutoProcessor.from_pretrained(folders[kind])
    lengths: dict[str, Any] = {"padding": "max_length"} if kind != "clip" else {"padding": True}
    longest = model.config.text_config.max_position_embeddings
    words = processor.tokenizer(
        [t.lower() for t in TEXTS], truncation=True, max_length=longest, return_tensors="pt", **lengths
    )
    given = processor.image_processor(pictures(), input_data_format="channels_last", return_tensors="pt")
    known = ("input_ids",) if kind != "clip" else ("input_ids", "attention_mask")
    with torch.no_grad():
        want = model(**{name: words[name] for name in known}, **given).logits_per_text
    images, texts = ours.images(pictures()), ours.texts(TEXTS)
    assert images.shape == (4, ours.channels) and images.dtype == torch.float32
    torch.testing.assert_close(images.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(ours.logits(images, texts), want, atol=1e-4, rtol=1e-4)
    assert want.std() > 1e-3  # so that the comparison says something
    assert ours.images([]).shape == (0, ours.channels)


def test_texts_are_lower_cased_as_siglip_2_was_trained(folders: dict[str, Path]) -> None:
    ours = ImageText(str(folders["siglip"]))
    assert type(ours.processor.tokenizer).__name__ == "GemmaTokenizer"  # as the published files say
    torch.testing.assert_close(ours.texts(["The Dog"]), ours.texts(["the dog"]))
    words = gemma_words()
    right = Siglip2Tokenizer(vocab=words.get_vocab(), merges=[], add_bos_token=False, add_eos_token=True)
    assert right("The Dog")["input_ids"] == words("the dog")["input_ids"] != words("The Dog")["input_ids"]


def test_half_precision_is_close(folders: dict[str, Path]) -> None:
    half, full = (ImageText(str(folders["siglip"]), dtype=dtype) for dtype in ("bfloat16", "float32"))
    assert next(half.model.parameters()).dtype == torch.bfloat16
    torch.testing.assert_close(half.images(pictures()), full.images(pictures()), atol=0.05, rtol=0)
    assert half.logits(half.images(pictures()), half.texts(TEXTS)).dtype == torch.float32


def test_other_models_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model_type 'qwen2_vl', expected clip, siglip, siglip2"):
        ImageText(str(write_qwen2_vl(tmp_path)))
    with pytest.raises(FileNotFoundError, match="hf download google/siglip2-base-patch16-224"):
        ImageText(str(tmp_path / "nothing"))
    needs = ImageText.needs({"model": str(tmp_path / "nothing")})
    assert needs and needs[0].kind == "weights" and "google/siglip2" in needs[0].help
