"""What `backends/pickling.py` relies on: where torch keeps hooks, how transformers marks networks that it watches."""

import io
import pickle
from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel

from maskselect.backends.pickling import packed


def count(module: nn.Module, given: Any, out: Any) -> None:
    """A hook that Python can pickle."""
    module.calls = getattr(module, "calls", 0) + 1


def used() -> LlamaModel:
    """A network of transformers whose layers it has watched."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2}
    model = LlamaModel(LlamaConfig(**sizes, num_attention_heads=2)).eval()
    states(model)
    return model


@torch.no_grad()
def states(model: LlamaModel) -> tuple[torch.Tensor, ...]:
    return tuple(model(input_ids=torch.arange(4)[None], output_hidden_states=True).hidden_states)


def test_torch_keeps_a_modules_forward_hooks_in_one_mapping() -> None:
    module = nn.Linear(2, 2)
    module.register_forward_hook(count)
    assert isinstance(module._forward_hooks, OrderedDict) and list(module._forward_hooks.values()) == [count]
    assert "_forward_hooks" in module.__reduce_ex__(pickle.HIGHEST_PROTOCOL)[2]


def test_a_network_of_transformers_is_pickled_after_use_and_watched_again() -> None:
    model = used()
    again = pickle.load(io.BytesIO(packed(model)))
    for mine, theirs in zip(states(again), states(model), strict=True):
        assert torch.equal(mine, theirs)
    assert len(states(again)) == 3


def test_hooks_of_others_are_kept() -> None:
    model = used()
    model.norm.register_forward_hook(count)
    again = pickle.loads(packed(model))
    states(again)
    assert again.norm.calls == 1 and not hasattr(model.norm, "calls")
