"""SAM 2, its kin and SAM 3 at the smallest size that has every part, written to folders as the hub has them."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    EdgeTamConfig,
    EdgeTamModel,
    EdgeTamVisionConfig,
    PreTrainedModel,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VisionConfig,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3LiteTextConfig,
    Sam3LiteTextModel,
    Sam3Model,
    Sam3Processor,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    Sam3TrackerProcessor,
    Sam3TrackerVideoConfig,
    Sam3VideoConfig,
    Sam3VideoModel,
    Sam3VisionConfig,
    Sam3ViTConfig,
    TimmWrapperConfig,
)

from maskselect.lmm.tokenizer import load_compact, load_compact_in_transformers

GRIDS = [[16, 16], [8, 8], [4, 4]]
"""Cells of the encoders' maps."""
PROMPTS: dict[str, Any] = {"hidden_size": 32, "image_size": 64, "patch_size": 16}
PROMPTS_3: dict[str, Any] = {"hidden_size": 32, "image_size": 56, "patch_size": 14}
"""SAM 3 has patches of 14 pixels, so that a low-res cell is 3.5 wide."""
MASKS: dict[str, Any] = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
MEMORY: dict[str, Any] = dict(
    memory_attention_hidden_size=32, memory_attention_num_layers=1, memory_encoder_hidden_size=32,
    memory_encoder_output_channels=16, memory_attention_feed_forward_hidden_size=32,
    memory_attention_rope_feat_sizes=[4, 4], mask_downsampler_embed_dim=32, memory_fuser_embed_dim=32,
    memory_fuser_intermediate_dim=32,
)  # fmt: skip
QUERIES = 7


def hiera() -> Sam2VisionConfig:
    backbone = Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[64, 64], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 2, 4],
        window_size_per_stage=[4, 4, 4, 4], global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    return Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=GRIDS,
        fpn_hidden_size=32,
    )


def edgetam() -> EdgeTamModel:
    arguments = {"in_chans": 3, "features_only": True, "out_indices": [1, 2, 3, 4]}
    vision = EdgeTamVisionConfig(
        backbone_config=TimmWrapperConfig(architecture="test_efficientnet", model_args=arguments),
        backbone_channel_list=[64, 48, 32, 24], backbone_feature_sizes=GRIDS, fpn_hidden_size=32,
    )  # fmt: skip
    return EdgeTamModel(EdgeTamConfig(vision_config=vision, prompt_encoder_config=PROMPTS, mask_decoder_config=MASKS))


def vision_3() -> Sam3VisionConfig:
    backbone = Sam3ViTConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14,
        window_size=2, global_attn_indexes=[1], pretrain_image_size=56,
    )  # fmt: skip
    return Sam3VisionConfig(backbone_config=backbone, fpn_hidden_size=32, backbone_feature_sizes=GRIDS)


def sam3_config() -> Sam3Config:
    text = dict(
        model_type="clip_text_model", vocab_size=len(load_compact()), hidden_size=32, intermediate_size=32,
        projection_dim=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return Sam3Config(text_config=text, **detector())


def detector() -> dict[str, Any]:
    """Everything of SAM 3's config but the text encoder."""
    layers: dict[str, Any] = dict(hidden_size=32, num_layers=1, num_attention_heads=2, intermediate_size=32)
    return {
        "vision_config": vision_3(),
        "geometry_encoder_config": layers,
        "detr_encoder_config": layers,
        "detr_decoder_config": {**layers, "num_queries": QUERIES},
        "mask_decoder_config": dict(hidden_size=32, num_attention_heads=2),
    }


def sam3_lite_text() -> Sam3LiteTextModel:
    text = dict(
        vocab_size=len(load_compact()), hidden_size=32, intermediate_size=32, projection_dim=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    return Sam3LiteTextModel(Sam3LiteTextConfig(text_config=text, **detector()))


def sam3_video() -> Sam3VideoModel:
    tracker = Sam3TrackerVideoConfig(
        vision_config=vision_3(), prompt_encoder_config=PROMPTS_3, mask_decoder_config=MASKS, image_size=56, **MEMORY
    )
    return Sam3VideoModel(Sam3VideoConfig(detector_config=sam3_config(), tracker_config=tracker))


def model_of(kind: str) -> PreTrainedModel:
    """A model of a `model_type`, with random weights."""
    if kind == "edgetam":
        return edgetam()
    if kind == "sam3":
        return Sam3Model(sam3_config())
    if kind == "sam3_lite_text":
        return sam3_lite_text()
    if kind == "sam3_video":
        return sam3_video()
    given: dict[str, Any] = {"prompt_encoder_config": PROMPTS, "mask_decoder_config": MASKS}
    if kind == "sam3_tracker":
        given["prompt_encoder_config"] = PROMPTS_3
        return Sam3TrackerModel(Sam3TrackerConfig(vision_config=vision_3(), **given))
    if kind == "sam2_video":
        return Sam2VideoModel(Sam2VideoConfig(vision_config=hiera(), image_size=64, **given, **MEMORY))
    return Sam2Model(Sam2Config(vision_config=hiera(), **given))


def prompt_processor(kind: str) -> Any:
    """What turns images, points and boxes into the model's inputs."""
    if kind.startswith("sam3"):
        return Sam3TrackerProcessor(Sam3ImageProcessor(size={"height": 56, "width": 56}))
    return Sam2Processor(Sam2ImageProcessor(size={"height": 64, "width": 64}))


def phrase_processor() -> Any:
    """What turns images and phrases into SAM 3's inputs."""
    return Sam3Processor(Sam3ImageProcessor(size={"height": 56, "width": 56}), load_compact_in_transformers())


def write(model: PreTrainedModel, folder: Path) -> Path:
    """Config and weights, by the names that the hub's files have: `save_pretrained` says "tracker_model" twice."""
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


@torch.no_grad()
def enliven(model: PreTrainedModel) -> None:
    """Weights of the mask decoder large enough for logits of both signs and scores that differ."""
    for name, parameter in model.named_parameters():
        inside = name.removeprefix("tracker_model.")
        if parameter.ndim > 1 and inside.startswith(("mask_decoder", "prompt_encoder", "no_memory")):
            parameter.normal_(std=parameter[0].numel() ** -0.5 if "embed" not in name else 1.0)
        if "hypernetworks" in name and "proj_out" in name:
            parameter.mul_(40)


@torch.no_grad()
def enliven_detector(model: PreTrainedModel) -> None:
    """The same for SAM 3's detector: queries, phrases and pixels must tell apart."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "vision_encoder.backbone" not in name and "tracker" not in name:
            parameter.normal_(std=parameter[0].numel() ** -0.5 if "embed" not in name else 1.0)
        if "mask_embedder" in name and parameter.ndim > 1:
            parameter.mul_(3)
