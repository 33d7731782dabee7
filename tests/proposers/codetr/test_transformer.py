"""Deformable attention, layers, positions and queries against transformers' Deformable DETR and relatives."""

import pytest
import torch
from torch import Tensor, nn
from transformers import DeformableDetrConfig
from transformers.models.conditional_detr.modeling_conditional_detr import encode_sinusoidal_position_embedding
from transformers.models.deformable_detr import modeling_deformable_detr as theirs

from maskselect.proposers.codetr.config import CoDetrConfig
from maskselect.proposers.codetr.deformable import DecoderLayer, DeformableAttention, EncoderLayer
from maskselect.proposers.codetr.positions import Layout, embed_boxes, sine_map, to_logit
from maskselect.proposers.codetr.queries import QueryHead
from tests.proposers.codetr.test_names import TINY, tiny_model

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
SHAPES = ((12, 16), (6, 8), (3, 4), (2, 2), (1, 1))
CELLS = sum(h * w for h, w in SHAPES)
CONFIG = DeformableDetrConfig(
    d_model=TINY.dim,
    encoder_attention_heads=TINY.heads,
    decoder_attention_heads=TINY.heads,
    encoder_n_points=TINY.points,
    decoder_n_points=TINY.points,
    encoder_ffn_dim=TINY.ffn_dim,
    decoder_ffn_dim=TINY.ffn_dim,
    num_feature_levels=5,
    dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
    disable_custom_kernels=True,
    attn_implementation="eager",
)
ENCODER = {"attention.": "self_attn.", "attention_norm.": "self_attn_layer_norm."}
DECODER = {
    "attention.": "encoder_attn.",
    "self_norm.": "self_attn_layer_norm.",
    "attention_norm.": "encoder_attn_layer_norm.",
}
BOTH = {"ffn.0.": "mlp.fc1.", "ffn.2.": "mlp.fc2.", "ffn_norm.": "final_layer_norm."}


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


def transformers_weights(own: nn.Module, names: dict[str, str]) -> dict[str, Tensor]:
    """Weights of one of our layers under transformers' names."""
    result: dict[str, Tensor] = {}
    for name, tensor in own.state_dict().items():
        if name.startswith("self_attention.in_proj_"):
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                result[f"self_attn.{part}_proj.{name.rpartition('_')[2]}"] = piece
        elif name.startswith("self_attention.out_proj."):
            result[name.replace("self_attention.out_proj", "self_attn.o_proj")] = tensor
        else:
            prefix = next(p for p in names if name.startswith(p))
            result[names[prefix] + name.removeprefix(prefix)] = tensor
    return result


def shape_arguments() -> dict[str, object]:
    sizes = torch.tensor(SHAPES)
    starts = torch.cat([sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]])
    return {"spatial_shapes": sizes, "spatial_shapes_list": list(SHAPES), "level_start_index": starts}


@pytest.mark.parametrize("numbers", [2, 4])
def test_deformable_attention_equals_transformers(numbers: int) -> None:
    own = randomised(DeformableAttention(TINY.dim, TINY.heads, TINY.points))
    other = theirs.DeformableDetrMultiscaleDeformableAttention(CONFIG, TINY.heads, TINY.points)
    other.load_state_dict(own.state_dict())
    query, value = torch.randn(2, 9, TINY.dim), torch.randn(2, CELLS, TINY.dim)
    references, padding = torch.rand(2, 9, 5, numbers) * 1.2 - 0.1, torch.rand(2, CELLS) < 0.3
    found = own(query, value, references, SHAPES, padding)
    expected, _ = other(query, ~padding, encoder_hidden_states=value, reference_points=references, **shape_arguments())
    torch.testing.assert_close(found, expected, **CLOSE)


def test_encoder_layer_equals_transformers() -> None:
    own, other = randomised(EncoderLayer(TINY)), theirs.DeformableDetrEncoderLayer(CONFIG).eval()
    other.load_state_dict(transformers_weights(own, ENCODER | BOTH))
    x, positions = torch.randn(2, CELLS, TINY.dim), torch.randn(2, CELLS, TINY.dim)
    references, padding = torch.rand(2, CELLS, 5, 2), torch.rand(2, CELLS) < 0.3
    found = own(x, positions, references, SHAPES, padding)
    expected = other(
        x, ~padding, spatial_position_embeddings=positions, reference_points=references, **shape_arguments()
    )
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (found - own(x, 0 * positions, references, SHAPES, padding)).abs().max() > 0.1


def test_decoder_layer_equals_transformers() -> None:
    own, other = randomised(DecoderLayer(TINY)), theirs.DeformableDetrDecoderLayer(CONFIG).eval()
    other.load_state_dict(transformers_weights(own, DECODER | BOTH))
    x, positions, memory = torch.randn(2, 9, TINY.dim), torch.randn(2, 9, TINY.dim), torch.randn(2, CELLS, TINY.dim)
    references, padding = torch.rand(2, 9, 5, 4), torch.rand(2, CELLS) < 0.3
    found = own(x, positions, memory, references, SHAPES, padding)
    expected = other(
        x,
        object_queries_position_embeddings=positions,
        reference_points=references,
        encoder_hidden_states=memory,
        encoder_attention_mask=~padding,
        **shape_arguments(),
    )
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (found - own(x, 0 * positions, memory, references, SHAPES, padding)).abs().max() > 0.1


@pytest.fixture
def padding() -> Tensor:
    """Two canvases of 48 x 64 pixels, one with padding on both sides."""
    padding = torch.zeros(2, 48, 64, dtype=torch.bool)
    padding[1, 39:], padding[1, :, 45:] = True, True
    return padding


@pytest.fixture
def layout(padding: Tensor) -> Layout:
    return Layout.of(padding, list(SHAPES))


def test_sine_map_equals_a_loop(layout: Layout) -> None:
    for padded in layout.paddings[:3]:
        found = sine_map(padded, 8).view(*padded.shape, 16)
        for b, r, c in torch.cartesian_prod(*(torch.arange(n) for n in padded.shape)).tolist():
            valid = ~padded[b]
            expected = []
            for count, total in (
                (valid[: r + 1, c].sum(), valid[:, c].sum()),
                (valid[r, : c + 1].sum(), valid[r].sum()),
            ):
                angle = count / (total + 1e-6) * 2 * torch.pi
                for i in range(8):
                    wave = angle / 20 ** (2 * (i // 2) / 8)
                    expected.append(wave.sin() if i % 2 == 0 else wave.cos())
            torch.testing.assert_close(found[b, r, c], torch.stack(expected), **CLOSE)


def test_box_embedding_equals_transformers() -> None:
    boxes = torch.rand(3, 7, 4)
    torch.testing.assert_close(embed_boxes(boxes, 16), encode_sinusoidal_position_embedding(boxes, 16), **CLOSE)


def test_logit_equals_transformers() -> None:
    shares = torch.tensor([-0.1, 0.0, 1e-4, 0.3, 0.9999, 1.0, 2.0])
    torch.testing.assert_close(to_logit(shares), theirs.inverse_sigmoid(shares, eps=1e-3))


def test_references_and_ratios_equal_transformers(layout: Layout) -> None:
    ratios = torch.stack([theirs.DeformableDetrModel.get_valid_ratio(None, ~p) for p in layout.paddings], 1)
    torch.testing.assert_close(layout.valid_ratios, ratios)
    expected = theirs.DeformableDetrEncoder.get_reference_points(list(SHAPES), ratios, "cpu")
    torch.testing.assert_close(layout.references(), expected, **CLOSE)


def test_first_boxes_equal_transformers(layout: Layout) -> None:
    class Pass:
        enc_output = enc_output_norm = staticmethod(lambda x: x)

    memory = torch.ones(2, CELLS, 3)
    kept, expected = theirs.DeformableDetrModel.gen_encoder_output_proposals(
        Pass(), memory, layout.padding, list(SHAPES)
    )
    logits, usable = layout.first_boxes()
    torch.testing.assert_close(logits, expected, **CLOSE)
    assert torch.equal(usable, kept[..., 0] > 0) and 0 < usable.sum() < usable.numel()


@pytest.fixture
def head() -> QueryHead:
    model = tiny_model(1).query_head
    return model.eval()


@pytest.fixture
def maps() -> list[Tensor]:
    torch.manual_seed(3)
    return [torch.randn(2, TINY.dim, *shape) for shape in SHAPES]


def test_choosing_queries_equals_the_dense_way(head: QueryHead, layout: Layout) -> None:
    memory = torch.randn(2, CELLS, TINY.dim)
    boxes = head.choose(memory, layout)
    first, usable = layout.first_boxes()
    rows = head.memory_norm(head.memory_proj(memory * usable[..., None]))
    dense_classes, dense_logits = head.classify[-1](rows), head.regress[-1](rows) + first
    picked = dense_classes.max(-1).values.topk(TINY.queries, 1).indices
    for b in range(2):
        torch.testing.assert_close(boxes[b], dense_logits[b, picked[b]].sigmoid(), **CLOSE)


def test_few_cells_give_few_queries(head: QueryHead) -> None:
    small = [torch.randn(1, TINY.dim, *shape) for shape in ((3, 4), (2, 2), (1, 1), (1, 1), (1, 1))]
    found = head(small, torch.zeros(1, 6, 8, dtype=torch.bool))
    assert found.logits.shape == (1, 19, TINY.classes)
    assert found.boxes.isfinite().all()


def test_decoder_equals_a_plain_loop(head: QueryHead, maps: list[Tensor], padding: Tensor, layout: Layout) -> None:
    """Look forward twice, written with transformers' helpers: refinement by raw, prediction by normalised output."""
    memory = head.encode(maps, layout)
    box = head.choose(memory, layout)
    x = head.query_embed.weight.expand(2, -1, -1)
    twice = torch.cat([layout.valid_ratios] * 2, -1)
    found = head(maps, padding)
    for n, layer in enumerate(head.decoder):
        scaled = box[:, :, None] * twice[:, None]
        sine = encode_sinusoidal_position_embedding(scaled[:, :, 0], TINY.dim // 2)
        first, _, second = head.box_position
        position = second(first(sine).clamp(min=0))
        x = layer(x, position, memory, scaled, SHAPES, layout.padding)
        normed = nn.functional.layer_norm(x, (TINY.dim,), head.decoder_norm.weight, head.decoder_norm.bias)
        start = theirs.inverse_sigmoid(box, eps=1e-3)
        logits, boxes = head.classify[n](normed), (head.regress[n](normed) + start).sigmoid()
        box = (head.regress[n](x) + start).sigmoid()
    torch.testing.assert_close(found.logits, logits, **CLOSE)
    torch.testing.assert_close(found.boxes, boxes, **CLOSE)


def test_encoder_equals_a_plain_loop_and_its_maps_are_returned(
    head: QueryHead, maps: list[Tensor], padding: Tensor, layout: Layout
) -> None:
    x = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
    positions = torch.cat([sine_map(p, TINY.dim // 2) + head.level_embeds[n] for n, p in enumerate(layout.paddings)], 1)
    for layer in head.encoder:
        other = theirs.DeformableDetrEncoderLayer(CONFIG).eval()
        other.load_state_dict(transformers_weights(layer, ENCODER | BOTH))
        x = other(
            x,
            ~layout.padding,
            spatial_position_embeddings=positions,
            reference_points=layout.references(),
            **shape_arguments(),
        )
    found = torch.cat([m.flatten(2).transpose(1, 2) for m in head(maps, padding).maps], 1)
    torch.testing.assert_close(found, x, **CLOSE)


def test_padding_changes_nothing_that_is_predicted(head: QueryHead, maps: list[Tensor], padding: Tensor) -> None:
    found = head(maps, padding)
    shares = [(~p) for p in Layout.of(padding, list(SHAPES)).paddings]
    other = head([m.where(s[:, None], torch.full_like(m, 9.0)) for m, s in zip(maps, shares, strict=True)], padding)
    torch.testing.assert_close(found.logits, other.logits, **CLOSE)
    torch.testing.assert_close(found.boxes, other.boxes, **CLOSE)


def test_layers_of_the_published_sizes_have_the_published_attention() -> None:
    layer = EncoderLayer(CoDetrConfig(encoder_layers=1))
    assert layer.attention.sampling_offsets.weight.shape == (320, 256)
    assert layer.attention.attention_weights.weight.shape == (160, 256)
