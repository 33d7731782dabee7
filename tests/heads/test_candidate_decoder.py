"""The decoder: untrained it is the Llama that it was copied from, for any grouping of heads, dtype and order."""

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, MistralConfig, MistralModel

from maskselect.heads.candidate_decoder import CandidateDecoder, LayerStates

IMAGES, PROMPTS, QUERIES = 6, 4, 5  # positions


def _llama(key_heads: int = 2) -> LlamaModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=key_heads, attn_implementation="sdpa",
    )  # fmt: skip
    model = LlamaModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def _layers(model: LlamaModel, embeddings: Tensor, seen: Tensor, positions: Tensor) -> tuple[list[Tensor], Tensor]:
    """What goes into every layer, and the last hidden states."""
    inputs: list[Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for layer in model.layers]
    last = model(inputs_embeds=embeddings, attention_mask=seen, position_ids=positions).last_hidden_state
    for hook in hooks:
        hook.remove()
    return inputs, last


def _world(model: LlamaModel) -> tuple[LayerStates, LayerStates, tuple[Tensor, ...], Tensor]:
    """One image with two prompts: memories, the queries with positions and mask, and what the Llama gives for them."""
    length = IMAGES + PROMPTS + QUERIES
    embeddings = torch.randn(2, length, 32)
    embeddings[1, :IMAGES] = embeddings[0, :IMAGES]
    positions = torch.arange(length).clamp(max=IMAGES + PROMPTS).expand(2, -1)
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    seen[-QUERIES:, -QUERIES:] = True
    inputs, last = _layers(model, embeddings, seen.expand(2, 1, -1, -1), positions)
    images = LayerStates([state[:1, :IMAGES] for state in inputs], positions[:1, :IMAGES])
    prompts = LayerStates([state[:, IMAGES:-QUERIES] for state in inputs], positions[:, IMAGES:-QUERIES])
    asked = (embeddings[:, -QUERIES:], positions[:, -QUERIES:], seen[-QUERIES:].expand(2, 1, -1, -1))
    return images, prompts, asked, last[:, -QUERIES:]


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("remembered", [True, False])
def test_an_untrained_decoder_is_the_language_models_own_second_pass(key_heads: int, remembered: bool) -> None:
    model = _llama(key_heads)
    images, prompts, asked, wanted = _world(model)
    decoder = CandidateDecoder(model)
    held = decoder.remember(images) if remembered else images
    found = decoder(*asked, held, torch.zeros(2, dtype=torch.long), prompts)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_recomputing_changes_neither_result_nor_gradients() -> None:
    model = _llama()
    images, prompts, asked, _ = _world(model)
    owners = torch.zeros(2, dtype=torch.long)
    results = []
    for recompute in (False, True):
        decoder = CandidateDecoder(model, recompute=recompute).train()
        found = decoder(*asked, images, owners, prompts)
        found.square().sum().backward()
        results.append((found.detach(), {name: p.grad for name, p in decoder.named_parameters()}))
    torch.testing.assert_close(results[0], results[1])
    assert all(grad.abs().sum() > 0 for grad in results[0][1].values())


def test_every_second_layer_and_a_half_precision_language_model() -> None:
    model = _llama()
    images, prompts, asked, _ = _world(model)
    half = CandidateDecoder(model.bfloat16(), every=2)
    assert half.chosen == [1] and {p.dtype for p in half.parameters()} == {torch.float32}
    assert torch.equal(half.layers[0].layer.mlp.up_proj.weight, model.layers[1].mlp.up_proj.weight.float())
    memory = [LayerStates([state.bfloat16() for state in part.states], part.positions) for part in (images, prompts)]
    found = half(*asked, memory[0], torch.zeros(2, dtype=torch.long), memory[1])
    assert found.dtype == torch.float32 and found.isfinite().all()


def test_it_is_a_copy_until_it_begins_anew() -> None:
    model, other = _llama(), _llama()
    decoder = CandidateDecoder(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    model.layers[0].mlp.up_proj.weight.data.zero_()
    assert torch.equal(
        decoder.state_dict()["layers.0.layer.mlp.up_proj.weight"], before["layers.0.layer.mlp.up_proj.weight"]
    )
    decoder.begin_as(other)
    torch.testing.assert_close(decoder.state_dict(), {name: tensor * 2 for name, tensor in before.items()})
    assert all(parameter.requires_grad for parameter in decoder.parameters())


def test_what_cannot_be_copied_is_told() -> None:
    model = _llama()
    for every in (0, 4):
        with pytest.raises(ValueError, match=f"from 1 to 3, the layers of the language model, not {every}"):
            CandidateDecoder(model, every)
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    mistral = MistralModel(MistralConfig(**sizes, num_attention_heads=2, num_key_value_heads=1))
    for other, family in ((mistral, "mistral"), (nn.Linear(2, 2), "Linear")):
        with pytest.raises(ValueError, match=f"of a Llama, but these are of a {family}"):
            CandidateDecoder(other)


def test_a_layer_of_a_llama_has_the_parts_that_the_decoder_runs() -> None:
    """What `CandidateLayer` relies on in transformers; another part would be left out of its forward pass."""
    layer = _llama().layers[0]
    assert {name for name, _ in layer.named_children()} == {
        "self_attn", "mlp", "input_layernorm", "post_attention_layernorm",
    }  # fmt: skip
    assert {name for name, _ in layer.self_attn.named_children()} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert layer.self_attn.head_dim == 8 and layer.self_attn.attention_dropout == 0
