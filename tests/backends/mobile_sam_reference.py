"""MobileSAM as it is published, written down anew: names and shapes of its file, and its encoder by those names alone.

Sources: arXiv 2306.14289, the repository's own network, and a public listing of the file's names.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PUBLISHED_PARAMETERS = 10_130_092
"""Told as 10.1 M for the published model, the unused classifier with its 321,640 among them."""
PUBLISHED_BYTES = 40_728_226
CLASSIFIER = 2 * 320 + 1000 * 320 + 1000

WIDTHS, DEPTHS, HEADS, WINDOWS = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)
ENCODER = "image_encoder."

Shapes = dict[str, tuple[int, ...]]


def conv_norm(name: str, out: int, into: int, side: int) -> Shapes:
    each = {f"{name}.bn.{x}": (out,) for x in ("weight", "bias", "running_mean", "running_var")}
    return {f"{name}.c.weight": (out, into, side, side), **each, f"{name}.bn.num_batches_tracked": ()}


def affine(name: str, *weight: int, bias: int | None = None) -> Shapes:
    """Weight and bias of a linear layer, of a norm, or of a convolution."""
    return {f"{name}.weight": weight, f"{name}.bias": (weight[0] if bias is None else bias,)}


def merging(stage: int) -> Shapes:
    name, into, out = f"{ENCODER}layers.{stage}.downsample.conv", WIDTHS[stage], WIDTHS[stage + 1]
    return conv_norm(f"{name}1", out, into, 1) | conv_norm(f"{name}2", out, 1, 3) | conv_norm(f"{name}3", out, out, 1)


def block_shapes(name: str, stage: int) -> Shapes:
    width, wide = WIDTHS[stage], 4 * WIDTHS[stage]
    if stage == 0:
        last = conv_norm(f"{name}.conv3", width, wide, 1)
        return conv_norm(f"{name}.conv1", wide, width, 1) | conv_norm(f"{name}.conv2", wide, 1, 3) | last
    return {
        f"{name}.attn.attention_biases": (HEADS[stage], WINDOWS[stage] ** 2),
        **affine(f"{name}.attn.norm", width),
        **affine(f"{name}.attn.qkv", 3 * width, width),
        **affine(f"{name}.attn.proj", width, width),
        **affine(f"{name}.mlp.norm", width),
        **affine(f"{name}.mlp.fc1", wide, width),
        **affine(f"{name}.mlp.fc2", width, wide),
        **conv_norm(f"{name}.local_conv", width, 1, 3),
    }


def encoder_shapes() -> Shapes:
    shapes = conv_norm(f"{ENCODER}patch_embed.seq.0", 32, 3, 3) | conv_norm(f"{ENCODER}patch_embed.seq.2", 64, 32, 3)
    for stage, depth in enumerate(DEPTHS):
        for block in range(depth):
            shapes |= block_shapes(f"{ENCODER}layers.{stage}.blocks.{block}", stage)
        shapes |= merging(stage) if stage < 3 else {}
    shapes |= affine(f"{ENCODER}norm_head", 320) | affine(f"{ENCODER}head", 1000, 320)
    shapes |= {f"{ENCODER}neck.0.weight": (256, 320, 1, 1), f"{ENCODER}neck.2.weight": (256, 256, 3, 3)}
    return shapes | affine(f"{ENCODER}neck.1", 256) | affine(f"{ENCODER}neck.3", 256)


def prompt_shapes() -> Shapes:
    name = "prompt_encoder."
    single = ("not_a_point_embed", "no_mask_embed", *(f"point_embeddings.{n}" for n in range(4)))
    shapes: Shapes = {f"{name}{x}.weight": (1, 256) for x in single}
    shapes[f"{name}pe_layer.positional_encoding_gaussian_matrix"] = (2, 128)
    for place, shape in {0: (4, 1, 2, 2), 1: (4,), 3: (16, 4, 2, 2), 4: (16,), 6: (256, 16, 1, 1)}.items():
        shapes |= affine(f"{name}mask_downscaling.{place}", *shape)
    return shapes


def attention_shapes(name: str, inner: int) -> Shapes:
    shapes = affine(f"{name}.out_proj", 256, inner)
    for x in "qkv":
        shapes |= affine(f"{name}.{x}_proj", inner, 256)
    return shapes


def decoder_shapes() -> Shapes:
    name = "mask_decoder."
    shapes: Shapes = {f"{name}iou_token.weight": (1, 256), f"{name}mask_tokens.weight": (4, 256)}
    for layer in range(2):
        own = f"{name}transformer.layers.{layer}."
        shapes |= attention_shapes(f"{own}self_attn", 256)
        shapes |= attention_shapes(f"{own}cross_attn_token_to_image", 128)
        shapes |= attention_shapes(f"{own}cross_attn_image_to_token", 128)
        shapes |= affine(f"{own}mlp.lin1", 2048, 256) | affine(f"{own}mlp.lin2", 256, 2048)
        for norm in range(1, 5):
            shapes |= affine(f"{own}norm{norm}", 256)
    shapes |= attention_shapes(f"{name}transformer.final_attn_token_to_image", 128)
    shapes |= affine(f"{name}transformer.norm_final_attn", 256) | affine(f"{name}output_upscaling.1", 64)
    shapes |= affine(f"{name}output_upscaling.0", 256, 64, 2, 2, bias=64)
    shapes |= affine(f"{name}output_upscaling.3", 64, 32, 2, 2, bias=32)
    heads = {f"output_hypernetworks_mlps.{n}": 32 for n in range(4)} | {"iou_prediction_head": 4}
    for head, out in heads.items():
        for layer, size in enumerate((256, 256, out)):
            shapes |= affine(f"{name}{head}.layers.{layer}", size, 256)
    return shapes


def published_shapes() -> Shapes:
    return encoder_shapes() | prompt_shapes() | decoder_shapes()


def made(name: str, shape: tuple[int, ...]) -> Tensor:
    """A random tensor under which activations keep their size."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if name.endswith("running_var"):
        return torch.rand(shape) + 0.5
    if len(shape) > 1 and "biases" not in name:
        return torch.randn(shape) / max(1, torch.Size(shape[1:]).numel()) ** 0.5
    return torch.randn(shape) * 0.2 + (1 if name.endswith("weight") else 0)


# The encoder anew, by the published names alone.


def convolved(t: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = t[f"{name}.c.weight"]
    x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, x.shape[1] // weight.shape[1])
    mean, var, scale, shift = (t[f"{name}.bn.{y}"] for y in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, scale, shift, False, 0, 1e-5)


def attended(t: dict[str, Tensor], name: str, window: Tensor, heads: int) -> Tensor:
    """One window (s, s, C): each head and each cell by itself."""
    side, channels = window.shape[1:]
    cells = F.layer_norm(window.reshape(-1, channels), (channels,), t[f"{name}.norm.weight"], t[f"{name}.norm.bias"])
    parts = (cells @ t[f"{name}.qkv.weight"].T + t[f"{name}.qkv.bias"]).reshape(len(cells), heads, 3, -1)
    places = [(k // side, k % side) for k in range(side * side)]
    out = torch.zeros(len(cells), heads, channels // heads)
    for head in range(heads):
        query, key, value = parts[:, head].unbind(1)
        table = t[f"{name}.attention_biases"][head].tolist()
        for place, (y, x) in enumerate(places):
            near = torch.tensor([table[abs(y - v) * side + abs(x - u)] for v, u in places])
            weights = (key @ query[place] / query.shape[1] ** 0.5 + near).exp()
            out[place, head] = (weights / weights.sum()) @ value
    mixed = out.flatten(1) @ t[f"{name}.proj.weight"].T + t[f"{name}.proj.bias"]
    return mixed.reshape(window.shape)


def attending_block(t: dict[str, Tensor], name: str, x: Tensor, heads: int, side: int) -> Tensor:
    """x: (C, h, w). Windows that hang over the edge see zeros there."""
    channels, height, width = x.shape
    found = torch.zeros_like(x)
    for top in range(0, height, side):
        for left in range(0, width, side):
            window = torch.zeros(side, side, channels)
            part = x[:, top : top + side, left : left + side].permute(1, 2, 0)
            window[: part.shape[0], : part.shape[1]] = part
            mixed = attended(t, f"{name}.attn", window, heads)[: part.shape[0], : part.shape[1]]
            found[:, top : top + side, left : left + side] = mixed.permute(2, 0, 1)
    x = convolved(t, f"{name}.local_conv", (x + found)[None])[0].permute(1, 2, 0)
    y = F.layer_norm(x, (channels,), t[f"{name}.mlp.norm.weight"], t[f"{name}.mlp.norm.bias"])
    y = F.gelu(y @ t[f"{name}.mlp.fc1.weight"].T + t[f"{name}.mlp.fc1.bias"])
    return (x + y @ t[f"{name}.mlp.fc2.weight"].T + t[f"{name}.mlp.fc2.bias"]).permute(2, 0, 1)


def conv_block(t: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    y = F.gelu(convolved(t, f"{name}.conv1", x))
    y = F.gelu(convolved(t, f"{name}.conv2", y))
    return F.gelu(x + convolved(t, f"{name}.conv3", y))


def normed(t: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    return x * t[f"{name}.weight"][:, None, None] + t[f"{name}.bias"][:, None, None]


def encoded(t: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """(1, 3, H, W) to (1, 256, H / 16, W / 16)."""
    x = F.gelu(convolved(t, f"{ENCODER}patch_embed.seq.0", pixels, 2))
    x = convolved(t, f"{ENCODER}patch_embed.seq.2", x, 2)
    for stage, depth in enumerate(DEPTHS):
        for block in range(depth):
            name = f"{ENCODER}layers.{stage}.blocks.{block}"
            x = attending_block(t, name, x[0], HEADS[stage], WINDOWS[stage])[None] if stage else conv_block(t, name, x)
        if stage < 3:
            name = f"{ENCODER}layers.{stage}.downsample.conv"
            x = F.gelu(convolved(t, f"{name}1", x))
            x = F.gelu(convolved(t, f"{name}2", x, 1 if stage == 2 else 2))
            x = convolved(t, f"{name}3", x)
    x = normed(t, f"{ENCODER}neck.1", F.conv2d(x, t[f"{ENCODER}neck.0.weight"]))
    return normed(t, f"{ENCODER}neck.3", F.conv2d(x, t[f"{ENCODER}neck.2.weight"], padding=1))
