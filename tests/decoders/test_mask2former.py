"""The segmentation decoder against transformers' Mask2Former with copied weights, and its own contract."""

from functools import reduce

import pytest
import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former import modeling_mask2former as theirs

from maskselect.decoders.mask2former import (
    MaskDecoder,
    MaskPredictions,
    ObjectDecoder,
    PixelDecoder,
    PixelFeatures,
    cell_centres,
    mask_logits,
    sine_positions,
)

CHANNELS = (6, 8, 10, 12)
DIM, HEADS, FFN, LAYERS, QUERIES = 32, 4, 24, 4, 5
CONFIG = Mask2FormerConfig(
    feature_size=DIM,
    mask_feature_size=DIM,
    hidden_dim=DIM,
    encoder_feedforward_dim=FFN,
    dim_feedforward=FFN,
    encoder_layers=2,
    decoder_layers=LAYERS + 1,
    num_attention_heads=HEADS,
    num_queries=QUERIES,
    feature_strides=[4, 8, 16, 32],
    dropout=0.0,
)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    for name, parameter in module.named_parameters():
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=0.2)
    return module.eval()


def pixel_decoder() -> PixelDecoder:
    decoder = randomised(PixelDecoder(CHANNELS, DIM, HEADS, 4, 2, FFN, DIM))
    assert isinstance(decoder, PixelDecoder)
    return decoder


def mask_decoder() -> MaskDecoder:
    decoder = randomised(MaskDecoder(DIM, HEADS, FFN, LAYERS, QUERIES, DIM), 1)
    assert isinstance(decoder, MaskDecoder)
    return decoder


def encoder_maps(images: int = 2, height: int = 24, width: int = 40) -> list[Tensor]:
    torch.manual_seed(2)
    return [torch.randn(images, c, height >> k, width >> k) for k, c in enumerate(CHANNELS)]


def features(images: int = 2) -> PixelFeatures:
    torch.manual_seed(3)
    maps = [torch.randn(images, DIM, *size) for size in ((3, 5), (6, 10), (12, 20))]
    return PixelFeatures(maps, torch.randn(images, DIM, 24, 40))


def pixel_weights(own: PixelDecoder) -> dict[str, Tensor]:
    """Weights of our pixel decoder under transformers' names; its convolutions of the FPN step have no bias."""
    names = {
        "input_proj.": "input_projections.",
        "transformer.level_embed": "level_embed",
        "transformer.encoder.": "encoder.",
        "mask_features.": "mask_projection.",
        ".norm1.": ".self_attn_layer_norm.",
        ".norm2.": ".final_layer_norm.",
        ".linear1.": ".fc1.",
        ".linear2.": ".fc2.",
    }
    result = {}
    for name, tensor in own.state_dict().items():
        if name in ("adapter_1.0.bias", "layer_1.0.bias"):
            assert not tensor.any()
            continue
        result[reduce(lambda text, pair: text.replace(*pair), names.items(), name)] = tensor
    return result


def decoder_weights(own: MaskDecoder) -> dict[str, Tensor]:
    """Weights of our mask decoder under the names of transformers' decoder, which has no scores."""
    result: dict[str, Tensor] = {}
    for name, tensor in own.state_dict().items():
        kind, _, rest = name.partition(".")
        number, _, rest = rest.partition(".")
        if kind == "transformer_cross_attention_layers":
            rest = rest.replace("multihead_attn", "cross_attn").replace("norm", "cross_attn_layer_norm")
            result[f"layers.{number}.{rest}"] = tensor
        elif kind == "transformer_self_attention_layers":
            if "in_proj" in rest:
                for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                    result[f"layers.{number}.self_attn.{part}_proj.{rest.rpartition('_')[2]}"] = piece
            else:
                result[f"layers.{number}.{rest.replace('norm', 'self_attn_layer_norm')}"] = tensor
        elif kind == "transformer_ffn_layers":
            for ours, others in {"linear1": "fc1", "linear2": "fc2", "norm": "final_layer_norm"}.items():
                rest = rest.replace(ours, others)
            result[f"layers.{number}.{rest}"] = tensor
        elif kind == "decoder_norm":
            result[f"layernorm.{number}"] = tensor
        elif kind == "mask_embed":
            result[f"mask_predictor.mask_embedder.{rest.replace('.', '.0.')}"] = tensor
    return result


def test_pixel_decoder_equals_transformers() -> None:
    own = pixel_decoder()
    for step in (own.adapter_1, own.layer_1):
        nn.init.zeros_(step[0].bias)
    own.adapter_1[2] = nn.Identity()  # Mask2Former's lateral convolution has no activation, InstructSeg's has
    other = theirs.Mask2FormerPixelDecoder(CONFIG, list(CHANNELS)).eval()
    other.load_state_dict(pixel_weights(own))
    maps = encoder_maps()
    with torch.no_grad():
        found = own(maps)
        expected = other(maps, output_attentions=False, output_hidden_states=False, return_dict=True)
    torch.testing.assert_close(found.mask_features, expected.mask_features, **CLOSE)
    torch.testing.assert_close(tuple(found.maps), tuple(expected.multi_scale_features), **CLOSE)


def reference_predictions(
    own: MaskDecoder, pixels: PixelFeatures, queries: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Masks and normed queries of every prediction by transformers' decoder."""
    other = theirs.Mask2FormerMaskedAttentionDecoder(CONFIG).eval()
    other.load_state_dict(decoder_weights(own))
    positions = theirs.Mask2FormerSinePositionEmbedding(DIM // 2, normalize=True)
    rows = len(queries)
    levels, places = [], []
    for number, level in enumerate(pixels.maps):
        where = positions(level.shape, level.device, level.dtype)
        places.append(where.flatten(2).permute(2, 0, 1).expand(-1, rows, -1))
        levels.append((level.flatten(2) + own.level_embed.weight[number][None, :, None]).permute(2, 0, 1))
    with torch.no_grad():
        out = other(
            inputs_embeds=queries.transpose(0, 1),
            multi_stage_positional_embeddings=places,
            pixel_embeddings=pixels.mask_features,
            encoder_hidden_states=levels,
            query_position_embeddings=own.query_embed.weight[:, None].expand(-1, rows, -1),
            feature_size_list=[m.shape[-2:] for m in pixels.maps],
            output_attentions=False,
            output_hidden_states=False,
            return_dict=True,
        )
    return list(out.masks_queries_logits), [x.transpose(0, 1) for x in out.intermediate_hidden_states]


def test_mask_decoder_equals_transformers() -> None:
    own, pixels = mask_decoder(), features()
    torch.manual_seed(4)
    queries, text = torch.randn(2, QUERIES, DIM), torch.randn(2, 1, DIM)
    masks, normed = reference_predictions(own, pixels, queries)
    with torch.no_grad():
        found = own(pixels, queries, text)
    assert len(found.masks) == len(found.scores) == LAYERS + 1
    for mine, expected in zip(found.masks, masks, strict=True):
        torch.testing.assert_close(mine, expected, **CLOSE)
    first, second = own.query_projection.layers
    for mine, x in zip(found.scores, normed, strict=True):
        projected = (x @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias
        torch.testing.assert_close(mine, torch.einsum("rqd,rzd->rq", projected, text), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("images", [1, 2])
def test_rows_share_the_features_of_their_image(images: int) -> None:
    own, pixels = mask_decoder(), features(images)
    torch.manual_seed(4)
    owner = torch.tensor([images - 1, 0, 0])
    queries, text = torch.randn(3, QUERIES, DIM), torch.randn(3, 1, DIM)
    copied = PixelFeatures([m[owner] for m in pixels.maps], pixels.mask_features[owner])
    with torch.no_grad():
        shared, apart = own(pixels, queries, text, owner), own(copied, queries, text)
        last = own(pixels, queries, text, owner, only_last=True)
    torch.testing.assert_close(shared.masks, apart.masks, **CLOSE)
    torch.testing.assert_close(shared.scores, apart.scores, **CLOSE)
    assert len(last.masks) == len(last.scores) == 1
    assert torch.equal(last.masks[0], shared.masks[-1]) and torch.equal(last.scores[0], shared.scores[-1])


def test_keys_of_one_image_are_projected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own, pixels = mask_decoder(), features(1)
    seen = []
    linear = nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda x, *rest: (seen.append(x.shape), linear(x, *rest))[1])
    own(pixels, torch.randn(7, QUERIES, DIM), torch.randn(7, 1, DIM))
    cells = {int(m.shape[-2] * m.shape[-1]) for m in pixels.maps}
    assert {shape[0] for shape in seen if shape[1] in cells} == {1}


def test_a_query_with_an_empty_mask_sees_all_cells() -> None:
    """Cells are hidden where the mask is negative; if it is negative everywhere, all are visible."""
    own, pixels = mask_decoder(), features(1)
    seen: list[Tensor] = []
    layer = own.transformer_cross_attention_layers[0]
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[4]))
    queries = torch.randn(1, QUERIES, DIM)
    predictions = own(pixels, queries, torch.randn(1, 1, DIM))
    logits = nn.functional.interpolate(predictions.masks[0], (3, 5), mode="bilinear", align_corners=False)
    assert torch.equal(seen[0], logits.flatten(2) >= 0)
    hidden = PixelFeatures(pixels.maps, torch.zeros_like(pixels.mask_features))
    with torch.no_grad():
        for layer in own.mask_embed.layers:
            layer.weight.zero_()
        own.mask_embed.layers[2].bias.fill_(1.0)
    hidden.mask_features.fill_(-1.0)
    assert (own(hidden, queries, torch.randn(1, 1, DIM)).masks[0] < 0).all()
    assert seen[1].all()


def test_logits_are_float32_under_autocast() -> None:
    pixels_of, own = pixel_decoder(), mask_decoder()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        pixels = pixels_of(encoder_maps())
        found = own(pixels, torch.randn(2, QUERIES, DIM), torch.randn(2, 1, DIM))
    assert {m.dtype for m in [*pixels.maps, pixels.mask_features, *found.masks, *found.scores]} == {torch.float32}
    with torch.no_grad():
        exact = pixels_of(encoder_maps())
    assert torch.equal(pixels.mask_features, exact.mask_features)


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_levels_follow_the_maps_and_extra_levels(extra: int) -> None:
    decoder = PixelDecoder((6, 8, 10), DIM, HEADS, 2, 1, FFN, 16, extra)
    assert decoder.levels == 2 + extra
    maps = [torch.randn(1, c, 32 >> k, 48 >> k) for k, c in enumerate((6, 8, 10))]
    found = decoder(maps)
    coarse = [(8 >> k, 12 >> k) for k in range(extra, 0, -1)]
    assert [tuple(m.shape[-2:]) for m in found.maps] == [*coarse, (8, 12), (16, 24)]
    assert found.mask_features.shape == (1, 16, 32, 48)
    sum(m.sum() for m in [*found.maps, found.mask_features]).backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two maps"):
        PixelDecoder((6,))
    with pytest.raises(ValueError, match="multiple of 4 and of heads"):
        MaskDecoder(30, 4)
    own, pixels = mask_decoder(), features(2)
    with pytest.raises(ValueError, match="3 rows of queries for 2 images need owner"):
        own(pixels, torch.randn(3, QUERIES, DIM), torch.randn(3, 1, DIM))
    with pytest.raises(ValueError, match="reads 3 levels, got 2"):
        own(PixelFeatures(pixels.maps[:2], pixels.mask_features), torch.randn(2, QUERIES, DIM), torch.randn(2, 1, DIM))


def test_given_masks_are_scored_like_queries() -> None:
    """A query whose norm is that of the pooled features gets their score; see `ops.pooling`."""
    own, pixels = mask_decoder(), features(1)
    masks = torch.zeros(2, 48, 80, dtype=torch.bool)
    masks[0, :10, :10] = masks[1, 20:22] = True
    text = torch.randn(3, 1, DIM)
    with torch.no_grad():
        found = own.score_masks(pixels, masks, text)
        inside = pixels.mask_features[0][:, :5, :5].mean((1, 2))
        x = own.query_projection(own.decoder_norm(inside))
        expected = text[:, 0] @ x
    assert found.shape == (3, 2) and found.dtype == torch.float32
    torch.testing.assert_close(found[:, 0], expected, **CLOSE)
    assert own.score_masks(pixels, masks[:0], text).shape == (3, 0)


def test_published_parameter_shapes() -> None:
    """Names and shapes of the published weights (InstructSeg, state dict of `pixel_decoder` and `predictor`)."""
    with torch.device("meta"):
        pixel, predictor = PixelDecoder((128, 256, 512, 1024)), MaskDecoder()
    shapes = {name: list(p.shape) for name, p in pixel.named_parameters()}
    expected: dict[str, list[int]] = {"transformer.level_embed": [3, 256], "mask_features.weight": [256, 256, 1, 1]}
    for level, width in enumerate((1024, 512, 256)):
        expected[f"input_proj.{level}.0.weight"] = [256, width, 1, 1]
    for layer in range(6):
        names = {"sampling_offsets": 192, "attention_weights": 96, "value_proj": 256, "output_proj": 256}
        for name, out in names.items():
            expected[f"transformer.encoder.layers.{layer}.self_attn.{name}.weight"] = [out, 256]
        expected[f"transformer.encoder.layers.{layer}.linear1.weight"] = [1024, 256]
        expected[f"transformer.encoder.layers.{layer}.linear2.weight"] = [256, 1024]
    expected |= {"adapter_1.0.weight": [256, 128, 1, 1], "layer_1.0.weight": [256, 256, 3, 3]}
    weights = {k: v for k, v in shapes.items() if k == "transformer.level_embed" or (len(v) > 1)}
    assert weights == expected
    vectors = {f"{name}.{end}" for name in ("adapter_1.1", "layer_1.1") for end in ("weight", "bias")}
    vectors |= {f"input_proj.{k}.1.{end}" for k in range(3) for end in ("weight", "bias")}
    vectors |= {
        f"transformer.encoder.layers.{k}.norm{n}.{e}" for k in range(6) for n in (1, 2) for e in ("weight", "bias")
    }
    vectors |= {name.removesuffix("weight") + "bias" for name in expected if name.endswith("weight")}
    assert shapes.keys() == expected.keys() | vectors
    shapes = {name: list(p.shape) for name, p in predictor.named_parameters()}
    expected = {"query_embed.weight": [100, 256], "level_embed.weight": [3, 256]}
    expected |= {f"mask_embed.layers.{k}.weight": [256, 256] for k in range(3)}
    expected |= {f"query_projection.layers.{k}.weight": [256, 256] for k in range(2)}
    for layer in range(9):
        for kind, part in (("self", "self_attn"), ("cross", "multihead_attn")):
            expected[f"transformer_{kind}_attention_layers.{layer}.{part}.in_proj_weight"] = [768, 256]
            expected[f"transformer_{kind}_attention_layers.{layer}.{part}.out_proj.weight"] = [256, 256]
        expected[f"transformer_ffn_layers.{layer}.linear1.weight"] = [2048, 256]
        expected[f"transformer_ffn_layers.{layer}.linear2.weight"] = [256, 2048]
    assert {k: v for k, v in shapes.items() if len(v) > 1} == expected
    assert all(f"transformer_ffn_layers.{k}.norm.weight" in shapes for k in range(9))


def test_object_decoder_uses_every_parameter() -> None:
    torch.manual_seed(0)
    pixel_decoder = PixelDecoder((6, 8, 10), DIM, HEADS, 2, 1, FFN, DIM, 1)
    decoder = ObjectDecoder(pixel_decoder, MaskDecoder(DIM, HEADS, FFN, 3, QUERIES, DIM, pixel_decoder.levels))
    found: MaskPredictions = decoder([torch.randn(2, c, 16 >> k, 16 >> k) for k, c in enumerate((6, 8, 10))])
    assert found.masks[-1].shape == (2, QUERIES, 16, 16) and found.scores[-1].shape == (2, QUERIES)
    sum(m.square().mean() + s.square().mean() for m, s in zip(found.masks, found.scores, strict=True)).backward()
    unused = [name for name, p in decoder.named_parameters() if p.grad is None]
    assert unused == []


def test_positions_are_ops_on_grids() -> None:
    grid = torch.zeros(1, 8, 2, 3)
    assert cell_centres(grid)[4].tolist() == [0.5, 0.75]
    expected = theirs.Mask2FormerSinePositionEmbedding(4, normalize=True)(grid.shape, grid.device, grid.dtype)
    torch.testing.assert_close(sine_positions(grid), expected[0].flatten(1).T, **CLOSE)
    assert mask_logits(torch.ones(1, 2, 8), grid + 1).flatten().tolist() == [8.0] * 12
