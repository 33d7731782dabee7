"""A tiny InstructSeg as its authors store it, and the config of a system of its size."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from tests.importers import published_instructseg as published
from tests.importers.published_instructseg import Sizes
from tests.lmm.published_mipha import GRID, PATCH, SIDE, SPARE, TOWER, WIDTH, Original, words

KNOWN = len(words("[SEG]"))
SIZES = Sizes(
    width=WIDTH, layers=2, ffn=48, vocabulary=KNOWN, outputs=KNOWN + SPARE, vision=TOWER, vision_layers=3,
    vision_ffn=24, patch=PATCH, places=GRID**2, fusion=12, inner=8, dim=16, queries=5, temporal=3, depth=2, swin=4,
    blocks=(1, 2, 1, 1), heads=(1, 2, 2, 4), window=3, pixel_layers=2, pixel_heads=2, points=2, pixel_ffn=24,
    mask_layers=2, mask_ffn=20,
)  # fmt: skip
PICTURE = 64
"""Side of the encoder's picture in pixels."""


def weights(original: Original) -> dict[str, Tensor]:
    """Tensors by their true names; those of the language model are the original's."""
    generator = torch.Generator().manual_seed(0)
    made = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in published.release(SIZES).items()}
    for name in published.indices(SIZES):
        made[name] = torch.zeros(made[name].shape, dtype=torch.int64)
    own = {name: tensor for name, tensor in original.tensors().items() if ".head." not in name}
    assert {n: tuple(t.shape) for n, t in own.items()} == published.language_model(SIZES)
    return made | own


def write(folder: Path, tensors: dict[str, Tensor], original: Original, added: tuple[str, ...] = ("[SEG]",)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    flags = {"mm_vision_tower": "x", "swin_type": "base", "mask_decode_train": True, "vocab_size": KNOWN}
    (folder / "config.json").write_text(json.dumps(original.config() | flags))
    words(*added).save_pretrained(folder)
    return folder


def tree(path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"maskselect.{path}", "init_args": arguments}


def arguments(s: Sizes = SIZES) -> dict[str, dict[str, Any]]:
    """Arguments of each part that has sizes."""
    resampler = {"depth": s.depth, "heads": 2, "head_width": s.inner // 2}
    channels = [s.swin << k for k in range(4)]
    return {
        "encoder": {
            "name": "swin", "image_size": PICTURE, "width": s.swin, "depths": list(s.blocks), "heads": list(s.heads),
            "window": s.window,
        },
        "pixel_decoder": {
            "channels": channels, "dim": s.dim, "heads": s.pixel_heads, "points": s.points, "layers": s.pixel_layers,
            "ffn": s.pixel_ffn, "mask_dim": s.dim,
        },
        "mask_decoder": {
            "dim": s.dim, "heads": 2, "ffn": s.mask_ffn, "layers": s.mask_layers, "queries": s.queries,
            "mask_dim": s.dim, "levels": 3,
        },
        "fusion": {
            "text_width": s.width, "vision_channels": channels[-1], "width": s.fusion, "out": s.dim, **resampler,
        },
        "perceiver": {"width": s.width, "queries": s.temporal, **resampler},
    }  # fmt: skip


def config(folder: Path, **changes: Any) -> Path:
    """As configs/paper/instructseg.yaml, tiny."""
    sizes = arguments()
    settings = {
        "side": SIDE,
        "interpolation": "bicubic",
        "queries": SIZES.queries,
        "layout": "published",
        "phrasing": "sentences",
        "selection": "best",
        "duplicates_iou": None,
        "train_projector": False,
        "decoder_start": None,
        "start": None,
        "encoder": tree("encoders.swin.SwinEncoder", **sizes["encoder"], checkpoint="weights/swin.safetensors"),
        "pixel_decoder": tree("decoders.mask2former.PixelDecoder", **sizes["pixel_decoder"]),
        "mask_decoder": tree("decoders.mask2former.MaskDecoder", **sizes["mask_decoder"]),
        "fusion": tree("tokens.text_fusion.TextFusion", **sizes["fusion"]),
        "perceiver": tree("tokens.video_perceiver.VideoPerceiver", **sizes["perceiver"]),
        "lmm": tree("lmm.mipha.Mipha", model="x/y", lora={"r": 2, "targets": ["q_proj", "v_proj"]}, dtype="float32"),
    }
    path = folder / "instructseg.yaml"
    task = tree("systems.instructseg.InstructSeg", **settings | changes)
    path.write_text(yaml.safe_dump({"model": {"task": task}}))
    return path
