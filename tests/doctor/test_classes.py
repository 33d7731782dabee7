"""What classes need: the paper configs lack what they say they lack, and what is there is not missing."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from maskselect.backends import needs as needed
from maskselect.backends.building import find_class
from maskselect.backends.config_tree import walk
from maskselect.backends.optional import installing
from maskselect.doctor import devices
from maskselect.doctor.check import missing, refuse_missing
from maskselect.doctor.listing import MissingError
from maskselect.structures.needs import StatesNeeds
from tests.doctor.machines import COMPACT, CONFIGS, PAPER, ROOT, config_of, put_into_cache

RAS = ("paper/ras_13b.yaml", "paper/overlays/lora.yaml", "paper/overlays/codetr.yaml")
IMPORT = "maskselect import llm-seg SRC weights/llm-seg --tokenizer BASE"
EVERY = sorted(CONFIGS.rglob("*.yaml"))


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_count", lambda: 0)


@pytest.mark.parametrize("path", EVERY, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_class_that_takes_weights_states_its_needs(path: Path) -> None:
    for node in walk(yaml.safe_load(path.read_text())):
        if node.path.startswith("maskselect."):
            made = find_class(node.path)
            takes = {"checkpoint", "pretrained", "start", "base"} & inspect.signature(made).parameters.keys()
            assert not takes or isinstance(made, StatesNeeds)


@pytest.mark.parametrize("path", COMPACT, ids=lambda path: path.stem)
def test_compact_configs_lack_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    needs = missing(config_of(path.name))
    encoder = ("runs/encoder_lite2.safetensors, encoder lite2", "a path, or a shipped name")
    photos = ("../shared/data/photos/train.json, annotated photographs", "docs/guide/photographs.md")
    made = {  # what other commands make, and what is not ours
        "ras_stage1": [
            ("runs/llava/llava.safetensors, where training starts from", "lightning fit -c configs/llava.yaml")
        ],
        "photos_masks": [encoder, photos],
        "photos": [
            (
                "runs/photos_masks/point_masks.safetensors, point mask decoder",
                "lightning fit -c configs/photos_masks.yaml",
            ),
            encoder,
            photos,
        ],
    }
    expected = made.get(path.stem, [])
    found = {need.what: need.help for need in needs if "val.json" not in need.what}
    assert found.keys() == {what for what, _ in expected}
    assert all(found[what].startswith(command) for what, command in expected)


def test_the_sample_of_ones_own_data_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert missing(config_of("ras.yaml", "overlays/own.yaml")) == []


def test_ras_with_codetr_lacks_all_that_its_head_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_cuda: None
) -> None:
    monkeypatch.chdir(tmp_path)
    told = {need.what + (f" ({need.part})" if need.part else ""): need.help for need in missing(config_of(*RAS))}
    assert list(told) == [
        "weights/codetr-coco/pytorch_model.pth, Co-DETR (coco)",
        "vit_large_patch14_clip_quickgelu_336.openai, weights of timm",
        "convnext_xxlarge.clip_laion2b_soup, weights of timm",
        "vit_so400m_patch14_siglip_384.webli, weights of timm",
        "vit_large_patch14_dinov2.lvd142m, weights of timm",
        "llava-hf/llava-1.5-13b-hf, LLaVA",
        "maskgroups-2m in data/maskgroups-2m (train)",
        "CUDA for model.task.proposer",
        "a CUDA device for trainer.accelerator gpu; here: none",
    ]
    head = "".join((CONFIGS / name).read_text() for name in RAS)
    commands = list(told.values())
    assert commands[0] in head and commands[5] in head  # those that the config tells itself
    assert commands[6].startswith("maskselect data build maskgroups-2m") and commands[6].endswith("data/maskgroups-2m")
    tuned = {need.what: need.help for need in missing(config_of(*RAS, "paper/overlays/ores.yaml"))}
    download = "hf download Shengcao1006/MaskGroups-HQ --repo-type dataset --local-dir data/maskgroups-hq"
    assert tuned["maskgroups in data/maskgroups-hq"] == download


@pytest.mark.parametrize("overlay", sorted(PAPER.glob("llmseg_7b_*.yaml")), ids=lambda path: path.stem)
def test_llm_seg_lacks_its_release_and_its_data(
    overlay: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_cuda: None
) -> None:
    monkeypatch.chdir(tmp_path)
    needs = missing(config_of("paper/llmseg_7b.yaml", f"paper/{overlay.name}"))
    kinds = [need.kind for need in needs]
    tuned = overlay.stem.endswith("40k")
    assert kinds == ["weights"] * (4 if tuned else 3) + ["data"] * (1 if tuned else 10) + ["device"] * 2
    release = [need for need in needs if need.what.startswith("weights/llm-seg/")]
    assert len(release) == (2 if tuned else 1) and not any(need.fetched for need in release)
    assert all(need.help.splitlines()[2] == IMPORT for need in release)
    (sam,) = (need for need in needs if need.what == "weights/sam_vit_h_4b8939.pth, SAM vit_h")
    assert sam.help.startswith("curl -L --create-dirs -o weights/sam_vit_h_4b8939.pth https://dl.fbai")
    parts = {need.what: need.part for need in needs}
    if tuned:
        assert parts["llm-seg40k in data/llm-seg40k"] == "train, validation"
    else:
        assert parts["reasonseg in data/reason_seg"] == "train, val"
        assert {n for n in parts if "refer_seg" in n} == {
            f"{name} in data/refer_seg" for name in ("refclef", "refcoco", "refcoco+", "refcocog")
        }


def test_what_is_there_is_not_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alone: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "cuda_count", lambda: 1)
    (tmp_path / "weights/codetr-coco").mkdir(parents=True)
    (tmp_path / "weights/codetr-coco/pytorch_model.pth").touch()
    put_into_cache(alone, "llava-hf/llava-1.5-13b-hf", "config.json", "tokenizer.json", "model.safetensors")
    for name in ("vit_large_patch14_clip_336.openai", "convnext_xxlarge.clip_laion2b_soup"):
        put_into_cache(alone, f"timm/{name}", "model.safetensors")
    (tmp_path / "data/maskgroups-2m").mkdir(parents=True)
    needs = missing(config_of(*RAS))
    assert [need.what.partition(",")[0] for need in needs if need.kind == "weights"] == [
        "vit_so400m_patch14_siglip_384.webli",
        "vit_large_patch14_dinov2.lvd142m",
    ]
    assert [need.kind for need in needs[2:]] == ["data"]
    assert needs[2].what.startswith("maskgroups-2m, train: ")  # an empty folder, in the reader's own words


def test_an_encoder_may_have_weights_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"

    def lacks(**changes: Any) -> list[str]:
        given = {"name": "dino", "model": "vit_large_patch14_dinov2.lvd142m", "image_size": 518} | changes
        encoder = {"class_path": "maskselect.encoders.timm.TimmEncoder", "init_args": given}
        return [need.what for need in missing({"model": encoder})]

    overlay = {"pretrained_cfg_overlay": {"file": str(file)}}
    assert lacks() == [] and lacks(pretrained=True) == ["vit_large_patch14_dinov2.lvd142m, weights of timm"]
    assert lacks(pretrained=True, model_args=overlay) == [f"{file}, encoder dino"]
    file.touch()
    assert lacks(pretrained=True, model_args=overlay) == []
    assert lacks(checkpoint="encoder_vit") == [] and lacks(checkpoint="gone") == ["gone, encoder dino"]


def test_packages_devices_and_a_checkpoint_to_go_on_from(monkeypatch: pytest.MonkeyPatch, no_cuda: None) -> None:
    monkeypatch.setattr(needed, "find_spec", lambda module: None)
    config = {
        "model": {"task": {"class_path": "maskselect.proposers.regions.RegionProposer"}},
        "trainer": {"strategy": "deepspeed_stage_2", "accelerator": "cuda", "devices": 8},
        "ckpt_path": "runs/gone/last.ckpt",
    }
    found = {(need.kind, need.what, need.help) for need in missing(config)}
    assert ("package", "scikit-image", installing("regions")) in found
    assert ("package", "deepspeed, for the trainer", installing("deepspeed")) in found
    assert any(kind == "device" and what.startswith("8 CUDA devices") for kind, what, _ in found)
    assert any(what.startswith("runs/gone/last.ckpt") for _, what, _ in found)
    for path in ("last", "s3://bucket/last.ckpt"):
        assert not [need for need in missing({"ckpt_path": path}) if need.kind == "weights"]


def test_names_that_exist_nowhere_are_refused(tmp_path: Path) -> None:
    source = {"class_path": "maskselect.data.groups.DatasetGroups", "init_args": {"dataset": "no-set", "root": "."}}
    with pytest.raises(ValueError, match="unknown dataset 'no-set'"):
        missing({"data": source})
    start = {"class_path": "maskselect.systems.ras.RAS", "init_args": {"start": str(tmp_path / "a.ckpt")}}
    (tmp_path / "a.ckpt").touch()
    with pytest.raises(ValueError, match="pickled"):
        missing({"model": start})


def test_classes_of_others_need_nothing_and_ours_must_exist() -> None:
    assert missing({"model": {"a": {"class_path": "torch.nn.Linear"}}}) == []
    with pytest.raises(ValueError, match="does not exist"):
        missing({"model": {"b": {"class_path": "maskselect.new.Thing"}}})


def test_what_comes_by_itself_is_refused_only_offline_or_beside_other_things(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    llava = {"class_path": "maskselect.lmm.llava.Llava", "init_args": {"model": "llava-hf/llava-1.5-7b-hf"}}
    refuse_missing({"model": {"lmm": llava}})
    assert "hf download llava-hf/llava-1.5-7b-hf" in capsys.readouterr().err
    with pytest.raises(MissingError, match="2 things are missing"):
        refuse_missing({"model": {"lmm": llava}, "ckpt_path": "gone.ckpt"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingError, match="1 thing is missing"):
        refuse_missing({"model": {"lmm": llava}})
    refuse_missing({"model": {}})
