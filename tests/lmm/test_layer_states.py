"""What goes into every layer of a language model, with and without a cache, and with gradients only where they lead."""

import torch
from torch import Tensor

from maskselect.lmm.llava import Llava
from tests.systems.tiny import SIZES


def test_layer_states_are_what_goes_into_every_layer() -> None:
    lmm = Llava(sizes=SIZES).requires_grad_(False).eval()
    embeddings = torch.randn(2, 7, 32)
    inputs: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for layer in lmm.language_model.layers
    ]
    last = lmm.hidden(embeddings)
    for hook in hooks:
        hook.remove()
    states = lmm.layer_states(embeddings)
    torch.testing.assert_close(states, [*inputs, last])
    cache = lmm.new_cache()
    first = lmm.layer_states(embeddings[:, :4], None, None, cache)
    second = lmm.layer_states(embeddings[:, 4:], None, torch.arange(4, 7).expand(2, -1), cache)
    torch.testing.assert_close([torch.cat(both, 1) for both in zip(first, second, strict=True)], states)
    assert not any(state.requires_grad for state in states)
    assert all(state.requires_grad for state in lmm.layer_states(embeddings.requires_grad_()))
    assert Llava(sizes=SIZES).layer_states(embeddings.detach())[1].requires_grad
