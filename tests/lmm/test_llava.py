"""The language model wrapper: the same numbers as transformers, weights by folder, and its tokenizer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, LlavaImageProcessor

from maskselect.lmm.image_square import MeanPadding
from maskselect.lmm.llava import CLIP_MEAN, CLIP_STD, IMAGE_FRAME, Llava
from maskselect.lmm.lora import LoraSettings, merged_state
from maskselect.lmm.tokenizer import SPECIAL_TOKENS, load_compact
from maskselect.ops.masks import pad_to_square
from maskselect.systems.reading import Reader
from maskselect.tokens.mask_tokenizer import NoMaskTokens
from maskselect.tokens.sequence import Slot
from tests.lmm.twin import LIGHTNING_SYSTEM, save, twin
from tests.systems.tiny import SIZES

SIZES_VOCABULARY = len(load_compact())


def test_image_and_text_give_transformers_own_hidden_states() -> None:
    torch.manual_seed(0)
    lmm = Llava(sizes=SIZES).eval()
    images = torch.rand(1, 3, SIZES.image_size, SIZES.image_size)
    ids = torch.tensor([[1, 3, 3, 3, 3, 40, 41]])  # four image tokens at this size
    pixels = (images - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)
    with torch.no_grad():
        wanted = twin(lmm).model(input_ids=ids, pixel_values=pixels).last_hidden_state
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
    save(compact, tmp_path)
    loaded = Llava(model=str(tmp_path)).eval()
    embeddings = torch.randn(1, 5, compact.width)
    with torch.no_grad():
        torch.testing.assert_close(loaded.hidden(embeddings), compact.hidden(embeddings))
    assert loaded.token_ids("red mugs") == compact.token_ids("red mugs")


def test_a_language_model_in_4_bits_trains_lora_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="4 bits need: make setup EXTRAS=qlora")
    torch.manual_seed(0)
    compact = Llava(sizes=replace(SIZES, width=64, ffn=128)).eval()
    save(compact, tmp_path)
    lora = LoraSettings(r=4, alpha=8, dropout=0.0)
    packed = Llava(model=str(tmp_path), quantize="nf4", lora=lora).eval()
    kinds = {type(module).__name__ for module in packed.language_model.modules()}
    assert "Linear4bit" in kinds and type(packed.model.lm_head).__name__ == "Linear"
    assert {type(m).__name__ for m in packed.vision_tower.modules()} & {"Linear4bit"} == set()
    embeddings = torch.randn(1, 5, packed.width)
    with torch.no_grad():
        near, exact = packed.hidden(embeddings), compact.hidden(embeddings)
    assert 0 < (near - exact).abs().mean() < 0.25 * exact.abs().mean()  # rounded, and not something else
    packed.hidden(embeddings).sum().backward()
    inside = {name for name, p in packed.language_model.named_parameters() if p.grad is not None}
    assert inside and all("lora_" in name for name in inside)
    kept = packed.state_dict().keys() - packed.frozen_elsewhere
    assert {name for name in kept if ".layers." in name} == {name for name in kept if "lora_" in name} != set()


@pytest.mark.parametrize("given", [{"lora": None}, {"model": None}])
def test_4_bits_want_a_model_and_lora(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give both"):
        Llava(**({"model": "somewhere", "lora": LoraSettings(), "quantize": "nf4"} | given))


def test_absent_weights_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="hf download"):
        Llava(model=str(tmp_path / "nothing"))


def test_generation_follows_the_embeddings() -> None:
    torch.manual_seed(0)
    lmm = Llava(sizes=SIZES).eval()
    embeddings = lmm.embed(torch.tensor([lmm.token_ids("a red", begin=True)]))
    text = lmm.decode(lmm.generate(embeddings, max_new_tokens=4).ids[0])
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
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3]
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


def test_the_first_llavas_see_the_middle_of_a_picture() -> None:
    """As CLIP's own preparation: shorter side to the tower's, then the middle square."""
    torch.manual_seed(0)
    padded, cropped = Llava(sizes=SIZES).eval(), Llava(sizes=SIZES, crop_image=True).eval()
    cropped.model.load_state_dict(padded.model.state_dict())
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    prepare = CLIPImageProcessor(size={"shortest_edge": SIZES.image_size}, crop_size=SIZES.image_size)
    pixels = prepare(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    given = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        tower = cropped.vision_tower(pixel_values=pixels, output_hidden_states=True)
        seen = cropped.vision_features(given)
        torch.testing.assert_close(seen, tower.hidden_states[-2][:, 1:], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(seen, padded.vision_features(given), atol=0.1)
        torch.testing.assert_close(
            padded.vision_features(given), padded.vision_features(pad_to_square(given)), atol=0, rtol=0
        )
    assert len(padded.visual_parts) == 1 and len(cropped.visual_parts) == 2


@pytest.mark.parametrize("size", [(70, 90), (90, 50), (33, 32), (64, 64)])
def test_published_llavas_see_pictures_as_their_own_processor_prepares_them(size: tuple[int, int]) -> None:
    """Padded with the mean colour, bicubic: within a grey value and a half of 255, by a spread of CLIP's."""
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    image = np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    prepare = LlavaImageProcessor(do_pad=True, size={"shortest_edge": 32}, crop_size=32)
    pixels = prepare(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    given = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    torch.testing.assert_close((MeanPadding(32)(given) - mean) / std, pixels, atol=1.5 / 255 / min(CLIP_STD), rtol=0)
    pair = torch.cat([given, given.flip(-1)])
    torch.testing.assert_close(MeanPadding(32)(pair)[:1], MeanPadding(32)(given), atol=0, rtol=0)


def test_framed_images_stand_between_tokens_and_swallow_the_line_break() -> None:
    reader = Reader(Llava(sizes=SIZES, frame_image=True, system_prompt=LIGHTNING_SYSTEM), NoMaskTokens(SIZES.width))
    start, end = reader.lmm.frame_ids or (0, 0)
    assert [reader.lmm.tokenizer.convert_tokens_to_ids(token) for token in IMAGE_FRAME] == [start, end]
    assert start >= SIZES_VOCABULARY and reader.lmm.model.get_input_embeddings().num_embeddings > end
    segment = reader.prefix([], 4)
    begin = reader.lmm.token_ids(f"{LIGHTNING_SYSTEM} USER:", begin=True)
    assert segment.values == [*begin, start, 0, 1, 2, 3, end]
    assert segment.kinds == [int(Slot.TEXT)] * (len(begin) + 1) + [int(Slot.IMAGE)] * 4 + [int(Slot.TEXT)]
    assert reader.prefix([], 0).values == [*begin, *reader.chat[False].after]
    plain = Reader(Llava(sizes=SIZES), NoMaskTokens(SIZES.width)).prefix([], 2)
    assert plain.values[-1:] == reader.chat[False].after[-1:] and start not in plain.values


def test_added_tokens_swallow_spaces_only_beside_framed_images() -> None:
    framed, plain = Llava(sizes=SIZES, frame_image=True), Llava(sizes=SIZES)
    for lmm, spaces in ((framed, 0), (plain, 1)):
        seg = lmm.add_token("[SEG]")
        ids = lmm.token_ids("it is [SEG].")
        assert ids[: ids.index(seg)] == lmm.token_ids("it is" + " " * spaces)
        before = len(lmm.tokenizer)
        assert lmm.add_token("[SEG]") == seg and len(lmm.tokenizer) == before
        assert lmm.token_ids("it is [SEG].") == ids


def test_recomputed_activations_give_the_same_gradients() -> None:
    torch.manual_seed(0)
    plain, again = Llava(sizes=SIZES), Llava(sizes=SIZES, gradient_checkpointing=True)
    again.model.load_state_dict(plain.model.state_dict())
    gradients = []
    for lmm in (plain, again):
        lmm.train()
        lmm.hidden(lmm.embed(torch.tensor([[1, 40, 41, 42]]))).square().sum().backward()
        layer: Any = lmm.language_model
        gradients.append(layer.layers[0].self_attn.q_proj.weight.grad)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_the_system_sentence_of_the_first_llavas() -> None:
    assert LIGHTNING_SYSTEM.startswith("A chat between a curious human and an artificial intelligence assistant. ")
    assert LIGHTNING_SYSTEM.endswith("polite answers to the human's questions.")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_frozen_weights_may_be_narrow_and_what_is_learned_is_not(tmp_path: Path, dtype: str) -> None:
    torch.manual_seed(0)
    compact = Llava(sizes=SIZES).eval()
    save(compact, tmp_path)
    lora = LoraSettings(r=2, alpha=4, targets=["q_proj"])
    narrow = Llava(model=str(tmp_path), dtype=dtype, lora=lora).eval()  # type: ignore[arg-type]
    kept = {name: p.dtype for name, p in narrow.named_parameters()}
    wide = ("lora_", "embed_tokens", "lm_head", "multi_modal_projector")
    for name, found in kept.items():
        assert found == (torch.float32 if any(part in name for part in wide) else getattr(torch, dtype)), name
    ids = torch.tensor([compact.token_ids("the red mugs", begin=True)])
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        for one, other in (
            (narrow.embed(ids), compact.embed(ids)),
            (narrow.hidden(narrow.embed(ids)), compact.hidden(compact.embed(ids))),
            (
                narrow.token_logits(narrow.hidden(narrow.embed(ids))),
                compact.token_logits(compact.hidden(compact.embed(ids))),
            ),
            (
                narrow.project_image(narrow.vision_features(image)),
                compact.project_image(compact.vision_features(image)),
            ),
        ):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other, atol=0.1, rtol=0.1)
    narrow.train()
    narrow.hidden(narrow.embed(ids)).square().mean().backward()
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 for n, p in narrow.named_parameters() if "lora_A" in n
    )


def test_weights_as_narrow_as_their_file_are_read_without_being_asked(tmp_path: Path) -> None:
    compact = Llava(sizes=SIZES).eval()
    compact.model.half()
    save(compact, tmp_path)
    loaded = Llava(model=str(tmp_path)).eval()
    ids = torch.tensor([loaded.token_ids("the red mugs", begin=True)])
    with torch.no_grad():
        assert loaded.hidden(loaded.embed(ids)).dtype == torch.float32
    assert len(loaded.generate(loaded.embed(ids), max_new_tokens=2).ids[0]) <= 2


def test_folding_lora_in_changes_no_answer() -> None:
    torch.manual_seed(0)
    lora = LoraSettings(r=2, alpha=4, dropout=0.0)
    adapted = Llava(sizes=SIZES, lora=lora).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    plain = Llava(sizes=SIZES).eval()
    embeddings = torch.randn(1, 5, plain.width)
    before = plain.hidden(embeddings).detach()
    plain.model.load_state_dict(merged_state(adapted.model))
    with torch.no_grad():
        torch.testing.assert_close(plain.hidden(embeddings), adapted.hidden(embeddings), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(plain.hidden(embeddings), before, atol=1e-2)


def test_rows_are_generated_side_by_side_as_each_alone() -> None:
    torch.manual_seed(0)
    lmm = Llava(sizes=SIZES).eval()
    prompts = [lmm.token_ids(text, begin=True) for text in ("a red", "the small blue mug left of the tree", "a")]
    longest = max(map(len, prompts))
    ids = torch.tensor([own + [0] * (longest - len(own)) for own in prompts])
    valid = torch.arange(longest) < torch.tensor([len(own) for own in prompts])[:, None]
    together = lmm.generate(lmm.embed(ids), max_new_tokens=6, valid=valid)
    for row, own in enumerate(prompts):
        alone = lmm.generate(lmm.embed(torch.tensor([own])), max_new_tokens=6)
        assert together.ids[row] == alone.ids[0] and 0 < len(alone.ids[0]) <= 6
        torch.testing.assert_close(together.states[row], alone.states[0], atol=1e-4, rtol=1e-4)
    first = together.ids[0][0]

    def without_first(written: list[list[int]], logits: torch.Tensor) -> torch.Tensor:
        assert len(written) == len(logits) == 3
        return logits.index_fill(1, torch.tensor([first]), -torch.inf)

    other = lmm.generate(lmm.embed(ids), max_new_tokens=6, valid=valid, process=without_first)
    assert all(first not in row for row in other.ids)
    stopped = lmm.generate(lmm.embed(ids), max_new_tokens=6, valid=valid, stop=(first,))
    assert stopped.ids[0] == [first]
