"""Qwen2.5-VL behind our interface: transformers' own numbers from pixels to hidden states, and what trains of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLTextConfig,
    Qwen2VLVisionConfig,
)

from maskselect.lmm.llava import Llava
from maskselect.lmm.lora import LoraSettings
from maskselect.lmm.native_size import NativeSize
from maskselect.lmm.qwen_vl import IMAGE, QWEN_SYSTEM, QwenSizes, QwenVl, build_qwen
from maskselect.structures.sample import Batch
from maskselect.systems.reading import Reader
from maskselect.tokens import sequence
from maskselect.tokens.mask_tokenizer import NoMaskTokens
from tests.lmm.twin import save
from tests.systems.tiny import QWEN, SIZES

SHAPES = ((100, 150), (170, 60))
LORA = LoraSettings(r=2, alpha=4, dropout=0.0)


def made(**arguments: Any) -> QwenVl:
    torch.manual_seed(0)
    return QwenVl(**({"sizes": QWEN} | arguments)).eval()


@pytest.fixture(scope="module")
def qwen() -> QwenVl:
    lmm = made()
    with torch.no_grad():  # at first biases are zero, norms alike and weights too small for anything to matter
        for parameter in lmm.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.05 if parameter.ndim == 1 else 0.25))
    return lmm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen")
    lmm = made(sizes=QwenSizes(**(vars(QWEN) | {"width": 64, "ffn": 64})))
    lmm.model.save_pretrained(path)
    lmm.tokenizer.save_pretrained(path)
    return path


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]


def given(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def theirs(images: list[np.ndarray]) -> dict[str, Tensor]:
    return dict(Qwen2VLImageProcessor()([Image.fromarray(image) for image in images], return_tensors="pt"))


def laid_out(lmm: QwenVl) -> tuple[sequence.PackedRows, Tensor]:
    """Both pictures, each with a prompt of its own length behind it: rows and their embeddings."""
    reader = Reader(lmm, NoMaskTokens(lmm.width))
    seen = [lmm.vision_features(given(image))[0] for image in pictures()]
    grids = torch.tensor([lmm.image_grid(*shape) for shape in SHAPES])
    features = torch.nn.utils.rnn.pad_sequence(seen, batch_first=True)
    none = torch.zeros(2, 0, 3)
    tokens = reader.tokens(Batch(none, none[..., 0].bool(), features, [[]] * 2, [[]] * 2, image_grids=grids))
    prefixes = reader.prefixes(tokens, [[], []])
    texts = ["the red mugs", "stars"]
    rows = [(p, [[reader.prompt(text, p.end)]]) for p, text in zip(prefixes, texts, strict=True)]
    packed = sequence.pack(rows)
    return packed, reader.embed(packed, tokens)


def whole_chats(lmm: QwenVl) -> tuple[Tensor, Tensor]:
    """The same as a user of transformers writes it: ids (2, L), padded on the right, and which are real."""
    chats = [
        f"<|im_start|>system\n{QWEN_SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|>{IMAGE * tokens}<|vision_end|>"
        f"{text}<|im_end|>\n<|im_start|>assistant\n"
        for tokens, text in ((20, "the red mugs"), (12, "stars"))
    ]
    ids = [torch.tensor(lmm.tokenizer(chat, add_special_tokens=False)["input_ids"]) for chat in chats]
    real = [torch.ones_like(row) for row in ids]
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(ids, batch_first=True), pad(real, batch_first=True)


def test_pictures_are_as_large_as_transformers_makes_them(qwen: QwenVl) -> None:
    want = theirs(pictures())
    assert [qwen.image_grid(*shape) for shape in SHAPES] == [(4, 5), (6, 2)]
    assert want["image_grid_thw"].tolist() == [[1, 8, 10], [1, 12, 4]]
    patches = [qwen.size(given(image)) for image in pictures()]
    assert torch.cat([grid for _, grid in patches]).tolist() == want["image_grid_thw"].tolist()
    torch.testing.assert_close(torch.cat([found for found, _ in patches]), want["pixel_values"])


def test_grids_of_all_sizes_are_transformers_own() -> None:
    rng = np.random.default_rng(0)
    size = NativeSize(8 * 28**2, 60 * 28**2, 14, 2, 2)
    for height, width in [(5, 9), (14, 14), (42, 70), (3, 400), *rng.integers(3, 600, (12, 2)).tolist()]:
        _, grids = size(torch.zeros(1, 3, height, width))
        rows, columns = size.grid(height, width)
        assert grids.tolist() == [[1, 2 * rows, 2 * columns]], (height, width)


def test_frozen_features_and_the_merger_are_transformers_own_tower(qwen: QwenVl) -> None:
    """Over several windows, in a window at the edge, and for two equal pictures at once."""
    with torch.no_grad():
        want = qwen.model.model.get_image_features(**theirs(pictures())).pooler_output
        for image, wanted in zip(pictures(), want, strict=True):
            features = qwen.vision_features(given(image))
            assert features.shape == (1, len(wanted), qwen.vision_width) and features.dtype == torch.float32
            torch.testing.assert_close(features.unflatten(-1, (4, -1)).square().mean(-1), torch.ones(1, len(wanted), 4))
            torch.testing.assert_close(qwen.project_image(features)[0], wanted, atol=5e-5, rtol=1e-4)
            both = qwen.vision_features(given(image).expand(2, -1, -1, -1))
            torch.testing.assert_close(both, features.expand(2, -1, -1), atol=1e-5, rtol=1e-4)
            half = qwen.project_image(features.half())
            torch.testing.assert_close(half, qwen.project_image(features), atol=2e-2, rtol=1e-2)


def test_two_pictures_of_different_sizes_give_transformers_own_hidden_states(qwen: QwenVl) -> None:
    ids, real = whole_chats(qwen)
    images = theirs(pictures())
    kinds = (ids == qwen.model.config.image_token_id).long()
    with torch.no_grad():
        want = qwen.model.model(
            input_ids=ids, attention_mask=real, mm_token_type_ids=kinds, use_cache=False, **images
        ).last_hidden_state
        packed, embeddings = laid_out(qwen)
        assert packed.kinds.ne(sequence.Slot.PAD).long().tolist() == real.tolist()
        places, _ = qwen.model.model.get_rope_index(ids, kinds, images["image_grid_thw"], attention_mask=real)
        assert packed.positions[real.bool()].tolist() == places.permute(1, 2, 0)[real.bool()].tolist()
        found = qwen.hidden(embeddings, sequence.visibility(packed, "causal"), packed.positions)
    torch.testing.assert_close(found[real.bool()], want[real.bool()], atol=5e-5, rtol=1e-4)
    flat = qwen.hidden(embeddings, None, packed.positions[..., 0]).detach()  # a grid is not a line
    assert not torch.allclose(flat[real.bool()], want[real.bool()], atol=0.1)
    qwen.model.model.rope_deltas = None


def test_text_alone_gives_transformers_own_hidden_states_and_a_cache_the_same(qwen: QwenVl) -> None:
    ids = torch.tensor([qwen.token_ids("the red mugs left of the star", begin=True)])
    with torch.no_grad():
        want = qwen.model.model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(qwen.hidden(qwen.embed(ids)), want)
        cache = qwen.new_cache()
        parts = [qwen.hidden(qwen.embed(ids[:, :3]), cache=cache)]
        seen = torch.ones(1, 1, ids.shape[1] - 3, ids.shape[1], dtype=torch.bool).tril(3)
        parts.append(qwen.hidden(qwen.embed(ids[:, 3:]), seen, torch.arange(3, ids.shape[1])[None], cache))
    torch.testing.assert_close(torch.cat(parts, 1), want, atol=1e-5, rtol=1e-4)


def test_generation_is_greedy_whatever_the_published_settings_say(qwen: QwenVl) -> None:
    ids = qwen.chat(False).begin + qwen.token_ids("a red")
    settings = qwen.model.generation_config
    settings.repetition_penalty, settings.do_sample, settings.temperature = 5.0, True, 3.0
    text = qwen.decode(qwen.generate(qwen.embed(torch.tensor([ids])), max_new_tokens=4).ids[0])
    said: list[int] = []
    while len(said) < 4 and qwen.tokenizer.eos_token_id not in said:
        with torch.no_grad():
            state = qwen.hidden(qwen.embed(torch.tensor([ids + said])))[0, -1]
        said.append(int(qwen.token_logits(state).argmax()))
    assert text == qwen.tokenizer.decode(said, skip_special_tokens=True).strip()


def test_without_a_system_sentence_or_a_picture_the_template_is_shorter() -> None:
    lmm = made(system_prompt="")
    decoded = {field: lmm.tokenizer.decode(ids) for field, ids in vars(lmm.chat(False)).items()}
    assert decoded["begin"].replace(" ", "") == "<|im_start|>user\n" and decoded["image_end"] == ""
    assert lmm.chat(True).begin[:-1] == lmm.chat(False).begin
    assert lmm.tokenizer.eos_token == "<|im_end|>" and decoded["closing"] == decoded["before_caption"]


def test_the_merger_trains_and_the_tower_before_it_does_not() -> None:
    lmm = made(lora=LORA).train()
    trained = {name for name, p in lmm.named_parameters() if p.requires_grad}
    assert {name for name in trained if "visual" in name} == {
        f"model.model.visual.merger.{n}" for n, _ in lmm.projector.named_parameters()
    }
    assert all("lora_" in name for name in trained if ".layers." in name)
    lmm.hidden(lmm.project_image(lmm.vision_features(given(pictures()[0])))).square().sum().backward()
    gone = {name for name, p in lmm.named_parameters() if p.requires_grad and p.grad is None}
    assert gone == {"model.model.language_model.embed_tokens.weight"} & trained


def test_a_published_model_loads_from_a_folder(folder: Path) -> None:
    whole, narrow = QwenVl(model=str(folder)).eval(), QwenVl(model=str(folder), dtype="bfloat16", lora=LORA).eval()
    for name, parameter in narrow.named_parameters():
        wide = any(part in name for part in ("lora_", "embed_tokens", "lm_head", "merger"))
        assert parameter.dtype == (torch.float32 if wide else torch.bfloat16), name
    ids, image = torch.tensor([whole.token_ids("the red mugs")]), given(pictures()[0])
    with torch.no_grad():
        for one, other in (
            (narrow.hidden(narrow.embed(ids)), whole.hidden(whole.embed(ids))),
            (narrow.project_image(narrow.vision_features(image)), whole.project_image(whole.vision_features(image))),
        ):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other, atol=0.1, rtol=0.1)
    kept = narrow.state_dict().keys() - narrow.frozen_elsewhere
    assert kept and all("lora_" in name or "merger" in name or "embed" in name or "lm_head" in name for name in kept)
    assert made().frozen_elsewhere == set()


def test_a_language_model_in_4_bits_leaves_tower_and_merger_as_they_are(folder: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="4 bits need: make setup EXTRAS=qlora")
    packed = QwenVl(model=str(folder), quantize="nf4", lora=LORA)
    assert "Linear4bit" in {type(module).__name__ for module in packed.language_model.modules()}
    assert "Linear4bit" not in {type(module).__name__ for module in packed.vision_tower.modules()}
    assert type(packed.model.lm_head).__name__ == "Linear"


def test_other_families_are_refused_by_name(tmp_path: Path) -> None:
    save(Llava(sizes=SIZES), tmp_path)
    with pytest.raises(ValueError, match=r"model_type 'llava', expected qwen2_5_vl, qwen2_vl"):
        QwenVl(model=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"hf download Qwen/Qwen2.5-VL-7B-Instruct"):
        QwenVl(model=str(tmp_path / "nothing"))
    made().model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"tokenizer of .* lacks <\|im_start\|>"):
        QwenVl(model=str(tmp_path))


def test_sizes_that_cannot_be_are_told() -> None:
    with pytest.raises(ValueError, match="min_pixels 5000 and max_pixels 4000"):
        made(min_pixels=5000, max_pixels=4000)
    with pytest.raises(ValueError, match="room for 784 pixels"):
        NativeSize(1, 700, 14, 2, 2)
    with pytest.raises(ValueError, match="1000 x 3 pixels is too long and narrow"):
        made().vision_features(torch.zeros(1, 3, 3, 1000))
    with pytest.raises(ValueError, match="give both"):
        made(quantize="nf4")


def test_bounds_of_pixels_bound_the_tokens() -> None:
    few = made(min_pixels=9 * 784, max_pixels=16 * 784)
    assert few.most_image_tokens == 16
    for shape in ((2000, 1500), (20, 30), (100, 120)):
        rows, columns = few.image_grid(*shape) or (0, 0)
        assert 9 <= rows * columns <= 16
        assert few.vision_features(torch.rand(1, 3, *shape)).shape[1] == rows * columns


def test_image_features_without_their_grids_are_refused() -> None:
    reader = Reader(made(), NoMaskTokens(QWEN.width))
    none = torch.zeros(1, 0, 3)
    with pytest.raises(ValueError, match="image features without"):
        reader.tokens(Batch(none, none[..., 0].bool(), torch.zeros(1, 4, 64), [[]], [[]]))


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> QwenVl:
    """A Qwen2-VL from a folder, with weights that matter."""
    path = tmp_path_factory.mktemp("qwen2")
    torch.manual_seed(0)
    words, _ = build_qwen(QWEN)
    image, start, end = words.convert_tokens_to_ids([IMAGE, "<|vision_start|>", "<|vision_end|>"])
    text = Qwen2VLTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, pad_token_id=0, bos_token_id=None,
        eos_token_id=words.eos_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    )  # fmt: skip
    vision = Qwen2VLVisionConfig(depth=2, embed_dim=16, hidden_size=32, num_heads=2, mlp_ratio=2)
    tokens = {"image_token_id": image, "vision_start_token_id": start, "vision_end_token_id": end}
    model = Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(vision_config=vision, text_config=text, tie_word_embeddings=False, **tokens)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.05 if parameter.ndim == 1 else 0.25))
    model.save_pretrained(path)
    words.save_pretrained(path)
    return QwenVl(model=str(path)).eval()


def test_qwen2_vl_gives_transformers_own_features_and_hidden_states(older: QwenVl) -> None:
    """Its tower has no windows, and its merger begins with another norm."""
    assert isinstance(older.model, Qwen2VLForConditionalGeneration) and older.vision_width == 64
    ids, real = whole_chats(older)
    images = theirs(pictures())
    kinds = (ids == older.model.config.image_token_id).long()
    with torch.no_grad():
        wanted = older.model.model.get_image_features(**images).pooler_output
        for image, tokens in zip(pictures(), wanted, strict=True):
            features = older.vision_features(given(image).expand(2, -1, -1, -1))
            assert features.shape == (2, len(tokens), 64)
            torch.testing.assert_close(features.unflatten(-1, (4, -1)).mean(-1), torch.zeros(2, len(tokens), 4))
            torch.testing.assert_close(older.project_image(features)[1], tokens, atol=1e-4, rtol=1e-3)
        want = older.model.model(
            input_ids=ids, attention_mask=real, mm_token_type_ids=kinds, use_cache=False, **images
        ).last_hidden_state
        packed, embeddings = laid_out(older)
        found = older.hidden(embeddings, sequence.visibility(packed, "causal"), packed.positions)
    torch.testing.assert_close(found[real.bool()], want[real.bool()], atol=2e-4, rtol=1e-3)
