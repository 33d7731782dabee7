"""The compact language model in plain PyTorch gives transformers' own numbers, tokens and text."""

import pytest
import torch
from transformers import AutoModelForImageTextToText, DynamicCache

from maskselect.lmm.llama import KeyValueCache, Llama
from maskselect.lmm.llava import Llava, LlavaSizes
from maskselect.lmm.tokenizer import load_compact, load_compact_in_transformers
from maskselect.lmm.wrapped import cache_argument
from tests.lmm.twin import twin
from tests.systems.tiny import SIZES

EXACT = {"atol": 0.0, "rtol": 0.0}


@pytest.fixture(params=[SIZES, LlavaSizes()], ids=["tiny", "compact"])
def lmm(request: pytest.FixtureRequest) -> Llava:
    torch.manual_seed(0)
    return Llava(sizes=request.param).eval()


@torch.no_grad()
def test_hidden_states_and_logits_are_transformers_own(lmm: Llava) -> None:
    reference, embeddings = twin(lmm), torch.randn(2, 9, lmm.width)
    ours = lmm.language_model(embeddings, output_hidden_states=True)
    theirs = reference.model.language_model(inputs_embeds=embeddings, output_hidden_states=True)
    torch.testing.assert_close(ours.hidden_states, theirs.hidden_states, **EXACT)
    torch.testing.assert_close(ours.last_hidden_state, theirs.last_hidden_state, **EXACT)
    wanted = reference(inputs_embeds=embeddings).logits
    torch.testing.assert_close(lmm.token_logits(lmm.hidden(embeddings)), wanted, **EXACT)


@torch.no_grad()
def test_masks_positions_and_caches_are_transformers_own(lmm: Llava) -> None:
    language_model = twin(lmm).model.language_model
    embeddings = torch.randn(2, 9, lmm.width)
    positions = torch.tensor([[4, 5, 6], [5, 7, 9]])
    seen = torch.rand(2, 1, 3, 9) < 0.7
    seen[..., 0] = True
    for mask, places in ((None, None), (seen, positions), (None, positions)):
        own, theirs = KeyValueCache(), DynamicCache()
        lmm.language_model(embeddings[:, :6], cache=own, use_cache=True)
        held = {cache_argument(type(language_model)): theirs}
        language_model(inputs_embeds=embeddings[:, :6], use_cache=True, **held)
        given = {"attention_mask": mask, "position_ids": places, "use_cache": True}
        ours = lmm.language_model(embeddings[:, 6:], cache=own, **given)
        wanted = language_model(inputs_embeds=embeddings[:, 6:], **held, **given)
        torch.testing.assert_close(ours.last_hidden_state, wanted.last_hidden_state, **EXACT)
        assert own.get_seq_length() == theirs.get_seq_length() == 9
        for kept, expected in zip(own.layers, theirs.layers, strict=True):
            torch.testing.assert_close((kept.keys, kept.values), (expected.keys, expected.values), **EXACT)
    assert not torch.equal(
        lmm.language_model(embeddings[:, 6:], cache=own).last_hidden_state, ours.last_hidden_state
    )  # a cache that is not to be used is neither read nor written
    assert own.get_seq_length() == 9


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_tower_and_the_projector_are_transformers_own(lmm: Llava, dtype: torch.dtype) -> None:
    lmm.to(dtype)
    reference, side = twin(lmm).model, lmm.model.sizes.image_size
    images = torch.rand(2, 3, side, side, dtype=dtype)
    ours = lmm.vision_tower(pixel_values=images, output_hidden_states=True).hidden_states
    theirs = reference.vision_tower(pixel_values=images, output_hidden_states=True).hidden_states
    torch.testing.assert_close(ours, theirs, **EXACT)
    wanted = reference.multi_modal_projector(ours[-2][:, 1:])
    torch.testing.assert_close(lmm.project_image(ours[-2][:, 1:]), wanted.float(), **EXACT)


def test_gradients_are_transformers_own_under_autocast(lmm: Llava) -> None:
    reference, embeddings = twin(lmm), torch.randn(2, 9, lmm.width)
    with torch.autocast("cpu", torch.bfloat16):
        lmm.language_model(embeddings).last_hidden_state.square().mean().backward()
        reference.model.language_model(inputs_embeds=embeddings).last_hidden_state.square().mean().backward()
    theirs = dict(reference.model.language_model.named_parameters())
    for name, parameter in lmm.language_model.named_parameters():
        if name != "embed_tokens.weight":
            torch.testing.assert_close(parameter.grad, theirs[name].grad, **EXACT)


@torch.no_grad()
def test_random_weights_are_spread_as_transformers_own() -> None:
    torch.manual_seed(0)
    ours = Llava(sizes=LlavaSizes())
    fresh = AutoModelForImageTextToText.from_config(twin(ours).config)
    theirs = dict(fresh.named_parameters())
    assert not torch.equal(fresh.lm_head.weight, ours.model.lm_head.weight)
    for name, parameter in ours.model.named_parameters():
        wanted = theirs[name]
        spread = max(float(wanted.std()), 1e-6) if wanted.numel() > 1 else 1.0
        assert abs(float(parameter.mean() - wanted.mean())) < 0.5 * spread, name
        assert abs(float(parameter.std() - wanted.std())) < 0.35 * spread, name
    assert float(ours.model.get_input_embeddings().weight[0].abs().sum()) == 0


@torch.no_grad()
def test_more_tokens_leave_the_others_as_they_are(lmm: Llava) -> None:
    before, rows = lmm.model.get_input_embeddings().weight.clone(), len(lmm.tokenizer)
    assert lmm.add_token("[ONE]") == rows and lmm.add_token("[TWO]", special=True) == rows + 1
    weight = lmm.model.get_input_embeddings().weight
    assert weight.shape[0] == rows + 2 and torch.equal(weight[:rows], before)
    assert lmm.model.lm_head.weight is weight and lmm.token_logits(torch.zeros(1, lmm.width)).shape == (1, rows + 2)
    assert (weight[rows:].std(1) > 0).all()
    assert lmm.tokenizer.decode([rows, rows + 1], skip_special_tokens=True) == "[ONE]"


@torch.no_grad()
def test_text_is_what_transformers_generates(lmm: Llava) -> None:
    embeddings = lmm.embed(torch.tensor([lmm.token_ids("a red", begin=True)]))
    ids = twin(lmm).generate(
        inputs_embeds=embeddings, max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=2
    )
    words = load_compact_in_transformers()
    assert (
        lmm.decode(lmm.generate(embeddings, max_new_tokens=12).ids[0])
        == words.decode(ids[0], skip_special_tokens=True).strip()
    )


TEXTS = [
    "",
    " ",
    "the red mugs",
    " left  of\nit ",
    "naïve 图像 🙂",
    "UPPER Case's",
    "<s>a</s><image>",
    "a<pad>b 1,000.5!",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_is_transformers_own(text: str) -> None:
    ours, theirs = load_compact(), load_compact_in_transformers()
    ids = ours(text)["input_ids"]
    assert ids == theirs(text, add_special_tokens=False)["input_ids"]
    for skip in (False, True):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    assert len(ours) == len(theirs) and ours.get_vocab() == theirs.get_vocab()
    assert (ours.pad_token_id, ours.bos_token_id, ours.eos_token_id) == (0, 1, 2)
    with pytest.raises(ValueError, match="no token 'nothing of the kind'"):
        ours.convert_tokens_to_ids("nothing of the kind")


def test_recomputed_layers_need_training_and_gradients() -> None:
    """A cache is written in evaluation and without gradients, whatever the setting."""
    model = Llama(20, 16, 2, 2, 24, 32)
    model.gradient_checkpointing_enable()
    cache = KeyValueCache()
    with torch.no_grad():
        model.train()(torch.randn(1, 4, 16), cache=cache, use_cache=True)
    assert cache.get_seq_length() == 4 and len(cache.layers) == 2
