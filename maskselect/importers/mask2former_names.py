"""Names of Mask2Former's parts in the published InstructSeg weights (`weic22/InstructSeg`), and in ours.

Every release and every system holds the parts in its own place, so both sides of a map begin with a prefix.
"""

import re

from maskselect.backends.name_map import NameMap

_BLOCK = "layers.{n}.blocks.{n}."
_SWIN = (
    "patch_embed.{w}.{p}",
    _BLOCK + "norm{n}.{p}",
    _BLOCK + "attn.{w}.{p}",
    _BLOCK + "attn.relative_position_bias_table",
    _BLOCK + "mlp.{w}.{p}",
    "layers.{n}.downsample.{w}.{p}",
    "norm{n}.{p}",
)

_PIXEL, _ENCODER, _PREDICTOR = "pixel_decoder.", "pixel_decoder.transformer.encoder.layers.{n}.", "predictor."
_ATTENTIONS = ("self_attention_layers.{n}.self_attn.", "cross_attention_layers.{n}.multihead_attn.")
_DECODER = (
    _PIXEL + "input_proj.{n}.{n}.{p}",
    _PIXEL + "adapter_1.{n}.{p}",
    _PIXEL + "layer_1.{n}.{p}",
    _PIXEL + "mask_features.{p}",
    _PIXEL + "transformer.level_embed",
    *(_ENCODER + f"self_attn.{part}.{{p}}" for part in ("sampling_offsets", "attention_weights", "value_proj")),
    _ENCODER + "self_attn.output_proj.{p}",
    _ENCODER + "norm{n}.{p}",
    _ENCODER + "linear{n}.{p}",
    *(_PREDICTOR + f"transformer_{part}in_proj_{{p}}" for part in _ATTENTIONS),
    *(_PREDICTOR + f"transformer_{part}out_proj.{{p}}" for part in _ATTENTIONS),
    *(_PREDICTOR + f"transformer_{kind}_layers.{{n}}.norm.{{p}}" for kind in ("self_attention", "cross_attention")),
    _PREDICTOR + "transformer_ffn_layers.{n}.{w}.{p}",
    _PREDICTOR + "decoder_norm.{p}",
    _PREDICTOR + "query_embed.weight",
    _PREDICTOR + "level_embed.weight",
    _PREDICTOR + "mask_embed.layers.{n}.{p}",
)
_OWN = "mask_decoder."
_SCORES = ("SEG_proj.layers.{n}.{p}", "query_projection.layers.{n}.{p}")
_UNUSED = r"(query_feat|SEG_query_embed)\."


def swin_names(foreign: str, own: str) -> NameMap:
    """The map of a Swin in the original layout to `encoders.swin.SwinTrunk`.

    Args:
        foreign: prefix of the foreign names, such as "model.vision_tower_mask.".
        own: prefix of ours, such as "trunk." for a `SwinEncoder`.
    """
    computed = re.escape(foreign) + r".*\.(relative_position_index|attn_mask)$"
    return NameMap(tuple((foreign + name, own + name) for name in _SWIN), ((computed, "a computed table"),))


def decoder_names(foreign: str = "", own: str = "") -> NameMap:
    """The map of `pixel_decoder` and `predictor` to `decoders.mask2former`, as `pixel_decoder` and `mask_decoder`.

    Args:
        foreign: prefix of the foreign names.
        own: prefix of ours.
    """
    pairs = [(name, name.replace(_PREDICTOR, _OWN)) for name in _DECODER]
    pairs.append((_PREDICTOR + _SCORES[0], _OWN + _SCORES[1]))
    unused = re.escape(foreign + _PREDICTOR) + _UNUSED
    return NameMap(
        tuple((foreign + theirs, own + ours) for theirs, ours in pairs), ((unused, "unused by InstructSeg"),)
    )
