"""Mipha behind our interface: the numbers of transformers' Phi and SigLIP, from files as its authors store them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import SiglipImageProcessor

from maskselect.doctor.counts import build_skeleton, count, named_parameters, total
from maskselect.lmm.lora import LoraSettings
from maskselect.lmm.mipha import SYSTEM_PROMPT, Mipha
from maskselect.lmm.mipha_network import MiphaSizes
from tests.lmm.published_mipha import END, GRID, SIDE, TOWER, WIDTH, Original, words
from tests.lmm.twin import VICUNA_SYSTEM

LORA = LoraSettings(r=2, alpha=4, dropout=0.0, targets=["q_proj", "v_proj"])
SIZES = MiphaSizes(
    width=32, layers=2, heads=2, ffn=40, vision_width=16, vision_layers=2, vision_heads=2, vision_ffn=24, image_size=28,
    patch_size=7, max_positions=256, rotary=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def original() -> Original:
    return Original(len(words()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, original: Original) -> Path:
    return original.write(tmp_path_factory.mktemp("mipha"))


@pytest.fixture(scope="module")
def lmm(folder: Path) -> Mipha:
    return Mipha(model=str(folder)).eval()


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (45, 60, 3), np.uint8)


def given(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


@torch.no_grad()
def test_features_and_projector_are_the_originals(lmm: Mipha, original: Original) -> None:
    pixels = SiglipImageProcessor(size={"height": SIDE, "width": SIDE})(picture(), return_tensors="pt")["pixel_values"]
    states = original.tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    features = lmm.vision_features(given(picture()))
    assert features.shape == (1, GRID**2, TOWER) == (1, lmm.most_image_tokens, lmm.vision_width)
    torch.testing.assert_close(features, states[-2], atol=1e-2, rtol=1e-2)
    assert not torch.allclose(features, states[-1], atol=0.1) and not torch.allclose(features, states[-3], atol=0.1)
    exact = original.tower(pixel_values=lmm.square(given(picture())) * 2 - 1, output_hidden_states=True).hidden_states
    torch.testing.assert_close(features, exact[-2])
    torch.testing.assert_close(lmm.project_image(features), original.projector(features))


@torch.no_grad()
def test_hidden_states_and_logits_are_phis(lmm: Mipha, original: Original) -> None:
    ids = torch.randint(len(words()), (2, 9), generator=torch.Generator().manual_seed(0))
    want = original.phi(input_ids=ids, output_hidden_states=True)
    embeddings = lmm.embed(ids)
    hidden = lmm.hidden(embeddings)
    torch.testing.assert_close(hidden, want.hidden_states[-1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(lmm.token_logits(hidden), want.logits, atol=1e-4, rtol=1e-4)
    assert lmm.width == WIDTH and lmm.max_positions == 512 and lmm.output_layer is lmm.model.lm_head
    causal = torch.ones(9, 9, dtype=torch.bool).tril().expand(2, 1, -1, -1)
    torch.testing.assert_close(lmm.hidden(embeddings, causal, torch.arange(9).expand(2, -1)), hidden)
    assert lmm.language_model.layers[0].self_attn.rotary_ndims == 8  # type: ignore[index]  # 0.4 of a head
    shifted = lmm.hidden(embeddings, causal, torch.arange(9).expand(2, -1) * 3)
    assert not torch.allclose(shifted, hidden, atol=1e-2)


@torch.no_grad()
def test_layer_states_are_what_goes_into_every_layer(lmm: Mipha, original: Original) -> None:
    embeddings = torch.randn(2, 7, WIDTH)
    want = original.phi.model(inputs_embeds=embeddings, output_hidden_states=True)
    states = lmm.layer_states(embeddings)
    torch.testing.assert_close(states[:-1], list(want.hidden_states[:-1]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(states[-1], want.last_hidden_state, atol=1e-5, rtol=1e-4)
    assert len(states) == 3
    cache = lmm.new_cache()
    first = lmm.layer_states(embeddings[:, :4], None, None, cache)
    second = lmm.layer_states(embeddings[:, 4:], None, torch.arange(4, 7).expand(2, -1), cache)
    torch.testing.assert_close([torch.cat(both, 1) for both in zip(first, second, strict=True)], states)
    assert len(cache.layers) == 2 and cache.layers[0].keys.shape[-2] == 7


def test_generation_is_greedy_and_ragged_rows_do_not_mix(lmm: Mipha, original: Original) -> None:
    rows = [lmm.token_ids("the red mugs"), lmm.token_ids("a red")]
    longest = max(map(len, rows))
    valid = torch.tensor([[place < len(row) for place in range(longest)] for row in rows])
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    found = lmm.generate(lmm.embed(padded), max_new_tokens=5, valid=valid).ids
    for row, ids in zip(rows, found, strict=True):
        text = torch.tensor([row])
        for _ in range(5):
            logits = original.phi(input_ids=text).logits[0, -1, : original.vocabulary]
            text = torch.cat([text, logits.argmax()[None, None]], 1)
        want = text[0, len(row) :].tolist()
        assert ids == (want[: want.index(original.vocabulary - 1)] if original.vocabulary - 1 in want else want)


def test_only_tokens_with_an_embedding_are_generated(folder: Path) -> None:
    lmm = Mipha(model=str(folder)).eval()
    with torch.no_grad():
        lmm.model.lm_head.weight[-1] = 1e3 * lmm.hidden(lmm.embed(torch.tensor([[5]])))[0, 0]
        assert int(lmm.token_logits(lmm.hidden(lmm.embed(torch.tensor([[5]]))))[0, 0].argmax()) >= len(words())
    ids = lmm.generate(lmm.embed(torch.tensor([[5]])), max_new_tokens=3).ids[0]
    assert all(token < len(words()) for token in ids)


def test_the_prompt_is_the_templates_text(lmm: Mipha) -> None:
    """LLaVA-v1's template, whose text between the image tokens is tokenised piece by piece."""
    assert SYSTEM_PROMPT == VICUNA_SYSTEM
    chat, text = lmm.chat(True), lmm.token_ids("the red mugs")
    assert chat.begin == words()(f"{SYSTEM_PROMPT} USER: ")["input_ids"]
    assert [*chat.image_end, *chat.after, *text, *chat.closing] == words()("\nthe red mugs ASSISTANT:")["input_ids"]
    bare = lmm.chat(False)
    joined = [*bare.begin, *lmm.token_ids(" the red mugs"), *bare.closing, *lmm.token_ids(" a red")]
    assert joined == words()(f"{SYSTEM_PROMPT} USER: the red mugs ASSISTANT: a red")["input_ids"]
    assert lmm.tokenizer.eos_token == END


def test_new_tokens_grow_the_embeddings_and_not_a_larger_head(folder: Path) -> None:
    lmm = Mipha(model=str(folder))
    known, before = len(words()), lmm.model.lm_head.weight.detach().clone()
    head = len(before)
    assert lmm.add_token("[SEG]") == known == lmm.add_token("[SEG]")
    assert lmm.model.get_input_embeddings().weight.shape == (known + 1, WIDTH)
    assert lmm.token_ids("a[SEG]")[-1] == known and lmm.model.lm_head.weight.shape == (head, WIDTH)
    torch.testing.assert_close(lmm.model.lm_head.weight[:known], before[:known])
    assert lmm.embed(torch.tensor([known])).abs().sum() > 0
    for number in range(head - known):
        lmm.add_token(f"<{number}>")
    assert len(lmm.model.lm_head.weight) == head + 1 == lmm.model.lm_head.out_features
    assert torch.isfinite(lmm.token_logits(torch.zeros(1, WIDTH))).all()


def test_pickled_files_and_half_precision(tmp_path: Path, original: Original, lmm: Mipha) -> None:
    pickled = Mipha(model=str(original.write(tmp_path, form="bin"))).eval()
    torch.testing.assert_close(dict(pickled.model.state_dict()), dict(lmm.model.state_dict()))
    narrow = Mipha(model=str(tmp_path), dtype="bfloat16", lora=LORA, gradient_checkpointing=True).train()
    trained = {name for name, p in narrow.named_parameters() if p.requires_grad}
    adapted = {name.split(".")[-4] for name in trained if "lora_" in name}
    assert adapted == {"q_proj", "v_proj"} and not any("vision_tower" in name for name in trained)
    assert all("lora_" in name for name in trained if ".layers." in name)
    for name, parameter in narrow.named_parameters():
        wide = any(part in name for part in ("lora_", "embed_tokens", "lm_head", "projector"))
        assert parameter.dtype == (torch.float32 if wide else torch.bfloat16), name
    narrow.hidden(narrow.embed(torch.tensor([[1, 2, 3]]))).sum().backward()
    assert all(p.grad is not None for name, p in narrow.named_parameters() if "lora_B" in name)


def test_sizes_build_one_with_random_weights() -> None:
    lmm = Mipha(sizes=SIZES)
    assert lmm.vision_features(torch.rand(1, 3, 40, 30)).shape == (1, 16, 16) and not lmm.has_own_files
    assert lmm.hidden(lmm.embed(torch.tensor([lmm.token_ids("the red mug")]))).shape[-1] == 32
    with pytest.raises(ValueError, match="a Mipha has no weights; expected its model, or sizes for random ones"):
        Mipha()


def test_published_sizes() -> None:
    lora = {"class_path": "maskselect.lmm.lora.LoraSettings", "init_args": {"r": 8, "targets": ["q_proj", "v_proj"]}}
    arguments = {"model": "zhumj34/Mipha-3B", "lora": lora}
    skeleton = build_skeleton({"class_path": "maskselect.lmm.mipha.Mipha", "init_args": arguments})
    parts = {part.name: part for part in count(named_parameters(skeleton))}
    assert parts["LoRA"].trained == 2_621_440
    assert parts["output layer"].total == 51_200 * 2560
    # microsoft/phi-2 has 2,779,683,840 parameters, its LM head among them.
    assert parts["language model"].total == 2_779_683_840 - 51_200 * 2561
    assert parts["image projector"].total == 1152 * 2560 + 2560 + 2560 * 2560 + 2560
    assert parts["vision tower"].frozen == pytest.approx(413e6, rel=0.01)
    assert total(parts.values()).total == pytest.approx(3.2e9, rel=0.01)


def test_other_models_are_refused(tmp_path: Path, original: Original) -> None:
    with pytest.raises(FileNotFoundError, match=r"hf download zhumj34/Mipha-3B"):
        Mipha(model=str(tmp_path / "nothing"))
    plain = original.write(tmp_path / "plain", vision_config=None)
    with pytest.raises(ValueError, match="its config lacks vision_tower and mm_projector"):
        Mipha(model=str(plain))
    vision = original.config()["vision_config"]
    linear = original.write(tmp_path / "l", vision_config=vision | {"mm_projector": {"mm_projector_type": "linear"}})
    with pytest.raises(ValueError, match="its config says mm_projector_type 'linear', expected 'mlp2x_gelu'"):
        Mipha(model=str(linear))
    deeper = original.write(tmp_path / "deeper", num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"lacks 14 tensors"):
        Mipha(model=str(deeper))
    wider = original.write(tmp_path / "wider", output_rows=None)
    with pytest.raises(ValueError, match=r"is not a Mipha"):
        Mipha(model=str(wider))
