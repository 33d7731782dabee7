"""InternVL behind our interface: transformers' own numbers from pixels to hidden states, and its processor's tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    Qwen2Config,
    Qwen2Tokenizer,
)

from maskselect.backends.checkpoints import write_checkpoint
from maskselect.backends.configs import read_configs
from maskselect.codecs.descriptors import DescriptorCodec
from maskselect.doctor.counts import build_skeleton, count, named_parameters, total
from maskselect.lmm.intern_vl import CHAT_TOKENS, IMAGE, MEAN, STD, InternVl
from maskselect.lmm.llava import Llava
from maskselect.lmm.lora import LoraSettings
from maskselect.structures.groups import PrepareSettings
from maskselect.structures.sample import Batch, Prompt
from maskselect.systems.reading import Reader
from maskselect.systems.text4seg import Text4Seg
from maskselect.tokens import sequence
from maskselect.tokens.mask_tokenizer import NoMaskTokens
from tests.lmm.twin import save
from tests.systems.test_text4seg import Quadrants, asked
from tests.systems.tiny import SIZES

SIDE, PATCH, GRID = 56, 7, 4
LORA = LoraSettings(r=2, alpha=4, dropout=0.0)
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
"""chat_template.jinja of OpenGVLab/InternVL3-8B-hf, without videos."""


def words() -> Qwen2Tokenizer:
    """The family's tokenizer with hardly any words."""
    merges = [("t", "h"), ("th", "e"), ("\u0120", "r"), ("e", "d")]
    pieces = ["<pad>", *sorted(ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": IMAGE}
    made = Qwen2Tokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=merges,
        unk_token=None,
        pad_token="<pad>",
        eos_token="<|endoftext|>",
        extra_special_tokens=named | {"video_token": "<video>"},
    )
    made.add_tokens([AddedToken(token, special=True, normalized=False) for token in (*CHAT_TOKENS, "<video>")], True)
    return made


def write(folder: Path, **changes: Any) -> Path:
    """A tiny one as transformers writes it, with weights that matter."""
    torch.manual_seed(0)
    tokenizer = words()
    vision = InternVLVisionConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=SIDE,
        patch_size=PATCH, attention_bias=True, layer_scale_init_value=1.0,
    )  # fmt: skip
    text = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, tie_word_embeddings=False, bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"), pad_token_id=0,
    )  # fmt: skip
    config = InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=GRID**2,
        **({"tie_word_embeddings": False} | changes),
    )
    model = InternVLForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.05 if parameter.ndim == 1 else 0.25))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("internvl"))


@pytest.fixture(scope="module")
def lmm(folder: Path) -> InternVl:
    return InternVl(model=str(folder)).eval()


def processor() -> Any:
    images = GotOcr2ImageProcessor(
        size={"height": SIDE, "width": SIDE}, crop_to_patches=False, image_mean=list(MEAN), image_std=list(STD)
    )
    return InternVLProcessor(
        images, words(), InternVLVideoProcessor(), image_seq_length=GRID**2, chat_template=TEMPLATE
    )


def picture(height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def given(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def theirs(text: str, image: np.ndarray, system: str = "") -> dict[str, Tensor]:
    """What a user of transformers feeds to the model."""
    said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    said = [{"role": "system", "content": system}, *said] if system else said
    made = processor()
    chat = made.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    out = made(
        images=[Image.fromarray(image)], text=[chat], images_kwargs={"crop_to_patches": False}, return_tensors="pt"
    )
    return {name: out[name] for name in ("input_ids", "attention_mask", "pixel_values")}


def laid_out(lmm: InternVl, image: np.ndarray, text: str) -> tuple[sequence.PackedRows, Tensor]:
    reader = Reader(lmm, NoMaskTokens(lmm.width))
    none = torch.zeros(1, 0, 3)
    tokens = reader.tokens(Batch(none, none[..., 0].bool(), lmm.vision_features(given(image)), [[]], [[]]))
    (prefix,) = reader.prefixes(tokens, [[]])
    packed = sequence.pack([(prefix, [[reader.prompt(text, prefix.end)]])])
    return packed, reader.embed(packed, tokens)


@pytest.mark.parametrize("system", ["", "You look at pictures."])
def test_the_prompt_is_the_processors_token_by_token(folder: Path, system: str) -> None:
    lmm = InternVl(model=str(folder), system_prompt=system)
    want = theirs("the red mugs", picture(), system)["input_ids"][0].tolist()
    chat, text = lmm.chat(True), lmm.token_ids("the red mugs")
    image = [lmm.tokenizer.convert_tokens_to_ids(IMAGE)] * lmm.most_image_tokens
    assert [*chat.begin, *image, *chat.image_end, *chat.after, *text, *chat.closing] == want
    alone = processor().apply_chat_template(
        [{"role": "user", "content": "the red mugs"}], add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]
    bare = InternVl(model=str(folder)).chat(False)
    flat = alone[0] if isinstance(alone[0], list) else alone
    assert [*bare.begin, *bare.image_end, *bare.after, *text, *bare.closing] == flat


def test_features_and_projector_are_transformers_own(lmm: InternVl) -> None:
    pixels = theirs("x", picture())["pixel_values"]
    with torch.no_grad():
        want = lmm.model.model.get_image_features(pixel_values=pixels).pooler_output
        features = lmm.vision_features(given(picture()))
        assert features.shape == (1, GRID**2, lmm.vision_width) == (1, 16, 64) and features.dtype == torch.float32
        torch.testing.assert_close(lmm.project_image(features), want, atol=5e-4, rtol=1e-3)
        torch.testing.assert_close(features.square().mean(-1), torch.ones(1, 16), atol=1e-3, rtol=0)


def test_hidden_states_are_transformers_own(lmm: InternVl) -> None:
    inputs = theirs("the red mugs", picture())
    with torch.no_grad():
        want = lmm.model.model(**inputs).last_hidden_state
        packed, embeddings = laid_out(lmm, picture(), "the red mugs")
        found = lmm.hidden(embeddings, sequence.visibility(packed, "causal"), packed.positions)
    torch.testing.assert_close(found, want, atol=1e-3, rtol=1e-3)


def test_tokens_are_in_rows(lmm: InternVl) -> None:
    """A change in one corner of the picture changes the token of that corner most."""
    image = torch.full((1, 3, SIDE, SIDE), 0.5)
    changed = image.clone()
    changed[..., : SIDE // GRID, -SIDE // GRID :] = 1.0  # above, on the right
    moved = (lmm.vision_features(changed) - lmm.vision_features(image)).norm(dim=-1)[0]
    assert int(moved.argmax()) == GRID - 1


def test_answers_end_with_the_turn_and_generation_is_greedy(lmm: InternVl) -> None:
    assert lmm.tokenizer.eos_token == "<|im_end|>"
    ids = lmm.chat(False).begin + lmm.token_ids("a red")
    found = lmm.generate(lmm.embed(torch.tensor([ids])), max_new_tokens=4).ids[0]
    want = lmm.model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=4)[0, len(ids) :].tolist()
    assert found == [token for token in want if token != lmm.tokenizer.eos_token_id]


def test_what_trains(folder: Path) -> None:
    narrow = InternVl(model=str(folder), dtype="bfloat16", lora=LORA, gradient_checkpointing=True).train()
    trained = {name for name, p in narrow.named_parameters() if p.requires_grad}
    assert any("multi_modal_projector" in name for name in trained)
    assert not any("vision_tower" in name for name in trained)
    assert all("lora_" in name for name in trained if ".layers." in name)
    for name, parameter in narrow.named_parameters():
        wide = any(part in name for part in ("lora_", "embed_tokens", "lm_head", "projector"))
        assert parameter.dtype == (torch.float32 if wide else torch.bfloat16), name


def test_a_head_of_its_own_is_seen_whatever_the_config_says(tmp_path: Path, lmm: InternVl) -> None:
    assert lmm.output_layer is lmm.model.lm_head
    tied = InternVl(model=str(write(tmp_path, tie_word_embeddings=True)))
    assert tied.output_layer is None


def test_other_families_are_refused_by_name(tmp_path: Path) -> None:
    save(Llava(sizes=SIZES), tmp_path)
    with pytest.raises(ValueError, match=r"model_type 'llava', expected internvl"):
        InternVl(model=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"hf download OpenGVLab/InternVL3-8B-hf"):
        InternVl(model=str(tmp_path / "nothing"))


@pytest.mark.parametrize(("config", "size"), [("text4seg_internvl3_8b", 7.94e9), ("text4segpp_internvl3_14b", 15.1e9)])
def test_published_sizes(config: str, size: float) -> None:
    task = read_configs([f"paper/{config}.yaml"])["model"]["task"]
    arguments = {n: v for n, v in task["init_args"]["lmm"]["init_args"].items() if n != "lora"}
    skeleton = build_skeleton({"class_path": "maskselect.lmm.intern_vl.InternVl", "init_args": arguments})
    parts = {part.name: part for part in count(named_parameters(skeleton))}
    assert total(parts.values()).total == pytest.approx(size, rel=0.002)
    assert parts["vision tower"].frozen == pytest.approx(304e6, rel=0.001)


def test_text4seg_learns_a_picture_on_it(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    lora = LoraSettings(r=8, alpha=16, dropout=0.0)
    system = Text4Seg(
        InternVl(model=str(folder), lora=lora), DescriptorCodec(grid=4, special_tags=True), "text4seg", SIDE, "target"
    )
    preparer = system.preparer(PrepareSettings(), True)
    batch = preparer.collate([preparer.prepare(Quadrants(), 0, np.random.default_rng(0), 5)])
    optimiser = torch.optim.AdamW([p for p in system.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(15):
        loss = system.loss(batch)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    write_checkpoint(tmp_path / "t.safetensors", system.learned_state(), {"system": "text4seg"}, stored=None)
    again = Text4Seg(
        InternVl(model=str(folder), lora=lora), DescriptorCodec(grid=4, special_tags=True), "text4seg", SIDE, "target",
        longest=8, start=str(tmp_path / "t.safetensors"),
    ).eval()  # fmt: skip
    system.eval().longest = 8
    image, prompts = Quadrants().load(0).image, asked(system)[:2]
    assert all(isinstance(prompt, Prompt) for prompt in prompts)
    texts = [[a.text for a in s.answer(s.read(image), prompts, None)] for s in (system, again)]
    assert texts[0] == texts[1]
