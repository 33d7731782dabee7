"""What the published names mean.

A round trip through the importer's own map cannot see two tensors of one shape that are swapped. Here the published
names are used directly, in formulas and in transformers' layers, and the imported model must compute the same.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.deformable_detr import modeling_deformable_detr as theirs

from maskselect.proposers.codetr import importer
from maskselect.proposers.codetr.backbone import WindowedViT
from maskselect.proposers.codetr.model import CoDetr
from tests.proposers.codetr.test_backbone import attended, channel_normed
from tests.proposers.codetr.test_names import TINY
from tests.proposers.codetr.test_transformer import CELLS, CONFIG, SHAPES, shape_arguments

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
HEAD = "query_head.transformer."


def numbered(names: list[str], shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Random tensors under published names."""
    generator = torch.Generator().manual_seed(11)
    return {name: torch.randn(shapes[name], generator=generator) * 0.2 for name in names}


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    shapes = {importer.NAMES.foreign(name): tensor.shape for name, tensor in CoDetr(TINY).state_dict().items()}
    return numbered(sorted(shapes), shapes)


@pytest.fixture(scope="module")
def model(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> CoDetr:
    path = tmp_path_factory.mktemp("codetr") / "official.pth"
    torch.save({"state_dict": tensors}, Path(path))
    return importer.load_official(TINY, path)[0]


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def test_block_of_the_vit(model: CoDetr, tensors: dict[str, Tensor]) -> None:
    backbone: WindowedViT = model.backbone
    for number, block in enumerate(backbone.blocks):
        own = below(tensors, f"backbone.blocks.{number}.")
        names = {"attn.q_proj.bias": own["attn.q_bias"], "attn.v_proj.bias": own["attn.v_bias"]}
        x = torch.randn(1, 12, TINY.embed_dim)
        normed = F.layer_norm(x, x.shape[-1:], own["norm1.weight"], own["norm1.bias"], 1e-6)
        y = x + attended(own | names, normed[0], (3, 4), TINY.num_heads)
        z = F.layer_norm(y, x.shape[-1:], own["norm2.weight"], own["norm2.bias"], 1e-6)
        z = F.silu(linear(own, "mlp.w1", z)) * linear(own, "mlp.w2", z)
        z = F.layer_norm(z, z.shape[-1:], own["mlp.ffn_ln.weight"], own["mlp.ffn_ln.bias"], 1e-6)
        found = block(x, rope=backbone.rope.get_embed([3, 4]))
        torch.testing.assert_close(found, y + linear(own, "mlp.w3", z), **CLOSE)


def to_transformers(weights: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Published names of a layer to transformers', longest beginning first."""
    result: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if "in_proj_" in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                result[f"self_attn.{part}_proj.{name.rpartition('_')[2]}"] = piece
        else:
            prefix = max((p for p in names if name.startswith(p)), key=len)
            result[names[prefix] + name.removeprefix(prefix)] = tensor
    return result


FFN = {"ffns.0.layers.0.0.": "mlp.fc1.", "ffns.0.layers.1.": "mlp.fc2."}
ENCODER = FFN | {"attentions.0.": "self_attn.", "norms.0.": "self_attn_layer_norm.", "norms.1.": "final_layer_norm."}
DECODER = FFN | {
    "attentions.0.attn.out_proj.": "self_attn.o_proj.",
    "attentions.1.": "encoder_attn.",
    "norms.0.": "self_attn_layer_norm.",
    "norms.1.": "encoder_attn_layer_norm.",
    "norms.2.": "final_layer_norm.",
}


@torch.no_grad()
def test_layers_of_the_encoder(model: CoDetr, tensors: dict[str, Tensor]) -> None:
    x, positions, references = torch.randn(1, CELLS, 32), torch.randn(1, CELLS, 32), torch.rand(1, CELLS, 5, 2)
    nothing = torch.zeros(1, CELLS, dtype=torch.bool)
    for number, layer in enumerate(model.query_head.encoder):
        other = theirs.DeformableDetrEncoderLayer(CONFIG).eval()
        other.load_state_dict(to_transformers(below(tensors, f"{HEAD}encoder.layers.{number}."), ENCODER))
        expected = other(
            x, ~nothing, spatial_position_embeddings=positions, reference_points=references, **shape_arguments()
        )
        torch.testing.assert_close(layer(x, positions, references, SHAPES, nothing), expected, **CLOSE)


@torch.no_grad()
def test_layers_of_the_decoder(model: CoDetr, tensors: dict[str, Tensor]) -> None:
    x, positions, references = torch.randn(1, 9, 32), torch.randn(1, 9, 32), torch.rand(1, 9, 5, 4)
    memory, nothing = torch.randn(1, CELLS, 32), torch.zeros(1, CELLS, dtype=torch.bool)
    for number, layer in enumerate(model.query_head.decoder):
        other = theirs.DeformableDetrDecoderLayer(CONFIG).eval()
        other.load_state_dict(to_transformers(below(tensors, f"{HEAD}decoder.layers.{number}."), DECODER))
        expected = other(
            x,
            object_queries_position_embeddings=positions,
            reference_points=references,
            encoder_hidden_states=memory,
            encoder_attention_mask=~nothing,
            **shape_arguments(),
        )
        torch.testing.assert_close(layer(x, positions, memory, references, SHAPES, nothing), expected, **CLOSE)


def test_branches_and_embeddings_of_the_query_head(model: CoDetr, tensors: dict[str, Tensor]) -> None:
    head, x = model.query_head, torch.randn(4, TINY.dim)
    for number in range(TINY.decoder_layers + 1):
        own = below(tensors, f"query_head.reg_branches.{number}.")
        expected = linear(own, "4", linear(own, "2", linear(own, "0", x).relu()).relu())
        torch.testing.assert_close(head.regress[number](x), expected, **CLOSE)
        expected = linear(tensors, f"query_head.cls_branches.{number}", x)
        torch.testing.assert_close(head.classify[number](x), expected, **CLOSE)
    wide, points = torch.randn(4, 2 * TINY.dim), below(tensors, HEAD + "decoder.ref_point_head.")
    torch.testing.assert_close(head.box_position(wide), linear(points, "2", linear(points, "0", wide).relu()), **CLOSE)
    assert torch.equal(head.level_embeds, tensors[HEAD + "level_embeds"])
    assert torch.equal(head.query_embed.weight, tensors[HEAD + "query_embed.weight"])
    pairs = {"enc_output": head.memory_proj, "enc_output_norm": head.memory_norm, "decoder.norm": head.decoder_norm}
    for name, own in pairs.items():
        assert torch.equal(own.weight, tensors[f"{HEAD}{name}.weight"])
        assert torch.equal(own.bias, tensors[f"{HEAD}{name}.bias"])


def conv(weights: dict[str, Tensor], name: str, x: Tensor, **options: int) -> Tensor:
    return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), **options)


def conv_norm(weights: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    x = conv(weights, f"{name}.conv", x, padding=1, stride=stride)
    return channel_normed(x, weights[f"{name}.norm_layer.weight"], weights[f"{name}.norm_layer.bias"]).relu()


def test_mask_head(model: CoDetr, tensors: dict[str, Tensor]) -> None:
    head, own = model.mask_head, below(tensors, "mask_head.")
    x = torch.randn(2, TINY.dim, 14, 14)
    torch.testing.assert_close(head.instance(x), conv_norm(own, "instance_convs.0", x), **CLOSE)
    twice = conv_norm(own, "semantic_convs.1", conv_norm(own, "semantic_convs.0", x))
    torch.testing.assert_close(head.semantic(x), twice, **CLOSE)
    for number, stage in enumerate(head.stages):
        width, part = TINY.dim // 2**number, below(own, f"stages.{number}.")
        torch.testing.assert_close(stage.semantic(x), conv(part, "semantic_transform_in", x), **CLOSE)
        y = torch.randn(2, 2 * width + 1, 7, 7)
        mixed = conv(part, "fuse_conv.0", y).relu()
        torch.testing.assert_close(stage.mix(y).relu(), mixed, **CLOSE)
        total = mixed.mean((2, 3), keepdim=True).expand_as(mixed)
        for k, dilation in ((1, 1), (2, 3), (3, 5)):
            name = f"fuse_conv.1.dilation_conv_{k}.conv"
            total = total + conv(part, name, mixed, padding=dilation, dilation=dilation).relu()
        fused = conv(part, "fuse_conv.1.merge_conv.conv", total).relu()
        torch.testing.assert_close(stage.fuse(mixed), fused, **CLOSE)
        torch.testing.assert_close(stage.out(fused), conv(part, "fuse_transform_out", fused), **CLOSE)
        logits = conv(own, f"stage_instance_logits.{number}", mixed)
        torch.testing.assert_close(head.class_logits[number](mixed), logits, **CLOSE)
    y = torch.randn(2, TINY.dim // 8, 7, 7)
    torch.testing.assert_close(head.final(y), conv(own, "stage_instance_logits.3", y), **CLOSE)


def test_judge(model: CoDetr, tensors: dict[str, Tensor]) -> None:
    own, x = below(tensors, "mask_iou_head."), torch.randn(2, TINY.dim + 1, 14, 14)
    y = conv_norm(own, "convs.1", conv_norm(own, "convs.0", x), stride=2)
    torch.testing.assert_close(model.judge.convs(x), y, **CLOSE)
    expected = linear(own, "fc_mask_iou", linear(own, "fcs.0", y.flatten(1)).relu())
    torch.testing.assert_close(model.judge.out(model.judge.hidden(y.flatten(1)).relu()), expected, **CLOSE)


def test_outer_parts_of_backbone_and_neck(model: CoDetr, tensors: dict[str, Tensor]) -> None:
    image = torch.randn(1, 3, 16, 16)
    patches = conv(tensors, "backbone.patch_embed.proj", image, stride=TINY.patch_size)
    torch.testing.assert_close(model.backbone.patch_embed(image), patches, **CLOSE)
    assert torch.equal(model.backbone.pos_embed, tensors["backbone.pos_embed"])
    assert torch.equal(model.backbone.norm.weight, tensors["backbone.out_norm.weight"])
    for name, parameter in model.neck.named_parameters():
        assert torch.equal(parameter, tensors[f"neck.{name}"])
    assert isinstance(model.neck.p6[1], nn.Conv2d) and model.neck.p6[1].stride == (2, 2)
