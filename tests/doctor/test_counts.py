"""Parameters, counted without weights, are those of the networks that are built with them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from maskselect.backends.building import build
from maskselect.backends.mobile_sam import build_mobile_sam
from maskselect.backends.precision import upcast
from maskselect.doctor.counts import Part, Skeleton, build_skeleton, count, named_parameters, total
from maskselect.lmm.llava import Llava
from tests.doctor.machines import COMPACT, config_of, put_into_cache, saved
from tests.proposers.tiny_networks import model_of
from tests.systems.tiny import SIZES

STAGES = ["stage1", "stage2", "stage3", "stage4"]
OPEN_CLIP = "maskselect.encoders.open_clip.OpenClipEncoder"
QUERIES: dict[str, Any] = {"num_queries": 5, "hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32} | {
    "backbone_config": SwinConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], out_features=STAGES),
    "num_attention_heads": 2, "encoder_feedforward_dim": 16, "dim_feedforward": 16, "encoder_layers": 1,
    "decoder_layers": 2,
}  # fmt: skip
LLAVA = "maskselect.lmm.llava.Llava"


def counted(config: dict[str, Any]) -> tuple[Skeleton, dict[str, Part]]:
    skeleton = build_skeleton(config)
    return skeleton, {part.name: part for part in count(named_parameters(skeleton))}


def lmm(**arguments: Any) -> dict[str, Any]:
    return {"class_path": LLAVA, "init_args": arguments}


def own(module: nn.Module, trained: bool) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad == trained)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA as transformers writes one."""
    return saved(Llava(sizes=SIZES), tmp_path_factory.mktemp("llava"))


@pytest.mark.parametrize(("size", "llama", "whole"), [("7b", 6.61e9, 7.06e9), ("13b", 12.85e9, 13.35e9)])
def test_published_sizes(size: str, llama: float, whole: float) -> None:
    _, parts = counted(lmm(model=f"llava-hf/llava-1.5-{size}-hf"))
    assert parts["language model"].total == pytest.approx(llama, rel=0.005)
    assert total(parts.values()).total == pytest.approx(whole, rel=0.005)
    assert parts["vision tower"].total == pytest.approx(303.5e6, rel=0.005) and not parts["vision tower"].trained
    assert set(parts["language model"].held) == {"float32"}  # it trains


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"lora": {"r": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj", "v_proj"]}},
        {"dtype": "bfloat16", "frame_image": True, "lora": {"r": 2}},
    ],
    ids=["all", "lora", "bf16"],
)
def test_a_folders_llava_is_counted_as_it_is_built(folder: Path, arguments: dict[str, Any]) -> None:
    """Names, shapes, dtypes and what trains: the skeleton must equal `Llava`."""
    skeleton = build_skeleton(lmm(model=str(folder), **arguments)).whole
    assert skeleton is not None
    real = build(lmm(model=str(folder), **arguments))
    upcast(real)  # as training does
    drawn, there = dict(skeleton.named_parameters()), dict(real.named_parameters())
    assert {n: (p.shape, p.dtype, p.requires_grad) for n, p in drawn.items()} == {
        n: (p.shape, p.dtype, p.requires_grad) for n, p in there.items()
    }
    assert all(p.device.type == "meta" for p in drawn.values())


def test_a_llava_in_the_cache_is_counted_by_its_config(folder: Path, alone: Path) -> None:
    snapshot = put_into_cache(alone, "someone/tiny-llava")
    (snapshot / "config.json").write_text((folder / "config.json").read_text())
    _, parts = counted(lmm(model="someone/tiny-llava"))
    assert total(parts.values()).total == own(Llava(sizes=SIZES), True) + own(Llava(sizes=SIZES), False)


@pytest.mark.parametrize("name", ["ras.yaml", "llmseg.yaml"])
def test_a_compact_system_is_counted_as_it_is_built(name: str) -> None:
    task = config_of(name)["model"]["task"]
    skeleton, parts = counted(task)
    real = build(task)
    drawn = {n: p.requires_grad for n, p in named_parameters(skeleton).items() if not n.startswith("proposer.")}
    assert drawn == {n: p.requires_grad for n, p in real.named_parameters() if not n.startswith("proposer.")}
    sam = real.proposer.proposer.sam
    assert parts["proposer"].frozen == own(sam, False) and not parts["proposer"].trained
    whole = total(parts.values())
    assert (whole.trained, whole.frozen) == (own(real, True), own(real, False) + own(sam, False))
    assert whole.held == {"float32": 4 * whole.total}


@pytest.mark.parametrize("path", COMPACT, ids=lambda path: path.stem)
def test_every_compact_task_can_be_counted(path: Path) -> None:
    skeleton, parts = counted(config_of(path.name)["model"]["task"])
    made = "runs/photos_masks/" if path.stem == "photos" else None  # what another config makes
    assert [reason for reason in skeleton.reasons if made is None or made not in reason] == []
    assert total(parts.values()).trained > 0


def test_a_decoder_is_as_large_as_the_frozen_layers_that_it_copies() -> None:
    _, parts = counted(config_of("paper/ras_7b.yaml", "paper/overlays/frozen_lm.yaml")["model"]["task"])
    embeddings = 32064 * 4096
    assert parts["decoder"].trained == parts["language model"].frozen - embeddings
    assert not parts["language model"].trained and parts["heads"].trained < 10**8


def test_ras_13b_part_by_part() -> None:
    skeleton, parts = counted(
        config_of("paper/ras_13b.yaml", "paper/overlays/lora.yaml", "paper/overlays/codetr.yaml")["model"]["task"]
    )
    assert skeleton.reasons == []
    assert list(parts) == [
        "proposer",
        *(f"encoder {name}" for name in ("clip", "convnext", "dinov2", "siglip")),
        "vision tower",
        "image projector",
        "mask projector",
        "language model",
        "LoRA",
        "output layer",
        "heads",
    ]
    assert parts["heads"].trained == 5120 * 5120 + 5120 + 5120 + 1  # a binary head of two layers
    lora = 40 * 128 * (4 * (5120 + 5120) + 3 * (5120 + 13824))
    assert parts["LoRA"].trained == lora and not parts["language model"].trained
    assert parts["encoder convnext"].frozen == pytest.approx(843e6, rel=0.01)
    assert all(p.device.type == "meta" for p in named_parameters(skeleton).values())


def test_what_has_no_sizes_is_told_and_the_rest_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    skeleton, parts = counted(config_of("paper/llmseg_7b.yaml")["model"]["task"])
    assert skeleton.whole is None
    assert skeleton.reasons == ["the config of weights/llm-seg/llava is not on this machine"]
    assert list(parts) == ["proposer", "encoder dinov2"]
    assert parts["proposer"].frozen == pytest.approx(641e6, rel=0.01)  # SAM ViT-H
    assert parts["encoder dinov2"].frozen == pytest.approx(306e6, rel=0.02)


def test_other_proposers_and_encoders_are_counted_or_told() -> None:
    def proposer(name: str, **arguments: Any) -> dict[str, Any]:
        return {"class_path": f"maskselect.proposers.{name}", "init_args": arguments}

    union = proposer("union.UnionProposer", proposers=[proposer("sam.SamProposer", model_type="vit_t")])
    _, parts = counted({"proposer": union})
    assert parts["proposer"].frozen == own(build_mobile_sam(), True)
    sam3 = build_skeleton({"proposer": proposer("sam3.Sam3Proposer", model="facebook/sam3")})
    assert sam3.whole is None and sam3.reasons == ["the config of facebook/sam3 is not on this machine"]
    new = build_skeleton({"class_path": "encoders.of.others.Encoder"})
    assert new.reasons == ["encoders.of.others.Encoder is not part of maskselect"]
    sam = {"class_path": "maskselect.encoders.sam.SamEncoder", "init_args": {"checkpoint": "sam"}}
    ensemble = {"class_path": "maskselect.encoders.ensemble.EncoderEnsemble", "init_args": {"encoders": [sam]}}
    assert build_skeleton(ensemble).whole is not None
    assert torch.empty(0).device.type == "cpu"  # the meta device is left again


@pytest.mark.parametrize("model", ["ViT-B-32", "convnext_base", "ViT-B-16-SigLIP"])
def test_towers_of_open_clip_are_counted_as_they_are_built(model: str) -> None:
    small = {"layers": 2, "width": 64} if model == "ViT-B-32" else {}
    given = {"name": "c", "model": model, "image_size": 64, "layers": [-2], "model_args": small}
    skeleton = build_skeleton({"class_path": OPEN_CLIP, "init_args": given | {"pretrained": "openai"}}).whole
    real = build({"class_path": OPEN_CLIP, "init_args": given})
    assert skeleton is not None
    drawn, there = (
        {name.partition(".")[2]: (tuple(p.shape), p.requires_grad) for name, p in module.named_parameters()}
        for module in (skeleton, real)
    )
    assert drawn == there and skeleton.info == real.info


@pytest.mark.parametrize(
    ("name", "kind"), [("sam2.Sam2Proposer", "sam2"), ("sam3.Sam3Proposer", "sam3"), ("queries.QueryProposer", "")]
)
def test_proposers_of_transformers_are_counted_by_their_config(name: str, kind: str, tmp_path: Path) -> None:
    real = model_of(kind) if kind else Mask2FormerForUniversalSegmentation(Mask2FormerConfig(**QUERIES))
    real.config.save_pretrained(tmp_path)
    config = {"class_path": f"maskselect.proposers.{name}", "init_args": {"model": str(tmp_path)}}
    whole = total(count(named_parameters(build_skeleton(config))))
    assert whole.frozen == own(real, True) + own(real, False) and not whole.trained
