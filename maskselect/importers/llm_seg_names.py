"""Names in the released LLM-Seg checkpoints (wangjunchi/LLMSeg, model/LISA.py, wrapped by peft), and in ours.

Our names with the prefix `LLAVA` belong to the folder of the frozen LLaVA, all others to the system's checkpoint. Token
embeddings and output layer are trained and belong to both.
"""

from maskselect.backends.name_map import NameMap

LLAVA = "llava:"
"""Prefix of the names of the frozen LLaVA."""

SYSTEM_LLAVA = "reader.lmm.model."
"""Prefix of the LLaVA in the system."""

_PEFT = "base_model.model."
_MODEL = _PEFT + "model."
_LAYER = "layers.{n}."
_OWN_TEXT = "model.language_model."
_TOWER = _MODEL + "vision_tower.vision_tower.vision_model."
_OWN_TOWER = LLAVA + "model.vision_tower."
_FUSION, _OWN_FUSION = _MODEL + "lisa_attention_layers.{n}.", "fusion.layers.{n}."

_TEXT = (
    "embed_tokens.weight",
    "norm.weight",
    _LAYER + "input_layernorm.weight",
    _LAYER + "post_attention_layernorm.weight",
    _LAYER + "self_attn.{w}_proj.weight",
    _LAYER + "mlp.{w}_proj.weight",
)
_VISION = (
    "embeddings.class_embedding",
    "embeddings.{w}_embedding.weight",
    "pre_layrnorm.{p}",
    "post_layernorm.{p}",
    "encoder.layers.{n}.self_attn.{w}_proj.{p}",
    "encoder.layers.{n}.mlp.{w}.{p}",
    "encoder.layers.{n}.layer_norm{n}.{p}",
)

LLAVA_TEMPLATES = (
    (_PEFT + "lm_head.weight", LLAVA + "lm_head.weight"),
    *((_MODEL + name, LLAVA + _OWN_TEXT + name) for name in _TEXT),
    # The name of a layer with LoRA in later versions of peft.
    (
        _MODEL + _LAYER + "self_attn.{w}_proj.base_layer.weight",
        LLAVA + _OWN_TEXT + _LAYER + "self_attn.{w}_proj.weight",
    ),
    (_MODEL + "mm_projector.{p}", LLAVA + "model.multi_modal_projector.linear_1.{p}"),
    *((_TOWER + name, _OWN_TOWER + name) for name in _VISION),
)

SYSTEM_TEMPLATES = (
    (_PEFT + "lm_head.weight", SYSTEM_LLAVA + "lm_head.weight"),
    (_MODEL + "embed_tokens.weight", SYSTEM_LLAVA + _OWN_TEXT + "embed_tokens.weight"),
    (
        _MODEL + _LAYER + "self_attn.{w}_proj.lora_{w}.default.weight",
        SYSTEM_LLAVA + _OWN_TEXT + _LAYER + "self_attn.{w}_proj.lora_{w}.default.weight",
    ),
    (_MODEL + "text_hidden_fcs.0.{n}.{p}", "text_projection.{n}.{p}"),
    (_MODEL + "lisa_dino_conv.{p}", "mask_conv.{p}"),
    (_FUSION + "self_attn.{w}_proj.{p}", _OWN_FUSION + "self_attn.{w}_proj.{p}"),
    # The release keeps Segment Anything's names: its tokens are the masks, its image is the text.
    (_FUSION + "cross_attn_token_to_image.{w}_proj.{p}", _OWN_FUSION + "cross_attn_mask_to_text.{w}_proj.{p}"),
    (_FUSION + "cross_attn_image_to_token.{w}_proj.{p}", _OWN_FUSION + "cross_attn_text_to_mask.{w}_proj.{p}"),
    (_FUSION + "norm{n}.{p}", _OWN_FUSION + "norm{n}.{p}"),
    (_FUSION + "mlp.lin{n}.{p}", _OWN_FUSION + "lin{n}.{p}"),
    (_MODEL + "lisa_final_attn.{w}_proj.{p}", "fusion.final_attn.{w}_proj.{p}"),
    (_MODEL + "lisa_norm_final_attn.{p}", "fusion.norm_final_attn.{p}"),
    # The release calls the IoP head iou_head, and the IoU head embedding_head.
    (_MODEL + "lisa_iou_head.{n}.{p}", "iop_head.layers.{n}.{p}"),
    (_MODEL + "lisa_embedding_head.{n}.{p}", "iou_head.layers.{n}.{p}"),
)

_M, _T = _MODEL.replace(".", r"\."), _TOWER.replace(".", r"\.")

DROPPED = (
    (_M + r"visual_model\.(image_encoder|prompt_encoder|mask_decoder)\.", "Segment Anything, from its file"),
    (_M + r"visual_model\.pixel_(mean|std)$", "Segment Anything, from its file"),
    (
        _M + r"visual_model_dinov2\.(cls_token|mask_token|pos_embed|patch_embed|blocks|norm)",
        "DINOv2, from its file",
    ),
    (_M + r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq$", "a computed table"),
    (_T + r"embeddings\.position_ids$", "a computed table"),
)

LLM_SEG = NameMap((*LLAVA_TEMPLATES, *SYSTEM_TEMPLATES), DROPPED)
