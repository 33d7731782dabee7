"""A SAM of ours as transformers' `SamModel`, weight for weight, to time its `mask-generation` beside."""

import re
from collections.abc import Callable

from torch import Tensor
from transformers import SamConfig, SamImageProcessor, SamModel

from maskselect.backends.sam_network import Sam

_DOWN = {"0": "conv1", "1": "layer_norm1", "3": "conv2", "4": "layer_norm2", "6": "conv3"}
_UP = {"0": "upscale_conv1", "1": "upscale_layer_norm", "3": "upscale_conv2"}
_NECK = ("conv1", "layer_norm1", "conv2", "layer_norm2")
_MLP = ("proj_in", "layers.0", "proj_out")
_Rule = tuple[str, str | Callable[[re.Match[str]], str]]
_NAMES: tuple[_Rule, ...] = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"^vision_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"^vision_encoder\.blocks\.", "vision_encoder.layers."),
    (r"neck\.([0-3])\.", lambda found: f"neck.{_NECK[int(found[1])]}."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"point_embeddings\.", "point_embed."),
    (r"mask_downscaling\.(\d)\.", lambda found: f"mask_embed.{_DOWN[found[1]]}."),
    (r"output_upscaling\.(\d)\.", lambda found: f"{_UP[found[1]]}."),
    (
        r"(output_hypernetworks_mlps\.\d|iou_prediction_head)\.layers\.(\d)\.",
        lambda found: f"{found[1]}.{_MLP[int(found[2])]}.",
    ),
)
_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"


def to_transformers(sam: Sam) -> tuple[SamModel, SamImageProcessor]:
    """The same network and its processor. Raises RuntimeError when a weight finds no place, or a place no weight."""
    model = SamModel(_config(sam)).eval().requires_grad_(False)
    model.load_state_dict(_renamed(sam.state_dict()))
    side = sam.image_encoder.img_size
    processor = SamImageProcessor(
        size={"longest_edge": side},
        mask_size={"longest_edge": side // 4},
        pad_size={"height": side, "width": side},
        mask_pad_size={"height": side // 4, "width": side // 4},
    )
    return model, processor


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in ("pixel_mean", "pixel_std"):
            continue
        if name == _POSITIONS:
            renamed["shared_image_embedding.positional_embedding"] = tensor
            renamed["prompt_encoder.shared_embedding.positional_embedding"] = tensor
            continue
        renamed[_translated(name)] = tensor
    return renamed


def _translated(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _config(sam: Sam) -> SamConfig:
    encoder, decoder, prompts = sam.image_encoder, sam.mask_decoder, sam.prompt_encoder
    blocks = encoder.blocks
    dim = prompts.embed_dim
    return SamConfig(
        vision_config={
            "hidden_size": encoder.patch_embed.proj.out_channels,
            "output_channels": dim,
            "num_hidden_layers": len(blocks),
            "num_attention_heads": blocks[0].attn.num_heads,
            "image_size": encoder.img_size,
            "patch_size": encoder.patch_embed.proj.kernel_size[0],
            "use_rel_pos": blocks[0].attn.use_rel_pos,
            "window_size": max(block.window_size for block in blocks),
            "global_attn_indexes": [i for i, block in enumerate(blocks) if block.window_size == 0],
            "mlp_dim": blocks[0].mlp.lin1.out_features,
            "num_pos_feats": dim // 2,
        },
        prompt_encoder_config={
            "hidden_size": dim,
            "image_size": encoder.img_size,
            "patch_size": encoder.patch_embed.proj.kernel_size[0],
            "mask_input_channels": prompts.mask_downscaling[3].out_channels,
        },
        mask_decoder_config={
            "hidden_size": dim,
            "mlp_dim": decoder.transformer.layers[0].mlp.lin1.out_features,
            "num_attention_heads": decoder.transformer.num_heads,
            "iou_head_hidden_dim": decoder.iou_prediction_head.layers[0].out_features,
        },
    )
