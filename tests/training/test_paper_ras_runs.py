"""RAS's paper configs run: stages, fine-tuning and evaluation, with tiny random weights in the true file formats."""

import json
import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskselect.backends.building import build
from maskselect.backends.checkpoints import read_card, read_tensors
from maskselect.backends.configs import read_configs
from maskselect.backends.hub_cache import open_clip_weights, timm_weights
from maskselect.cli import main
from maskselect.doctor.counts import build_skeleton, named_parameters
from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.encoders.frozen import merged
from maskselect.encoders.open_clip import OpenClipEncoder
from maskselect.encoders.timm import TimmEncoder
from maskselect.lmm.llava import Llava
from maskselect.proposers.sam import SamProposer
from maskselect.structures.masks import MaskSet
from tests.training.paper_world import CLIP_TOWER, OPENAI, OVERLAYS, PAPER, WIDTHS, Run, World

START = "--model.task.init_args.start"
STAGE_1, STAGE_2, ORES = (f"runs/{name}/ras.safetensors" for name in ("ras_stage1", "ras_13b", "ras_ores"))
METRICS = {"samples", "gIoU", "cIoU", "F1", "N-acc", "T-acc", "oracle_cIoU"}
OURS = re.compile(r"(reader\.mask_tokenizer|scorer|reader\.lmm\.model\.model\.multi_modal_projector|.*\.lora_[AB])\.")
"""Names that a file of LoRA may hold: mask tokenizer, head, image projector, adapters."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.made(tmp_path_factory.mktemp("paper"))


@pytest.fixture(scope="module")
def full(world: World) -> dict[str, Run]:
    """Stage 1, stage 2 from its weights, and fine-tuning from those, with a validation at its end."""
    with world.entered("full"):
        return {
            "stage1": world.fit("ras_13b", "stage1"),
            "stage2": world.fit("ras_13b", options=(START, STAGE_1)),
            "ores": world.fit("ras_13b", "ores", options=("--trainer.val_check_interval", "2")),
        }


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        yield path, tree
        return
    for key, value in items:
        yield from leaves(value, f"{path}.{key}" if path else str(key))


def trained(run: Run) -> set[str]:
    return {name for name, parameter in run.task.named_parameters() if parameter.requires_grad}


def learns(run: Run) -> bool:
    """Whether losses are numbers, and just what trains has moved."""
    assert len(run.losses) == 2 and all(isfinite(loss) for loss in run.losses)
    buffers = {name for name, _ in run.task.named_buffers()}
    assert sorted(run.moved() - buffers - trained(run)) == sorted(trained(run) - run.moved()) == []
    return True


def starts_from(run: Run, file: str) -> set[str]:
    """Names of the tensors of a file, with whose values the run began; a language model is read as bfloat16."""
    found = set()
    for name, tensor in read_tensors(file).items():
        dtype = torch.bfloat16 if "language_model" in name else tensor.dtype
        found |= {name} if torch.equal(run.before[name].to(dtype), tensor.to(dtype)) else set()
    return found


def evaluate(model: str, output: str) -> dict[str, Any]:
    asked = ["--dataset", "maskgroups", "--root", "data/maskgroups-hq", "--split", "validation", "--device", "cpu"]
    assert main(["evaluate", "--model", model, *asked, "--output", output]) == 0
    report: dict[str, Any] = json.loads(Path(output).read_text())
    assert set(report["metrics"]) == {"overall", "w/o mask-ref", "w/ mask-ref"}
    assert all(set(metrics) >= METRICS for metrics in report["metrics"].values())
    return report


def test_the_configs_are_overridden_in_paths_widths_and_the_machine_alone(world: World) -> None:
    whole = dict(leaves(read_configs(["paper/ras_13b.yaml"])))
    tiny = dict(leaves(read_configs([PAPER / "ras_13b.yaml", world.root / "tiny.yaml"])))
    other = {path for path, value in tiny.items() if whole.get(path) != value}
    task = r"model\.task\.init_args\."
    paths, widths = rf"{task}proposer\.init_args\.checkpoint", rf"{task}encoders\..*\.model_args\.\w+(\.\d)?"
    machine = rf"{task}proposer\.init_args\.device|trainer\.(accelerator|devices|strategy|max_steps|log_every_n_steps)"
    allowed = re.compile(f"({paths}|{widths}|{machine}|trainer\\.enable_.*)")
    assert [path for path in other if not allowed.fullmatch(path)] == [] and len(other) > 10
    assert all(path.startswith("trainer.strategy.") for path in whole.keys() - tiny.keys())


def test_stage_1_trains_the_mask_projector_alone(world: World, full: dict[str, Run]) -> None:
    run = full["stage1"]
    assert learns(run) and {name.rpartition("mask_tokenizer.")[0] for name in trained(run)} == {"reader."}
    assert not run.before["reader.mask_tokenizer.fitted"] and run.task.reader.mask_tokenizer.fitted
    with world.entered("full"):
        names = read_tensors(STAGE_1).keys()
    assert trained(run) < names and not any(name.startswith(("reader.lmm", "encoders", "proposer")) for name in names)


def test_stage_2_trains_all_but_what_sees_and_what_writes(world: World, full: dict[str, Run]) -> None:
    run = full["stage2"]
    assert learns(run)
    still = {name for name, _ in run.task.named_parameters()} - trained(run)
    assert {re.sub(r"(encoders|.*vision_tower|.*lm_head)\..*", r"\1", name) for name in still} == {
        "encoders",
        "reader.lmm.model.model.vision_tower",
        "reader.lmm.model.lm_head",
    }
    with world.entered("full"):
        projector = {name for name in read_tensors(STAGE_1) if "mask_tokenizer" in name}
        assert projector <= starts_from(run, STAGE_1) and len(projector) == 8
        assert read_tensors(STAGE_2).keys() == trained(run) | (projector - trained(run))
        assert read_card(STAGE_2)["config"]["init_args"]["lmm"]["init_args"]["model"] == "llava-hf/llava-1.5-13b-hf"


def test_fine_tuning_goes_on_and_its_model_is_evaluated(world: World, full: dict[str, Run]) -> None:
    run = full["ores"]
    assert learns(run)
    with world.entered("full"):
        assert starts_from(run, STAGE_2) == read_tensors(STAGE_2).keys()
        card = read_card(ORES)
        assert {"val/loss", "val/f1@0.5"} <= card["metrics"].keys() and 0.2 <= card["threshold"] <= 0.9
        report = evaluate(ORES, "ores.json")
    metrics = report["metrics"]
    assert metrics["overall"]["samples"] == 8 and metrics["w/ mask-ref"]["samples"] == 4
    assert metrics["overall"]["oracle_cIoU"] > 0 and metrics["overall"]["N-acc"] is not None


@pytest.mark.slow
@pytest.mark.parametrize(("name", "data"), [("res", "refcoco"), ("gres", "grefcoco")])
def test_fine_tuning_on_refer_sets_goes_on_and_is_evaluated(
    name: str, data: str, world: World, full: dict[str, Run]
) -> None:
    with world.entered(name):
        run = world.fit("ras_13b", name, options=(START, f"../full/{STAGE_2}", "--trainer.val_check_interval", "2"))
        assert learns(run) and starts_from(run, f"../full/{STAGE_2}") == read_tensors(f"../full/{STAGE_2}").keys()
        model = f"runs/ras_{name}/ras.safetensors"
        asked = ["--dataset", data, "--root", "data/refer_seg", "--split", "val", "--device", "cpu"]
        assert main(["evaluate", "--model", model, *asked, "--output", "report.json"]) == 0
        report = json.loads(Path("report.json").read_text())
    assert report["samples"] == (3 if name == "gres" else 1)


@pytest.mark.slow
def test_a_frozen_language_model_beside_its_decoder(world: World, full: dict[str, Run]) -> None:
    with world.entered("frozen"):
        run = world.fit("ras_13b", "frozen_lm", options=(START, f"../full/{STAGE_1}"))
        assert learns(run) and not any(name.startswith("reader.lmm") for name in trained(run))
        evaluate("runs/ras_frozen_lm/ras.safetensors", "frozen.json")


@pytest.mark.slow
def test_lora_keeps_adapters_projectors_and_head(world: World, full: dict[str, Run]) -> None:
    with world.entered("lora"):
        second = world.fit("ras_13b", "lora", options=(START, f"../full/{STAGE_1}"))
        ores = world.fit("ras_13b", "ores", "lora")
        names = read_tensors(STAGE_2).keys()
        assert learns(second) and learns(ores) and starts_from(ores, STAGE_2) == names
        assert {match[0] for name in names if (match := OURS.match(name))} and all(map(OURS.match, names))
        assert trained(second) <= names and any(".lora_A." in name for name in trained(second))
        evaluate(ORES, "lora.json")
        files = [PAPER / "ras_13b.yaml", OVERLAYS / "lora.yaml", world.root / "tiny.yaml"]
        drawn = named_parameters(build_skeleton(read_configs(files)["model"]["task"]))
    counted = {name: (p.numel(), p.requires_grad) for name, p in drawn.items() if not name.startswith("proposer.")}
    assert counted == {name: (p.numel(), p.requires_grad) for name, p in second.task.named_parameters()}


@pytest.mark.slow
def test_the_smaller_one_in_4_bits_from_stage_1_to_its_report(world: World) -> None:
    pytest.importorskip("bitsandbytes", reason="4 bits need: make setup EXTRAS=qlora")
    with world.entered("qlora"):
        first = world.fit("ras_7b", "qlora", "stage1")
        assert learns(first) and not any("lmm" in name for name in read_tensors(STAGE_1))
        second = world.fit("ras_7b", "qlora", options=(START, STAGE_1))
        assert learns(second) and all(map(OURS.match, read_tensors("runs/ras_7b/ras.safetensors")))
        packed = {name for name, p in second.task.named_parameters() if p.dtype == torch.uint8}
        assert len(packed) == 7 and all(".base_layer.weight" in name for name in packed)  # one layer
        evaluate("runs/ras_7b/ras.safetensors", "qlora.json")


def test_the_smaller_one_as_it_is(world: World) -> None:
    with world.entered("small"):
        run = world.fit("ras_7b")
        assert learns(run) and len(run.task.lmm.language_model.layers) == 1
        task = read_card("runs/ras_7b/ras.safetensors")["config"]["init_args"]
        assert task["lmm"]["init_args"]["model"] == "llava-hf/llava-1.5-7b-hf"
        assert task["proposer"]["init_args"]["mask_nms_thresh"] is None  # said in the config, and not the default


def test_kept_features_change_nothing_and_need_neither_encoders_nor_proposer(
    world: World, full: dict[str, Run]
) -> None:
    def look(self: Any, image: np.ndarray) -> MaskSet:  # with the signatures by which a config knows its parts
        raise AssertionError("a frozen part ran")

    def see(self: Any, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a frozen part ran")

    start = (START, f"../full/{STAGE_1}")
    with world.entered("kept") as patch:
        fresh = world.fit("ras_13b", options=(*start, "--data.init_args.cache_dir", "null"))
        patch.setattr(SamProposer, "propose", look)
        patch.setattr(EncoderEnsemble, "maps", look)
        patch.setattr(Llava, "vision_features", see)
        again = world.fit("ras_13b", options=start)
        with pytest.raises(AssertionError, match="a frozen part ran"):
            world.fit("ras_13b", options=(*start, "--data.init_args.cache_dir", "null"))
    assert fresh.losses == again.losses == full["stage2"].losses


def test_timm_and_open_clip_read_the_same_clip_from_one_repository(world: World) -> None:
    with world.entered("clip"):
        assert timm_weights(OPENAI) == [] and open_clip_weights("ViT-L-14-336-quickgelu", "openai") == []
        one = TimmEncoder("clip", OPENAI, 336, [-2], pretrained=True, model_args=WIDTHS["clip"])
        other = OpenClipEncoder("clip", "ViT-L-14-336-quickgelu", 336, "openai", [-2], model_args=CLIP_TOWER)
        config = read_configs([PAPER / "ras_13b.yaml", world.root / "tiny.yaml"])
        whole = build(config["model"]["task"]["init_args"]["encoders"])
    images = torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    seen = merged(one.encode(images))
    torch.testing.assert_close(merged(other.encode(images)).features, seen.features, atol=1e-4, rtol=1e-4)
    assert seen.features.std() > 0.1 and one.info.grid == (24, 24)
    one.hold_in(torch.bfloat16)  # as the config has it
    torch.testing.assert_close(whole.encode(images)[0].features, merged(one.encode(images)).features)
    assert [info.input_size for info in whole.info[:4]] == [336, 1024, 384, 518]
