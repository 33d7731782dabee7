"""LLM-Seg's fusion, heads and strategies, against Segment Anything's blocks and by hand."""

import itertools

import pytest
import torch
from segment_anything.modeling.transformer import Attention as PackageAttention
from segment_anything.modeling.transformer import TwoWayAttentionBlock
from torch import Tensor, nn

from maskselect.heads.fusion import Attention, FusionBlock, MaskFusion
from maskselect.heads.overlap import IopHead, IouHead
from maskselect.heads.strategies import STRATEGIES, Strategy, choose


def package_block(block: FusionBlock) -> TwoWayAttentionBlock:
    """The package's block with our weights: masks are its queries, `[SEG]` its keys."""
    theirs = TwoWayAttentionBlock(32, 4, 64, attention_downsample_rate=1, skip_first_layer_pe=False)
    names = {
        "cross_attn_mask_to_text": "cross_attn_token_to_image",
        "cross_attn_text_to_mask": "cross_attn_image_to_token",
    }
    renamed = {}
    for name, tensor in block.state_dict().items():
        first, _, rest = name.partition(".")
        renamed[f"mlp.{name}" if first in ("lin1", "lin2") else f"{names.get(first, first)}.{rest}"] = tensor
    theirs.load_state_dict(renamed)
    return theirs


def test_attention_is_the_packages() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(32, 4), PackageAttention(32, 4)
    theirs.load_state_dict(ours.state_dict())
    queries, keys = torch.randn(3, 5, 32), torch.randn(3, 7, 32)
    torch.testing.assert_close(ours(queries, keys), theirs(queries, keys, keys), atol=1e-6, rtol=1e-5)


def test_block_is_the_packages_without_positions() -> None:
    torch.manual_seed(0)
    ours = FusionBlock(32, 4, 64)
    masks, text = torch.randn(3, 5, 32), torch.randn(3, 2, 32)
    expected = package_block(ours)(masks, text, torch.zeros_like(masks), torch.zeros_like(text))
    for found, wanted in zip(ours(masks, text), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_fusion_has_the_published_number_of_parameters() -> None:
    """5,294,849 for two blocks, the last attention, both heads and the 1x1 convolution (computed from the code)."""
    parts: list[nn.Module] = [MaskFusion(), IopHead(), IouHead(), nn.Conv2d(1024, 256, 1)]
    assert sum(p.numel() for part in parts for p in part.parameters()) == 5_294_849
    assert sum(p.numel() for p in FusionBlock(256, 8, 2048).parameters()) == 1_842_432
    assert sum(p.numel() for p in Attention(256, 8).parameters()) == 263_168


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    fusion = MaskFusion(32, 4, 64)
    masks, text = torch.randn(2, 5, 32), torch.randn(2, 1, 32)
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    found = fusion(masks, text, valid)
    torch.testing.assert_close(found[1, :3], fusion(masks[1:, :3], text[1:])[0], atol=1e-5, rtol=1e-5)


def test_fusion_does_not_care_for_the_order_of_masks() -> None:
    torch.manual_seed(0)
    fusion, masks, text = MaskFusion(32, 4, 64), torch.randn(1, 6, 32), torch.randn(1, 1, 32)
    order = torch.randperm(6)
    torch.testing.assert_close(fusion(masks[:, order], text), fusion(masks, text)[:, order], atol=1e-5, rtol=1e-5)


def test_heads_of_both_forms() -> None:
    for form, widths in (("released", [(128, 256), (1, 128)]), ("paper", [(256, 256), (64, 256), (1, 64)])):
        head = IopHead(256, form)  # type: ignore[arg-type]
        assert [tuple(m.weight.shape) for m in head.layers if isinstance(m, nn.Linear)] == widths
        out = head(torch.randn(2, 3, 256))
        assert out.shape == (2, 3)
        assert bool(((out > 0) & (out < 1)).all())
    shapes = [tuple(m.weight.shape) for m in IouHead(256).layers if isinstance(m, nn.Linear)]
    assert shapes == [(2048, 256), (256, 2048)]


def test_heads_that_do_not_divide_are_told() -> None:
    with pytest.raises(ValueError, match="not a multiple of heads"):
        Attention(30, 4)


SIMILARITY = torch.tensor([[0.9, 0.1, 0.5, 0.4, 0.3, 0.2]])
IOP = torch.tensor([[0.4, 0.8, 0.5, 0.51, 0.0, 0.9]])


@pytest.mark.parametrize(
    ("strategy", "chosen"),
    [
        ("iop", [1, 3, 5]),  # 0.5 itself is not above 0.5
        ("top_iou", [0]),
        ("iop_or_top_iou", [0, 1, 3, 5]),
        ("iop_of_top_iou", [3, 5]),  # candidate 1 is the least similar of six
    ],
)
def test_strategies_by_hand(strategy: Strategy, chosen: list[int]) -> None:
    assert choose(SIMILARITY, IOP, strategy, 0.5)[0].nonzero()[:, 0].tolist() == chosen


def test_strategies_agree_with_their_words_on_random_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    for rows, count, strategy in itertools.product((1, 3), (1, 4, 9), STRATEGIES):
        similarity, iop = (torch.rand(rows, count, generator=generator) for _ in range(2))
        found = choose(similarity, iop, strategy, 0.5)
        for row in range(rows):
            assert set(found[row].nonzero()[:, 0].tolist()) == in_words(similarity[row], iop[row], strategy)


def in_words(similarity: Tensor, iop: Tensor, strategy: Strategy) -> set[int]:
    ranked = sorted(range(len(similarity)), key=lambda k: -float(similarity[k]))
    pure = {k for k in range(len(iop)) if float(iop[k]) > 0.5}
    answers = {
        "iop": pure,
        "top_iou": {ranked[0]},
        "iop_or_top_iou": pure | {ranked[0]},
        "iop_of_top_iou": pure & set(ranked[:5]),
    }
    return answers[strategy]


def test_no_candidate_gives_no_group_and_unknown_strategies_are_told() -> None:
    for strategy in STRATEGIES:
        assert choose(torch.zeros(2, 0), torch.zeros(2, 0), strategy).shape == (2, 0)
    with pytest.raises(ValueError, match="strategy 'best' is unknown; expected one of iop"):
        choose(SIMILARITY, IOP, "best")  # type: ignore[arg-type]
