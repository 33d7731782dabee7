"""Names and shapes of an InstructSeg as its authors store it, written out from section 1.13 of the specification."""

from dataclasses import dataclass

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """The defaults are the published ones."""

    width: int = 2560
    layers: int = 32
    ffn: int = 10_240
    vocabulary: int = 50_296
    outputs: int = 51_200
    vision: int = 1152
    vision_layers: int = 27
    vision_ffn: int = 4304
    patch: int = 14
    places: int = 729
    fusion: int = 1024
    inner: int = 1024
    dim: int = 256
    queries: int = 100
    temporal: int = 128
    depth: int = 3
    swin: int = 128
    blocks: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 12
    pixel_layers: int = 6
    pixel_heads: int = 8
    points: int = 4
    pixel_ffn: int = 1024
    mask_layers: int = 9
    mask_ffn: int = 2048


def biased(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def language_model(s: Sizes) -> Shapes:
    out: Shapes = {"model.embed_tokens.weight": (s.vocabulary, s.width), "lm_head.weight": (s.outputs, s.width)}
    out |= biased("model.final_layernorm", s.width)
    for number in range(s.layers):
        layer = f"model.layers.{number}."
        out |= biased(layer + "input_layernorm", s.width)
        for name in ("q_proj", "k_proj", "v_proj", "dense"):
            out |= biased(f"{layer}self_attn.{name}", s.width, s.width)
        out |= biased(layer + "mlp.fc1", s.ffn, s.width) | biased(layer + "mlp.fc2", s.width, s.ffn)
    tower = "model.vision_tower.vision_model."
    out |= biased(tower + "embeddings.patch_embedding", s.vision, 3, s.patch, s.patch)
    out[tower + "embeddings.position_embedding.weight"] = (s.places, s.vision)
    for number in range(s.vision_layers):
        layer = f"{tower}encoder.layers.{number}."
        out |= biased(layer + "layer_norm1", s.vision) | biased(layer + "layer_norm2", s.vision)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            out |= biased(f"{layer}self_attn.{name}", s.vision, s.vision)
        out |= biased(layer + "mlp.fc1", s.vision_ffn, s.vision) | biased(layer + "mlp.fc2", s.vision, s.vision_ffn)
    out |= biased(tower + "post_layernorm", s.vision)
    out |= biased("model.mm_projector.0", s.width, s.vision) | biased("model.mm_projector.2", s.width, s.width)
    return out


def perceiver(prefix: str, width: int, s: Sizes) -> Shapes:
    out = biased(prefix + "norm", width)
    for number in range(s.depth):
        layer = f"{prefix}layers.{number}."
        out |= biased(layer + "0.norm_media", width) | biased(layer + "0.norm_latents", width)
        out[layer + "0.to_q.weight"] = (s.inner, width)
        out[layer + "0.to_kv.weight"] = (2 * s.inner, width)
        out[layer + "0.to_out.weight"] = (width, s.inner)
        out |= biased(layer + "1.0", width)
        out[layer + "1.1.weight"], out[layer + "1.3.weight"] = (2 * width, width), (width, 2 * width)
    return out


def tokens(s: Sizes) -> Shapes:
    """Perceiver, fusion, mask tokens and projectors."""
    out: Shapes = {"seg_query": (s.queries, s.width), "temporal_query": (s.temporal, s.width)}
    out |= biased("seg_query_projector", s.dim, s.width)
    out |= biased("origin_SEG_token_projector", s.fusion, s.width)
    out |= biased("text_vmtf_projector", s.fusion, s.width)
    out |= biased("SEG_token_projector", s.dim, 2 * s.fusion)
    out |= biased("local_project", s.fusion, 8 * s.swin, 1, 1)
    return out | perceiver("ovp_layers.", s.width, s) | perceiver("vmtf_layers.", s.fusion, s)


def swin(s: Sizes) -> Shapes:
    start = "model.vision_tower_mask."
    out = biased(start + "patch_embed.proj", s.swin, 3, 4, 4) | biased(start + "patch_embed.norm", s.swin)
    for stage, (blocks, heads) in enumerate(zip(s.blocks, s.heads, strict=True)):
        width = s.swin << stage
        for number in range(blocks):
            block = f"{start}layers.{stage}.blocks.{number}."
            out |= biased(block + "norm1", width) | biased(block + "norm2", width)
            out |= biased(block + "attn.qkv", 3 * width, width) | biased(block + "attn.proj", width, width)
            out[block + "attn.relative_position_bias_table"] = ((2 * s.window - 1) ** 2, heads)
            out |= biased(block + "mlp.fc1", 4 * width, width) | biased(block + "mlp.fc2", width, 4 * width)
        if stage < len(s.blocks) - 1:
            out |= biased(f"{start}layers.{stage}.downsample.norm", 4 * width)
            out[f"{start}layers.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
        out |= biased(f"{start}norm{stage}", width)
    return out


def indices(s: Sizes) -> Shapes:
    """Swin's computed tables, int64."""
    return {
        f"model.vision_tower_mask.layers.{stage}.blocks.{number}.attn.relative_position_index": (s.window**2,) * 2
        for stage, blocks in enumerate(s.blocks)
        for number in range(blocks)
    }


def pixel_decoder(s: Sizes) -> Shapes:
    start, dim, levels = "pixel_decoder.", s.dim, 3
    out: Shapes = {start + "transformer.level_embed": (levels, dim)}
    for number, width in enumerate((8 * s.swin, 4 * s.swin, 2 * s.swin)):
        out |= biased(f"{start}input_proj.{number}.0", dim, width, 1, 1) | biased(f"{start}input_proj.{number}.1", dim)
    for number in range(s.pixel_layers):
        layer = f"{start}transformer.encoder.layers.{number}."
        places = s.pixel_heads * levels * s.points
        out |= biased(layer + "self_attn.sampling_offsets", 2 * places, dim)
        out |= biased(layer + "self_attn.attention_weights", places, dim)
        out |= biased(layer + "self_attn.value_proj", dim, dim) | biased(layer + "self_attn.output_proj", dim, dim)
        out |= biased(layer + "norm1", dim) | biased(layer + "norm2", dim)
        out |= biased(layer + "linear1", s.pixel_ffn, dim) | biased(layer + "linear2", dim, s.pixel_ffn)
    out |= biased(start + "adapter_1.0", dim, s.swin, 1, 1) | biased(start + "adapter_1.1", dim)
    out |= biased(start + "layer_1.0", dim, dim, 3, 3) | biased(start + "layer_1.1", dim)
    return out | biased(start + "mask_features", dim, dim, 1, 1)


def predictor(s: Sizes) -> Shapes:
    start, dim = "predictor.", s.dim
    out: Shapes = {start + "query_embed.weight": (s.queries, dim), start + "level_embed.weight": (3, dim)}
    for number in range(s.mask_layers):
        for kind, name in (("self", "self_attn"), ("cross", "multihead_attn")):
            layer = f"{start}transformer_{kind}_attention_layers.{number}."
            out[f"{layer}{name}.in_proj_weight"], out[f"{layer}{name}.in_proj_bias"] = (3 * dim, dim), (3 * dim,)
            out |= biased(f"{layer}{name}.out_proj", dim, dim) | biased(layer + "norm", dim)
        layer = f"{start}transformer_ffn_layers.{number}."
        out |= biased(layer + "linear1", s.mask_ffn, dim) | biased(layer + "linear2", dim, s.mask_ffn)
        out |= biased(layer + "norm", dim)
    out |= biased(start + "decoder_norm", dim)
    for number in range(3):
        out |= biased(f"{start}mask_embed.layers.{number}", dim, dim)
    return out | biased(start + "SEG_proj.layers.0", dim, dim) | biased(start + "SEG_proj.layers.1", dim, dim)


def ignored(s: Sizes) -> Shapes:
    out: Shapes = {
        "predictor.query_feat.weight": (s.queries, s.dim),
        "predictor.SEG_query_embed.weight": (s.queries + 1, s.dim),
        "model.vision_tower.vision_model.head.probe": (1, 1, s.vision),
    }
    return out | biased("model.vision_tower.vision_model.head.layernorm", s.vision) | indices(s)


def release(s: Sizes) -> Shapes:
    return language_model(s) | tokens(s) | swin(s) | pixel_decoder(s) | predictor(s) | ignored(s)
