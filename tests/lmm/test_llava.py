"""The language model wrapper: the same numbers as transformers, weights by folder, and its tokenizer."""

from pathlib import Path

import pytest
import torch

from maskselect.lmm.llava import CLIP_MEAN, CLIP_STD, Llava
from maskselect.lmm.tokenizer import SPECIAL_TOKENS, load_compact
from tests.systems.tiny import SIZES


def test_image_and_text_give_transformers_own_hidden_states() -> None:
    torch.manual_seed(0)
    lmm = Llava(sizes=SIZES).eval()
    images = torch.rand(1, 3, SIZES.image_size, SIZES.image_size)
    ids = torch.tensor([[1, 3, 3, 3, 3, 40, 41]])  # four image tokens at this size
    pixels = (images - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)
    with torch.no_grad():
        wanted = lmm.model.model(input_ids=ids, pixel_values=pixels).last_hidden_state
        tokens = lmm.project_image(lmm.vision_features(images))
        embeddings = torch.cat([lmm.embed(ids[:, :1]), tokens, lmm.embed(ids[:, 5:])], 1)
        torch.testing.assert_close(lmm.hidden(embeddings), wanted, atol=1e-5, rtol=1e-4)


def test_training_attention_equals_inference_attention() -> None:
    lmm = Llava(sizes=SIZES).eval()
    embeddings = torch.randn(2, 6, lmm.width)
    visible = torch.ones(6, 6, dtype=torch.bool).tril().expand(2, 1, 6, 6)
    with torch.no_grad():
        fused = lmm.hidden(embeddings, visible)
    torch.testing.assert_close(lmm.hidden(embeddings, visible).detach(), fused, atol=1e-5, rtol=1e-4)


def test_a_published_model_loads_from_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    compact = Llava(sizes=SIZES).eval()
    compact.model.save_pretrained(tmp_path)
    compact.tokenizer.save_pretrained(tmp_path)
    loaded = Llava(model=str(tmp_path)).eval()
    embeddings = torch.randn(1, 5, compact.width)
    with torch.no_grad():
        torch.testing.assert_close(loaded.hidden(embeddings), compact.hidden(embeddings))
    assert loaded.token_ids("red mugs") == compact.token_ids("red mugs")


def test_absent_weights_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="hf download"):
        Llava(model=str(tmp_path / "nothing"))


def test_generation_follows_the_embeddings() -> None:
    torch.manual_seed(0)
    lmm = Llava(sizes=SIZES).eval()
    embeddings = lmm.embed(torch.tensor([lmm.token_ids("a red", begin=True)]))
    text = lmm.generate(embeddings, max_new_tokens=4)
    ids = lmm.token_ids("a red", begin=True)
    for _ in range(4):
        with torch.no_grad():
            step = int(lmm.token_logits(lmm.hidden(lmm.embed(torch.tensor([ids]))))[0, -1].argmax())
        ids.append(step)
        if step == lmm.tokenizer.eos_token_id:
            break
    assert text == lmm.tokenizer.decode(ids[-4:], skip_special_tokens=True).strip()


def test_tokenizer_reads_anything_in_lower_case() -> None:
    tokenizer = load_compact()
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3]
    for text in ("the red mugs", "naïve 图像 🙂", "left of\nit"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids).strip() == text
    upper, lower = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in ("RED Mugs", "red mugs"))
    assert upper == lower


@pytest.mark.parametrize(
    "word", ["circle", "mug", "bottle", "lamp", "striped", "dotted", "shiny", "leftmost", "grey", "larger", "between"]
)
def test_common_words_are_one_token(word: str) -> None:
    assert len(load_compact()(word, add_special_tokens=False)["input_ids"]) == 1
