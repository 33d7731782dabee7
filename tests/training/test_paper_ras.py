"""RAS's paper configs: they parse, say what was published, name all that is missing, and run when made tiny."""

import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants

from maskselect.backends.configs import BASE, read_configs
from maskselect.cli import main
from maskselect.data.catalog import CATALOG
from maskselect.data.llava import SETS
from maskselect.doctor.counts import build_skeleton, count, named_parameters
from maskselect.training import cli
from tests.lmm.twin import VICUNA_SYSTEM
from tests.training.paper_world import OVERLAYS, PAPER

ROOT = PAPER.parents[1]
FILES = [
    PAPER / "ras_13b.yaml",
    PAPER / "ras_7b.yaml",
    *sorted(set(OVERLAYS.glob("*.yaml")) - set(OVERLAYS.glob("text4seg*"))),
]
STACKS = [
    "ras_13b", "ras_13b stage1", "ras_13b ores", "ras_13b res", "ras_13b gres", "ras_13b lora", "ras_13b zero3",
    "ras_13b gres qlora codetr", "ras_13b half_million", "ras_13b lora zero2", "ras_7b", "ras_7b zero2",
    "ras_7b qlora stage1", "ras_7b qlora ores",
]  # fmt: skip
"""A config and its overlays, as their headers say that they are laid over each other."""
OTHERS = [f"ras_13b {file.stem}" for file in FILES[2:] if file.stem not in {name for s in STACKS for name in s.split()}]
"""Overlays that are not the paper's: other language models, other scorers."""
ORDERS = [
    ("ras_13b ores lora", "ras_13b lora ores"),
    ("ras_13b res codetr qlora", "ras_13b qlora codetr res"),
    ("ras_13b gres lora codetr", "ras_13b codetr gres lora"),
]
"""Stacks whose order is nobody's business."""
STAGES = {  # what is learned from, how many a step, and how often it is seen
    "stage1": (558_128, 128, 1),
    "half_million": (500_000, 128, 1),  # the paper's ablations
    "stage2": (2_110_000, 128, 1),  # in thousands; the paper tells the sources (section 4.1)
    "ores": (96_697, 64, 4),
    "res": (321_327, 64, 2),
    "gres": (209_344, 64, 4),
}
SPLITS = {
    "stage1": [("llava-pretrain", "pretrain")] * 2,
    "stage2": [("maskgroups-2m", "train")] * 2,
    "half_million": [("maskgroups-2m", "train")] * 2,
    "ores": [("maskgroups", "train")] * 2,
    "res": [("refcoco", "train"), ("refcoco+", "train"), ("refcocog", "train"), ("refcoco", "train")],
    "gres": [("grefcoco", "train")] * 2,
}


def files_of(stack: str) -> list[Path]:
    config, *overlays = stack.split()
    return [PAPER / f"{config}.yaml", *(OVERLAYS / f"{name}.yaml" for name in overlays)]


def as_options(files: list[Path]) -> list[str]:
    return [word for file in files for word in ("-c", str(file))]


def classes(config: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every class of a tree with its arguments."""
    if isinstance(config, dict) and "class_path" in config:
        yield config["class_path"], config.get("init_args", {})
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from classes(value)


def commands(file: Path) -> list[list[str]]:
    """What a file's header says is to be run with `lightning fit`, as arguments."""
    header = "\n".join(line.removeprefix("#").strip() for line in file.read_text().splitlines() if line[:1] == "#")
    found = re.findall(r"^lightning (fit .*)$", header.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(command, comments=True)[1:] for command in found]


def parsed(arguments: list[str]) -> dict[str, Any]:
    return {name: value for name, value in cli.parse(arguments).items() if name not in (BASE, "config")}


def from_one_file(merged: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What `fit` reads from one file that `read_configs` made of many."""
    (folder / "one.yaml").write_text(yaml.safe_dump(merged))
    return parsed(["-c", str(folder / "one.yaml")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_commands_of_the_headers_parse(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    told, outputs = commands(file), list[str]()
    assert told or file.stem in ("codetr", "zero2", "zero3")
    for words in told:
        stack = [Path(words[place + 1]) for place, word in enumerate(words) if word == "-c"]
        assert any(path.name == file.name for path in stack)
        found, wanted = parsed(words), read_configs(stack)
        given = {word: words[place + 1] for place, word in enumerate(words[:-1]) if word.startswith("--")}
        start = given.get("--model.task.init_args.start", wanted["model"]["task"]["init_args"]["start"])
        output = given.get("--output", wanted["output"])
        assert found["model"]["task"]["init_args"].get("start") == start
        assert (found["output"], found["trainer"]["max_steps"]) == (output, wanted["trainer"]["max_steps"])
        known = {"runs/ras_stage1", "runs/ras_13b", "runs/ras_7b", *outputs}
        assert start is None or (Path(start).parent.as_posix() in known and Path(start).parent.as_posix() != output)
        outputs.append(output)


@pytest.mark.parametrize("stack", [s for s in STACKS if len(s.split()) > 2 or "stage1" in s] + OTHERS)
def test_what_is_parsed_is_what_is_merged(stack: str, tmp_path: Path) -> None:
    files = files_of(stack)
    assert parsed(as_options(files)) == from_one_file(read_configs(files), tmp_path)


@pytest.mark.parametrize(("stack", "other"), ORDERS)
def test_the_order_of_overlays_is_free_where_they_do_not_meet(stack: str, other: str, tmp_path: Path) -> None:
    merged = read_configs(files_of(stack))
    assert merged == read_configs(files_of(other))
    assert parsed(as_options(files_of(other))) == from_one_file(merged, tmp_path)


@pytest.mark.parametrize("stack", STACKS + OTHERS)
def test_every_class_takes_its_arguments_and_data_sets_are_the_papers(stack: str) -> None:
    config = read_configs(files_of(stack))
    for class_path, arguments in classes(config):
        module, _, name = class_path.rpartition(".")
        inspect.signature(getattr(importlib.import_module(module), name)).bind(**arguments)
    lists = [arguments for _, arguments in classes(config["data"]) if "split" in arguments]
    named = [(one.get("dataset", Path(one["root"]).name), one["split"]) for one in lists]
    assert named == SPLITS[stage_of(stack)]
    if "stage1" not in stack:  # no split that is evaluated chooses the threshold
        assert [one["part"] for one in lists] == ["training"] * (len(lists) - 1) + ["held_out"]
    for name, split in named:
        assert split in (SETS if name == "llava-pretrain" else CATALOG[name].splits)


def stage_of(stack: str) -> str:
    return next((name for name in STAGES if name in stack.split()), "stage2")


@pytest.mark.parametrize("stack", STACKS)
def test_schedules_are_the_papers(stack: str) -> None:
    config, stage = read_configs(files_of(stack)), stage_of(stack)
    model, data, trainer = config["model"], config["data"]["init_args"], config["trainer"]
    task = model["task"]["init_args"]
    samples, batch, epochs = STAGES[stage]
    batches = trainer["devices"] * trainer.get("accumulate_grad_batches", 1)
    assert batches * data["batch_size" if stage == "stage1" else "batch_prompts"] == batch
    assert stage == "stage1" or data["batch_prompts"] == data["prompts_per_image"]
    assert stage != "stage1" or data["batch_prompts"] is None
    assert trainer["max_steps"] == pytest.approx(samples * epochs / batch, abs=0.7 if stage != "stage2" else 20)
    adapters = "lora" in stack and stage != "stage1"  # qlora among them
    assert model["lr"] == (1e-3 if stage == "stage1" else 2e-4 if adapters else 2e-5)
    assert (model["optimizer"], model["warmup_share"], model["weight_decay"]) == ("adamw", 0.03, 0.0)
    assert (task["stage"], task["image_tokens"]) == ((1, False) if stage == "stage1" else (2, True))
    assert (task["positive_weight"], task["scorer"], task["pre_tokens"]) == (5.0, "parallel", "different")
    assert " ".join(task["lmm"]["init_args"]["system_prompt"].split()) == VICUNA_SYSTEM


OURS = {
    "standardise": True, "duplicates_iou": 0.5, "best_iou": 0.5, "positive_iou": 0.7, "mask_resize": "area",
    "frequencies": 64, "lowest": 0.5, "highest": 16.0,
}  # fmt: skip
"""Choices that the paper does not state. The config states all of them, and its header the paper's words."""


def test_the_config_states_our_choices_and_the_papers_second_pass() -> None:
    config = read_configs(files_of("ras_13b"))
    task = config["model"]["task"]["init_args"]
    encoders = task["encoders"]["init_args"]
    stated = task | config["data"]["init_args"] | encoders | encoders["encoders"][-1]["init_args"]
    assert {name: stated[name] for name in OURS} == OURS and task["second_pass"] == "causal"
    header = (PAPER / "ras_13b.yaml").read_text().partition("seed_everything")[0]
    ours = header.partition("# Ours")[2]
    assert [name for name in OURS if f"{name}:" not in ours] == [] and ours.count("Paper:") >= 5


def test_sibling_sets_do_not_leak() -> None:
    data = read_configs(files_of("ras_13b res"))["data"]["init_args"]
    sources = [one["init_args"] for one in (*data["train"]["init_args"]["sources"], data["val"])]
    names = ["refcoco", "refcoco+", "refcocog"]
    assert [one["settings"]["without"] for one in sources] == [names] * 4


def test_sizes_of_data_sets_are_the_catalogs() -> None:
    assert CATALOG["maskgroups"].samples["train"] == STAGES["ores"][0]
    mixed = read_configs(files_of("ras_13b res"))["data"]["init_args"]["train"]["init_args"]
    assert mixed["draws"] == sum(mixed["rates"]) and len(mixed["sources"]) == len(mixed["rates"])


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder on a machine without GPU, whose cache of the hub is empty too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("maskselect.doctor.devices.cuda_count", lambda: 0)
    return tmp_path


@pytest.mark.parametrize(
    ("stack", "further"),
    [
        ("ras_13b", ["maskgroups-2m in data/maskgroups-2m (train)"]),
        ("ras_7b", ["maskgroups-2m in data/maskgroups-2m (train)"]),
        ("ras_13b stage1", ["data/llava-pretrain", "liuhaotian/LLaVA-Pretrain"]),
        ("ras_13b ores", ["runs/ras_13b/ras.safetensors", "--model.task.init_args.start runs/ras_stage1/"]),
        ("ras_7b gres codetr qlora", ["grefcoco", "weights/codetr-coco/pytorch_model.pth"]),
    ],
)
def test_a_run_without_anything_tells_all_in_one_screen(
    stack: str, further: list[str], bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *as_options(files_of(stack))], prog="lightning") == 2
    told = capsys.readouterr().err.partition("lightning fit: error: ")[2]
    assert re.match(r"\d+ things are missing:\n", told) and len(told.splitlines()) <= 32
    encoders = read_configs(files_of(stack))["model"]["task"]["init_args"]["encoders"]["init_args"]["encoders"]
    wanted = [encoder["init_args"]["model"] for encoder in encoders if "model" in encoder["init_args"]]
    wanted += [f"hf download llava-hf/llava-1.5-{stack[4:].partition('b')[0]}b-hf", "accelerator gpu", *further]
    wanted += ["SAM vit_h", "sam_vit_h_4b8939.pth"] if "codetr" not in stack else []
    wanted += ["MaskGroups-HQ"] if stage_of(stack) == "ores" else []
    assert [name for name in wanted if name not in told] == []
    assert not list(bare.iterdir())  # nothing was written


def test_every_overlay_is_named_in_some_header() -> None:
    told = "".join(file.read_text() for file in FILES)
    assert [file.name for file in FILES if file.name not in told] == []


PUBLISHED = {"ras_7b": (7_063_427_072, 686, 4096, 32, 11_008), "ras_13b": (13_351_494_656, 758, 5120, 40, 13_824)}
"""LLaVA-1.5 on the hub: parameters and tensors; and width, layers, and inner width of its language model."""
CHANNELS = 1024 + 3072 + 1152 + 1024 + 256


@pytest.mark.parametrize("stack", PUBLISHED)
def test_the_sketch_has_the_parameters_of_the_published_llava(stack: str) -> None:
    skeleton = build_skeleton(read_configs(files_of(stack))["model"]["task"])
    parameters, tensors, width, layers, inner = PUBLISHED[stack]
    assert skeleton.reasons == []
    named = named_parameters(skeleton)
    llava = {name: parameter.numel() for name, parameter in named.items() if name.startswith("reader.lmm.")}
    assert (sum(llava.values()), len(llava)) == (parameters, tensors)
    parts = {part.name: (part.trained, part.frozen) for part in count(named)}
    words = 32_064 * width
    assert parts["language model"] == (layers * (4 * width**2 + 3 * width * inner + 2 * width) + words + width, 0)
    assert parts["output layer"] == (0, words) and parts["vision tower"] == (0, 303_507_456)
    assert parts["image projector"] == (linear(1024, width) + linear(width, width), 0)
    assert parts["mask projector"] == (linear(CHANNELS, width) + linear(width, width) + 2 * width, 0)
    assert parts["heads"] == (linear(width, width) + linear(width, 1), 0)
    assert parts["proposer"] == (0, 641_090_608)  # SAM ViT-H
    last = 12 * 1024**2 + 13 * 1024 + 2 * 1024  # the layer that LLaVA's CLIP does not need, and the norm behind it
    assert parts["encoder clip"][1] == 303_507_456 - last
    assert parts["encoder siglip"][1] == 428_225_600 - pooling(1152, 4304)
    assert parts["encoder dinov2"][1] == 304_368_640 - 1024  # without its mask token
    assert parts["encoder convnext"][1] == convnext((3, 4, 30, 3), (384, 768, 1536, 3072))
    assert all(parameter.device.type == "meta" for parameter in named.values())


def linear(read: int, out: int) -> int:
    return read * out + out


def pooling(width: int, inner: int) -> int:
    """SigLIP's pooling by attention: a query, attention, norm and MLP."""
    return width + 4 * linear(width, width) + 2 * width + linear(width, inner) + linear(inner, width)


def convnext(depths: tuple[int, ...], widths: tuple[int, ...]) -> int:
    """A ConvNeXt without its head, by its paper (2201.03545): stem, stages, and what halves between them."""
    stem = linear(3 * 4 * 4, widths[0]) + 2 * widths[0]
    halvings = sum(2 * read + linear(4 * read, out) for read, out in pairwise(widths))
    blocks = (49 * w + w + 2 * w + linear(w, 4 * w) + linear(4 * w, w) + w for w in widths)
    return stem + halvings + sum(depth * block for depth, block in zip(depths, blocks, strict=True))


@pytest.mark.parametrize(
    ("rank", "devices", "expected"), [(None, 8, [0]), ("3", 8, [3]), ("1", [4, 6], [6]), ("5", 8, [])]
)
def test_each_process_builds_on_its_own_gpu(
    rank: str | None, devices: Any, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[int] = []
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8 if rank != "5" else 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    cli._select_local_gpu({"accelerator": "gpu", "devices": devices})
    cli._select_local_gpu({"accelerator": "cpu", "devices": devices})
    assert chosen == expected
