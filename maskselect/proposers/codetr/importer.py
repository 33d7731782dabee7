"""Reads the published Co-DETR weights.

Source of the names: Sense-X/Co-DETR (mmdetection 2.25). `backends/name_map.py` explains the templates.
"""

from pathlib import Path

import torch
from torch import Tensor

from maskselect.backends import checkpoints, needs
from maskselect.backends.name_map import ImportReport, NameMap
from maskselect.backends.pickled import read_state_dict
from maskselect.backends.weightless import reads_weights
from maskselect.ops.paths import expanded
from maskselect.proposers.codetr.config import VARIANTS, CoDetrConfig
from maskselect.proposers.codetr.model import CoDetr
from maskselect.structures.needs import Need

REPOSITORIES = {name: f"zongzhuofan/co-detr-vit-large-{name}-instance" for name in VARIANTS}
"""Repository on the Hugging Face hub with the published file `pytorch_model.pth` of each variant."""

_DEFORMABLE = ("sampling_offsets.{p}", "attention_weights.{p}", "value_proj.{p}", "output_proj.{p}")
_TRANSFORMER = "query_head.transformer."
_ENCODER = _TRANSFORMER + "encoder.layers.{n}."
_DECODER = _TRANSFORMER + "decoder.layers.{n}."

TEMPLATES: tuple[tuple[str, str], ...] = (
    ("backbone.patch_embed.proj.{p}", "backbone.patch_embed.{p}"),
    ("backbone.pos_embed", "backbone.pos_embed"),
    ("backbone.out_norm.{p}", "backbone.norm.{p}"),
    ("backbone.blocks.{n}.norm1.{p}", "backbone.blocks.{n}.norm1.{p}"),
    ("backbone.blocks.{n}.norm2.{p}", "backbone.blocks.{n}.norm2.{p}"),
    ("backbone.blocks.{n}.attn.q_bias", "backbone.blocks.{n}.attn.q_proj.bias"),
    ("backbone.blocks.{n}.attn.v_bias", "backbone.blocks.{n}.attn.v_proj.bias"),
    *((f"backbone.blocks.{{n}}.attn.{x}_proj.weight",) * 2 for x in "qkv"),
    ("backbone.blocks.{n}.attn.proj.{p}", "backbone.blocks.{n}.attn.proj.{p}"),
    ("backbone.blocks.{n}.mlp.w1.{p}", "backbone.blocks.{n}.mlp.fc1_g.{p}"),
    ("backbone.blocks.{n}.mlp.w2.{p}", "backbone.blocks.{n}.mlp.fc1_x.{p}"),
    ("backbone.blocks.{n}.mlp.w3.{p}", "backbone.blocks.{n}.mlp.fc2.{p}"),
    ("backbone.blocks.{n}.mlp.ffn_ln.{p}", "backbone.blocks.{n}.mlp.norm.{p}"),
    ("neck.p{n}.{n}.{p}", "neck.p{n}.{n}.{p}"),
    ("query_head.cls_branches.{n}.{p}", "query_head.classify.{n}.{p}"),
    ("query_head.reg_branches.{n}.{n}.{p}", "query_head.regress.{n}.{n}.{p}"),
    (_TRANSFORMER + "level_embeds", "query_head.level_embeds"),
    (_TRANSFORMER + "query_embed.weight", "query_head.query_embed.weight"),
    (_TRANSFORMER + "enc_output.{p}", "query_head.memory_proj.{p}"),
    (_TRANSFORMER + "enc_output_norm.{p}", "query_head.memory_norm.{p}"),
    *((f"{_ENCODER}attentions.0.{x}", f"query_head.encoder.{{n}}.attention.{x}") for x in _DEFORMABLE),
    (_ENCODER + "ffns.0.layers.0.0.{p}", "query_head.encoder.{n}.ffn.0.{p}"),
    (_ENCODER + "ffns.0.layers.1.{p}", "query_head.encoder.{n}.ffn.2.{p}"),
    (_ENCODER + "norms.0.{p}", "query_head.encoder.{n}.attention_norm.{p}"),
    (_ENCODER + "norms.1.{p}", "query_head.encoder.{n}.ffn_norm.{p}"),
    (_DECODER + "attentions.0.attn.in_proj_{p}", "query_head.decoder.{n}.self_attention.in_proj_{p}"),
    (_DECODER + "attentions.0.attn.out_proj.{p}", "query_head.decoder.{n}.self_attention.out_proj.{p}"),
    *((f"{_DECODER}attentions.1.{x}", f"query_head.decoder.{{n}}.attention.{x}") for x in _DEFORMABLE),
    (_DECODER + "ffns.0.layers.0.0.{p}", "query_head.decoder.{n}.ffn.0.{p}"),
    (_DECODER + "ffns.0.layers.1.{p}", "query_head.decoder.{n}.ffn.2.{p}"),
    (_DECODER + "norms.0.{p}", "query_head.decoder.{n}.self_norm.{p}"),
    (_DECODER + "norms.1.{p}", "query_head.decoder.{n}.attention_norm.{p}"),
    (_DECODER + "norms.2.{p}", "query_head.decoder.{n}.ffn_norm.{p}"),
    (_TRANSFORMER + "decoder.ref_point_head.{n}.{p}", "query_head.box_position.{n}.{p}"),
    (_TRANSFORMER + "decoder.norm.{p}", "query_head.decoder_norm.{p}"),
    ("mask_head.instance_convs.0.conv.weight", "mask_head.instance.0.weight"),
    ("mask_head.instance_convs.0.norm_layer.{p}", "mask_head.instance.1.{p}"),
    ("mask_head.semantic_convs.{n}.conv.weight", "mask_head.semantic.{n}.0.weight"),
    ("mask_head.semantic_convs.{n}.norm_layer.{p}", "mask_head.semantic.{n}.1.{p}"),
    ("mask_head.stage_instance_logits.3.{p}", "mask_head.final.{p}"),
    ("mask_head.stage_instance_logits.{n}.{p}", "mask_head.class_logits.{n}.{p}"),
    ("mask_head.stages.{n}.semantic_transform_in.{p}", "mask_head.stages.{n}.semantic.{p}"),
    ("mask_head.stages.{n}.fuse_conv.0.{p}", "mask_head.stages.{n}.mix.{p}"),
    *(
        (f"mask_head.stages.{{n}}.fuse_conv.1.dilation_conv_{k + 1}.conv.{{p}}",
         f"mask_head.stages.{{n}}.fuse.dilated.{k}.{{p}}")
        for k in range(3)
    ),
    ("mask_head.stages.{n}.fuse_conv.1.merge_conv.conv.{p}", "mask_head.stages.{n}.fuse.merge.{p}"),
    ("mask_head.stages.{n}.fuse_transform_out.{p}", "mask_head.stages.{n}.out.{p}"),
    ("mask_iou_head.convs.{n}.conv.weight", "judge.convs.{n}.0.weight"),
    ("mask_iou_head.convs.{n}.norm_layer.{p}", "judge.convs.{n}.1.{p}"),
    ("mask_iou_head.fcs.0.{p}", "judge.hidden.{p}"),
    ("mask_iou_head.fc_mask_iou.{p}", "judge.out.{p}"),
)  # fmt: skip

DROPPED: tuple[tuple[str, str], ...] = (
    (r"ema_", "second copy of training; the plain names hold the averaged weights"),
    (r".*(\.rope|rope_)", "rotary tables, which are computed"),
    (r"(rpn_head|roi_head|bbox_head)\.", "auxiliary heads of training"),
    (r"query_head\.(label_embedding|downsample)\.", "denoising and auxiliary heads of training"),
    (r"query_head\.transformer\.aux_pos_trans(_norm)?\.", "auxiliary queries of training"),
)
"""Prefixes, as regular expressions, of names that inference does not need, and the reason."""

NAMES = NameMap(TEMPLATES, DROPPED)


def account_for(config: CoDetrConfig, path: Path) -> ImportReport:
    """Report on every tensor of a published file, without building the model. Raises as `load_official`."""
    with torch.device("meta"):
        model = CoDetr(config)
    return _read(model, path, "")[1]


def load_official(config: CoDetrConfig, path: Path, hint: str = "") -> tuple[CoDetr, ImportReport]:
    """Load a file with the published names into a frozen model in evaluation mode on the CPU.

    Args:
        config: sizes of the model.
        path: the file.
        hint: how to get the file, for the error message.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, would run code, or holds another model.
    """
    model = CoDetr(config)
    tensors, report = _read(model, path, hint)
    checkpoints.load_strictly(model, tensors, str(path))
    return model.eval().requires_grad_(False), report


def _read(model: CoDetr, path: Path, hint: str) -> tuple[dict[str, Tensor], ImportReport]:
    """The tensors of the file under our names, and the checked report."""
    if not path.is_file():
        raise FileNotFoundError(f"Co-DETR checkpoint {path} not found{hint}")
    tensors = read_state_dict(path, "Co-DETR", wrapper="state_dict")
    sources, report = NAMES.account(tensors, {name: tensor.shape for name, tensor in model.state_dict().items()})
    report.check(str(path), "the expected Co-DETR")
    return {name: tensors[foreign] for name, foreign in sources.items()}, report


def codetr_needs(variant: str, checkpoint: str) -> list[Need]:
    """What `load_codetr` needs."""
    if variant not in VARIANTS:
        return []  # the constructor reports it
    command = f"hf download {REPOSITORIES[variant]} pytorch_model.pth --local-dir {Path(checkpoint).parent}"
    return needs.file(checkpoint, f"Co-DETR ({variant})", command)


def load_codetr(variant: str, checkpoint: str | Path) -> CoDetr:
    """Load a published variant, "coco" or "lvis": a frozen model in evaluation mode on the CPU.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ValueError: the variant is unknown, or the file is damaged or holds another model.
    """
    if variant not in VARIANTS:
        raise ValueError(f"Co-DETR variant {variant!r} is unknown; expected {' or '.join(VARIANTS)}")
    if not reads_weights():
        return CoDetr(VARIANTS[variant]).eval().requires_grad_(False)
    command = f"; get it with: hf download {REPOSITORIES[variant]} pytorch_model.pth --local-dir FOLDER"
    return load_official(VARIANTS[variant], expanded(checkpoint), command)[0]
