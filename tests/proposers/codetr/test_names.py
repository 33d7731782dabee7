"""Sizes, names and shapes of the published Co-DETR models, and the importer that reads them."""

import json
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from maskselect.cli import program as cli
from maskselect.proposers.codetr import importer
from maskselect.proposers.codetr.config import VARIANTS, CoDetrConfig
from maskselect.proposers.codetr.model import CoDetr

TINY = CoDetrConfig(
    embed_dim=32,
    depth=3,
    num_heads=2,
    window_size=3,
    global_blocks=(1,),
    patch_size=8,
    position_grid=4,
    dim=32,
    heads=2,
    ffn_dim=48,
    encoder_layers=2,
    decoder_layers=2,
    queries=30,
    classes=5,
    iou_dim=16,
    long_side=96,
    short_side=64,
)
Shapes = dict[str, tuple[int, ...]]


def pairs(name: str, *weight: int) -> Shapes:
    """Weight and bias of a layer."""
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def backbone_shapes() -> Shapes:
    shapes: Shapes = {"backbone.pos_embed": (1, 1025, 1024)}
    shapes |= pairs("backbone.patch_embed.proj", 1024, 3, 16, 16) | pairs("backbone.out_norm", 1024)
    for block in (f"backbone.blocks.{n}." for n in range(24)):
        shapes |= pairs(block + "norm1", 1024) | pairs(block + "norm2", 1024) | pairs(block + "attn.proj", 1024, 1024)
        shapes |= {f"{block}attn.{x}_proj.weight": (1024, 1024) for x in "qkv"}
        shapes |= {f"{block}attn.{x}_bias": (1024,) for x in "qv"}
        shapes |= pairs(block + "mlp.w1", 2730, 1024) | pairs(block + "mlp.w2", 2730, 1024)
        shapes |= pairs(block + "mlp.w3", 1024, 2730) | pairs(block + "mlp.ffn_ln", 2730)
    return shapes


def neck_shapes() -> Shapes:
    convs = {
        "p2": {1: (512, 1024, 3, 3), 5: (256, 512, 3, 3), 8: (256, 256, 1, 1), 11: (256, 256, 3, 3)},
        "p3": {1: (512, 1024, 3, 3), 4: (256, 512, 1, 1), 7: (256, 256, 3, 3)},
        "p4": {0: (256, 1024, 1, 1), 3: (256, 256, 3, 3)},
        "p5": {1: (256, 1024, 1, 1), 4: (256, 256, 3, 3)},
        "p6": {1: (1024, 1024, 3, 3), 4: (256, 1024, 1, 1), 7: (256, 256, 3, 3)},
    }
    shapes: Shapes = {}
    for level, places in convs.items():
        for place, shape in places.items():
            shapes |= {f"neck.{level}.{place}.weight": shape} | pairs(f"neck.{level}.{place + 1}", shape[0])
    return shapes


def query_shapes(queries: int, classes: int) -> Shapes:
    whole = "query_head.transformer."
    shapes: Shapes = {whole + "level_embeds": (5, 256), whole + "query_embed.weight": (queries, 256)}
    shapes |= pairs(whole + "enc_output", 256, 256) | pairs(whole + "enc_output_norm", 256)
    shapes |= pairs(whole + "decoder.norm", 256) | pairs(whole + "decoder.ref_point_head.0", 256, 512)
    shapes |= pairs(whole + "decoder.ref_point_head.2", 256, 256)
    for n in range(7):
        shapes |= pairs(f"query_head.cls_branches.{n}", classes, 256)
        shapes |= pairs(f"query_head.reg_branches.{n}.0", 256, 256) | pairs(f"query_head.reg_branches.{n}.2", 256, 256)
        shapes |= pairs(f"query_head.reg_branches.{n}.4", 4, 256)
    for n in range(6):
        for part, place, norms in (("encoder", 0, 2), ("decoder", 1, 3)):
            layer = f"{whole}{part}.layers.{n}."
            read = f"{layer}attentions.{place}."
            shapes |= pairs(read + "sampling_offsets", 320, 256) | pairs(read + "attention_weights", 160, 256)
            shapes |= pairs(read + "value_proj", 256, 256) | pairs(read + "output_proj", 256, 256)
            shapes |= pairs(layer + "ffns.0.layers.0.0", 2048, 256) | pairs(layer + "ffns.0.layers.1", 256, 2048)
            for k in range(norms):
                shapes |= pairs(f"{layer}norms.{k}", 256)
        own = f"{whole}decoder.layers.{n}.attentions.0.attn."
        shapes |= {own + "in_proj_weight": (768, 256), own + "in_proj_bias": (768,)}
        shapes |= pairs(own + "out_proj", 256, 256)
    return shapes


def mask_shapes(classes: int) -> Shapes:
    shapes: Shapes = {}
    for conv in ("instance_convs.0", "semantic_convs.0", "semantic_convs.1"):
        shapes |= {f"mask_head.{conv}.conv.weight": (256, 256, 3, 3)} | pairs(f"mask_head.{conv}.norm_layer", 256)
    for n, width in enumerate((256, 128, 64)):
        stage = f"mask_head.stages.{n}."
        shapes |= pairs(f"mask_head.stage_instance_logits.{n}", classes, width, 1, 1)
        shapes |= pairs(stage + "semantic_transform_in", width, 256, 1, 1)
        shapes |= pairs(stage + "fuse_conv.0", width, 2 * width + 1, 1, 1)
        for k in (1, 2, 3):
            shapes |= pairs(f"{stage}fuse_conv.1.dilation_conv_{k}.conv", width, width, 3, 3)
        shapes |= pairs(stage + "fuse_conv.1.merge_conv.conv", width, width, 1, 1)
        shapes |= pairs(stage + "fuse_transform_out", width // 2 - 1, width, 1, 1)
    shapes |= pairs("mask_head.stage_instance_logits.3", 1, 32, 1, 1)
    for n, channels in enumerate((257, 256)):
        shapes |= {f"mask_iou_head.convs.{n}.conv.weight": (256, channels, 3, 3)}
        shapes |= pairs(f"mask_iou_head.convs.{n}.norm_layer", 256)
    return shapes | pairs("mask_iou_head.fcs.0", 1024, 12544) | pairs("mask_iou_head.fc_mask_iou", classes, 1024)


@pytest.mark.parametrize(
    ("variant", "queries", "classes", "total"), [("coco", 1500, 80, 365_879_370), ("lvis", 900, 1203, 369_403_595)]
)
def test_published_sizes_names_and_shapes(variant: str, queries: int, classes: int, total: int) -> None:
    with torch.device("meta"):
        model = CoDetr(VARIANTS[variant])
    own = {importer.NAMES.foreign(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    expected = backbone_shapes() | neck_shapes() | query_shapes(queries, classes) | mask_shapes(classes)
    assert len(own) == len(model.state_dict()) == 868
    assert own == expected
    assert sum(p.numel() for p in model.parameters()) == total
    assert {importer.NAMES.own(name)[0] for name in expected} == set(model.state_dict())


def test_parts_have_the_published_sizes() -> None:
    with torch.device("meta"):
        model = CoDetr(VARIANTS["coco"])
    sizes = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
    expected = {"backbone": 304.239, "neck": 23.996, "query_head": 18.986, "mask_head": 4.548, "judge": 14.111}
    assert sizes == pytest.approx(expected, abs=5e-4)


AUXILIARY = (
    "ema_backbone_pos_embed",
    "backbone.blocks.0.attn.rope.freqs_cos",
    "backbone.rope_win.freqs_sin",
    "rpn_head.rpn_conv.weight",
    "roi_head.0.bbox_head.fc_cls.weight",
    "bbox_head.0.atss_cls.weight",
    "query_head.label_embedding.weight",
    "query_head.downsample.0.weight",
    "query_head.transformer.aux_pos_trans.0.weight",
    "query_head.transformer.aux_pos_trans_norm.0.bias",
)


def official_tensors(model: CoDetr) -> dict[str, Tensor]:
    """The weights as the published file holds them, with all that training leaves in it."""
    tensors = {importer.NAMES.foreign(name): tensor.clone() for name, tensor in model.state_dict().items()}
    averaged = {f"ema_{name.replace('.', '_')}": torch.full_like(tensor, 7.0) for name, tensor in tensors.items()}
    return tensors | averaged | {name: torch.ones(3) for name in AUXILIARY}


def tiny_model(seed: int = 0) -> CoDetr:
    torch.manual_seed(seed + 1)  # with seed 0 all masks are empty
    model = CoDetr(TINY)
    for parameter in model.parameters():  # nothing stays at zero or one, so that nothing can be swapped unseen
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_round_trip_through_a_published_file(tmp_path: Path, wrapped: bool, zipped: bool) -> None:
    model, path = tiny_model(), tmp_path / "pytorch_model.pth"
    tensors = official_tensors(model)
    content = {"meta": {"epoch": 16}, "state_dict": tensors} if wrapped else tensors
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read, report = importer.load_official(TINY, path)
    assert len(report.matched) == len(model.state_dict())
    assert len(report.dropped) == len(tensors) - len(report.matched)
    assert "dropped" in str(report) and not (report.unknown or report.missing or report.reshaped)
    for name, tensor in model.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor), name
    assert not read.training and not any(p.requires_grad for p in read.parameters())


def test_every_kind_of_leftover_has_its_reason() -> None:
    shapes = {name: tensor.shape for name, tensor in tiny_model().state_dict().items()}
    _, report = importer.NAMES.account({name: torch.ones(1) for name in AUXILIARY}, shapes)
    assert set(report.dropped) == set(AUXILIARY) and len(set(report.dropped.values())) == 5
    assert len(report.missing) == len(shapes)


@pytest.mark.parametrize("change", ["unknown", "missing", "reshaped"])
def test_what_does_not_fit_is_refused(tmp_path: Path, change: str) -> None:
    tensors, path = official_tensors(tiny_model()), tmp_path / "model.pth"
    name = "mask_head.stages.1.fuse_conv.0.weight"
    if change == "unknown":
        tensors["mask_head.stages.1.fuse_conv.7.weight"] = torch.ones(1)
    elif change == "missing":
        del tensors[name]
    else:
        tensors[name] = torch.ones(2, 2)
    torch.save(tensors, path)
    with pytest.raises(ValueError, match=rf"model\.pth is not the expected Co-DETR.*1 {change}") as error:
        importer.load_official(TINY, path)
    assert "\n" not in str(error.value)


def test_the_report_can_be_had_by_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(VARIANTS, "coco", TINY)
    path, report = tmp_path / "pytorch_model.pth", tmp_path / "report.json"
    tensors = official_tensors(tiny_model())
    torch.save({"state_dict": tensors}, path)
    assert cli.main(["import", "co-detr", str(path), "--report", str(report)]) == 0
    said, told = capsys.readouterr().out, json.loads(report.read_text())
    assert f"{len(told['read'])} tensors taken, {len(told['left_behind'])} left behind" in said
    assert told["read"].keys() | told["left_behind"].keys() == tensors.keys()
    assert set(told["read"].values()) == set(tiny_model().state_dict())
    torch.save({"state_dict": tensors | {"extra.weight": torch.ones(1)}}, path)
    assert cli.main(["import", "co-detr", str(path)]) == 2
    assert "1 unknown" in capsys.readouterr().err


def test_names_that_a_template_only_nearly_fits_are_unknown() -> None:
    assert importer.NAMES.own("backbone.blocks.x.norm1.weight") == ()
    assert importer.NAMES.own("backbone.blocks.1.norm1.weight.more") == ()
    shapes = {name: tensor.shape for name, tensor in tiny_model().state_dict().items()}
    _, report = importer.NAMES.account({"backbone.blocks.99.norm1.weight": torch.ones(32)}, shapes)
    assert report.unknown == ["backbone.blocks.99.norm1.weight"]
    with pytest.raises(ValueError, match="has no name in this release"):
        importer.NAMES.foreign("backbone.nothing")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("ran",)


def test_files_of_other_kinds_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.pth"
    torch.save({"state_dict": official_tensors(tiny_model())}, path)
    whole = path.read_bytes()
    for content in (b"", b"not weights", whole[: len(whole) // 2], whole[:100]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.pth is truncated or not a plain weights file"):
            importer.load_official(TINY, path)
    start = whole.index(official_tensors(tiny_model())["backbone.pos_embed"].numpy().tobytes())
    path.write_bytes(whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])  # one bit of one weight
    with pytest.raises(ValueError, match="checksum"):
        importer.load_official(TINY, path)
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(ValueError, match="not a plain weights file"):
        importer.load_official(TINY, path)
    assert "ran" not in capsys.readouterr().out
    for content in ([1, 2], {"state_dict": {"a": 3}}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="no state dict"):
            importer.load_official(TINY, path)


def test_old_files_that_are_damaged_break_in_one_sentence(tmp_path: Path) -> None:
    """The unpickler fails in many ways (KeyError, AssertionError, struct.error); a person sees one."""
    path, tensors = tmp_path / "model.pth", {f"part{n}.weight": torch.randn(20) for n in range(30)}
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(8):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(bytes(damaged))
        with pytest.raises(ValueError, match=r"model\.pth") as error:
            importer.load_official(TINY, path)
        assert "\n" not in str(error.value)


def test_missing_files_and_unknown_variants(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="hf download zongzhuofan/co-detr-vit-large-lvis-instance"):
        importer.load_codetr("lvis", tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="coco or lvis"):
        importer.load_codetr("swin", tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"depth": 0}, {"dim": 100}, {"embed_dim": 30}, {"global_blocks": (24,)}, {"patch_size": 6}, {"long_side": 4}],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="Co-DETR"):
        CoDetrConfig(**change)  # type: ignore[arg-type]
