"""Names of the tensors in InstructSeg's merged release (weic22/InstructSeg) and in our system.

The language model is one level deeper here, SigLIP one level higher. Those of Mask2Former's parts are in
`mask2former_names.py`.
"""

from maskselect.backends.name_map import NameMap
from maskselect.importers.mask2former_names import decoder_names, swin_names

EMBEDDINGS, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
"""Foreign names of the tensors with a row for every token."""

LMM = "reader.lmm.model."
"""Prefix of the language model in the system."""

ENCODER = "encoder."
"""Prefix of the mask decoder's encoder in the system."""

_PHI, _TOWER = LMM + "model.language_model.", LMM + "model.vision_tower."
_FOREIGN_TOWER = "model.vision_tower.vision_model."

_TEXT = (
    "embed_tokens.weight",
    "final_layernorm.{p}",
    "layers.{n}.input_layernorm.{p}",
    "layers.{n}.self_attn.{w}_proj.{p}",
    "layers.{n}.self_attn.dense.{p}",
    "layers.{n}.mlp.fc{n}.{p}",
)
_VISION = (
    "embeddings.patch_embedding.{p}",
    "embeddings.position_embedding.weight",
    "encoder.layers.{n}.layer_norm{n}.{p}",
    "encoder.layers.{n}.self_attn.{w}_proj.{p}",
    "encoder.layers.{n}.mlp.fc{n}.{p}",
    "post_layernorm.{p}",
)
_PERCEIVER = (
    "layers.{n}.0.norm_{w}.{p}",
    "layers.{n}.0.to_{w}.weight",
    "layers.{n}.1.{n}.{p}",
    "norm.{p}",
)

LANGUAGE_MODEL_TEMPLATES = (
    (OUTPUT, LMM + "lm_head.weight"),
    *((f"model.{name}", _PHI + name) for name in _TEXT),
    *((_FOREIGN_TOWER + name, _TOWER + name) for name in _VISION),
    *(
        (f"model.mm_projector.{number}.{{p}}", f"{LMM}model.multi_modal_projector.linear_{place}.{{p}}")
        for number, place in ((0, 1), (2, 2))
    ),
)

SYSTEM_TEMPLATES = (
    ("seg_query", "mask_queries"),
    ("seg_query_projector.{p}", "query_projector.{p}"),
    ("temporal_query", "perceiver.queries"),
    *((f"ovp_layers.{name}", f"perceiver.resampler.{name}") for name in _PERCEIVER),
    *((f"vmtf_layers.{name}", f"fusion.resampler.{name}") for name in _PERCEIVER),
    ("origin_SEG_token_projector.{p}", "fusion.pooled_projector.{p}"),
    ("text_vmtf_projector.{p}", "fusion.text_projector.{p}"),
    ("SEG_token_projector.{p}", "fusion.output.{p}"),
    ("local_project.{p}", "fusion.vision_projector.{p}"),
)

DROPPED = (
    (r"model\.vision_tower\.vision_model\.head\.", "SigLIP's pooling head, which nothing uses"),
    (r"model\.vision_tower\.vision_model\.embeddings\.position_ids$", "a computed table"),
    (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq$", "a computed table"),
)

_SWIN, _DECODERS = swin_names("model.vision_tower_mask.", ENCODER + "trunk."), decoder_names()

INSTRUCTSEG = NameMap(
    (*LANGUAGE_MODEL_TEMPLATES, *SYSTEM_TEMPLATES, *_SWIN.templates, *_DECODERS.templates),
    (*DROPPED, *_SWIN.dropped, *_DECODERS.dropped),
)
