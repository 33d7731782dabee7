"""The decoder's transformer with its projections moved, against the package's own."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from maskselect.backends.sam_attention import attend_two_ways
from maskselect.backends.sam_network import TwoWayTransformer
from tests.backends.sam_package import to_package_transformer


def transformer(depth: int, channels: int, heads: int, rate: int) -> TwoWayTransformer:
    model = TwoWayTransformer(depth, channels, heads, 24, rate).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # biases and norms that are not zero and one
    return model


@settings(max_examples=25)
@given(
    depth=st.integers(1, 3),
    heads=st.sampled_from([1, 2, 4]),
    rate=st.sampled_from([1, 2]),
    prompts=st.integers(1, 4),
    tokens=st.integers(1, 8),
    side=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 1000),
)
def test_it_is_the_packages(
    depth: int, heads: int, rate: int, prompts: int, tokens: int, side: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    model = transformer(depth, 16, heads, rate)
    image, position = torch.randn(2, 1, 16, *side)
    asked = torch.randn(prompts, tokens, 16)
    with torch.inference_mode():
        expected = to_package_transformer(model)(
            image.repeat_interleave(prompts, 0), position.repeat_interleave(prompts, 0), asked
        )
        found = attend_two_ways(model, image.flatten(2).mT, position.flatten(2).mT, asked)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.expand_as(theirs), theirs, atol=2e-5, rtol=1e-4)


def test_gradients_are_the_packages() -> None:
    torch.manual_seed(0)
    model = transformer(2, 16, 2, 2)
    package = to_package_transformer(model)
    image, position, asked = torch.randn(1, 16, 3, 4), torch.randn(1, 16, 3, 4), torch.randn(3, 5, 16)
    gradients = []
    for own in (True, False):
        if own:
            out = attend_two_ways(model, image.flatten(2).mT, position.flatten(2).mT, asked)
        else:
            out = package(image.repeat_interleave(3, 0), position.repeat_interleave(3, 0), asked)
        (out[0].square().mean() + out[1].square().mean()).backward()
        gradients.append({name: p.grad for name, p in (model if own else package).named_parameters()})
    for name, theirs in gradients[1].items():
        assert theirs is not None
        ours = gradients[0][name]
        # A key's bias does not matter to softmax: the package's gradient is noise around zero, ours is none.
        torch.testing.assert_close(torch.zeros_like(theirs) if ours is None else ours, theirs, atol=1e-5, rtol=1e-3)


def test_it_takes_a_third_of_the_multiplications() -> None:
    prompts = 64
    with torch.device("meta"):
        model = TwoWayTransformer(2, 256, 8, 2048)
        image, asked = torch.randn(1, 256, 64, 64), torch.randn(prompts, 7, 256)
        many = image.expand(prompts, -1, -1, -1)
        with FlopCounterMode(display=False) as theirs:
            model(many, many, asked)
        with FlopCounterMode(display=False) as ours:
            attend_two_ways(model, image.flatten(2).mT, image.flatten(2).mT, asked)
    share = ours.get_total_flops() / theirs.get_total_flops()
    assert share < 0.34, share
