"""Mask tokens: statistics are taken once and travel with the weights."""

import pytest
import torch

from maskselect.tokens.mask_tokenizer import MaskTokenizer


def test_statistics_are_taken_once_and_travel_with_the_state() -> None:
    torch.manual_seed(0)
    tokenizer = MaskTokenizer(4, 8)
    features = torch.randn(50, 4) * torch.tensor([1.0, 100.0, 0.01, 0.0]) + 3
    tokenizer.fit_statistics(features)
    standard = (features - tokenizer.mean) * tokenizer.scale
    torch.testing.assert_close(standard.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard.std(0), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-3, rtol=0)
    before = tokenizer(features)
    tokenizer.fit_statistics(torch.randn(50, 4))
    torch.testing.assert_close(tokenizer(features), before)
    other = MaskTokenizer(4, 8)
    other.load_state_dict(tokenizer.state_dict())
    torch.testing.assert_close(other(features), before)


@pytest.mark.parametrize(("pre", "rows"), [("none", 0), ("same", 1), ("different", 2)])
def test_pre_tokens(pre: str, rows: int) -> None:
    tokenizer = MaskTokenizer(4, 8, pre)  # type: ignore[arg-type]
    assert tokenizer.pre.shape == (rows, 8)
    if rows:
        assert torch.equal(tokenizer.pool_pre, tokenizer.ref_pre) == (pre == "same")
    else:
        assert tokenizer.pool_pre is None and tokenizer.ref_pre is None
