"""Text4Seg's paper configs: they parse, say what was published, and are built at true sizes without weights."""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maskselect.backends.configs import BASE, read_configs
from maskselect.data.catalog import CATALOG
from maskselect.doctor.check import missing
from maskselect.doctor.counts import build_skeleton, count, named_parameters
from maskselect.doctor.memory import count_tokens
from maskselect.training import cli
from tests.lmm.twin import VICUNA_SYSTEM
from tests.training.paper_world import OVERLAYS, PAPER
from tests.training.test_paper_ras import commands, from_one_file, parsed

ROOT = PAPER.parents[1]
FIRST = sorted(file.stem for file in PAPER.glob("text4seg_*.yaml"))
SECOND = sorted(file.stem for file in PAPER.glob("text4segpp_*.yaml"))
GRES = OVERLAYS / "text4seg_gres.yaml"
ADAPTERS = {
    "text4seg_llava_7b": (64, 32, 4 * (4096 + 4096) + 3 * (4096 + 11_008)),
    "text4seg_llava_13b": (64, 40, 4 * (5120 + 5120) + 3 * (5120 + 13_824)),
    "text4seg_qwen2_5_vl_7b": (64, 28, 2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18_944)),
    "text4seg_internvl3_8b": (64, 28, 2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18_944)),
    "text4segpp_qwen2_vl_7b": (128, 28, 2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18_944)),
    "text4segpp_internvl3_14b": (128, 48, 2 * (5120 + 5120) + 2 * (5120 + 1024) + 3 * (5120 + 13_824)),
}
"""Rank, layers, and widths of all adapted linear layers of one of them."""
EMBEDDINGS = {"text4segpp_qwen2_vl_7b": 152_064 * 3584, "text4segpp_internvl3_14b": 151_674 * 5120}


def config_of(name: str) -> dict[str, Any]:
    return read_configs([PAPER / f"{name}.yaml"])


def classes(config: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(config, dict) and "class_path" in config:
        yield config["class_path"], config.get("init_args", {})
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from classes(value)


def test_the_configs_are_those_that_are_checked() -> None:
    assert ADAPTERS.keys() == {*FIRST, *SECOND}


@pytest.mark.parametrize("name", [*FIRST, *SECOND, "overlays/text4seg_gres"])
def test_commands_of_the_headers_parse(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    told = commands(PAPER / f"{name}.yaml")
    assert told
    for words in told:
        assert any(Path(word) == Path("configs/paper") / f"{name}.yaml" for word in words)
        found = parsed(words)
        stack = [words[place + 1] for place, word in enumerate(words) if word == "-c"]
        assert found["trainer"]["max_steps"] == read_configs(stack)["trainer"]["max_steps"]
        start = found["model"]["task"]["init_args"].get("start")
        assert start is None or start == f"{Path(start).parent}/text4seg.safetensors"
        outputs = {config_of(one)["output"] for one in FIRST}
        assert start is None or (str(Path(start).parent) in outputs and found["output"] not in outputs)


@pytest.mark.parametrize("name", [*FIRST, *SECOND])
def test_what_is_parsed_is_what_is_merged(name: str, tmp_path: Path) -> None:
    found = {key: value for key, value in cli.parse(["-c", str(PAPER / f"{name}.yaml")]).items() if key != BASE}
    found.pop("config", None)
    assert found == from_one_file(config_of(name), tmp_path)


@pytest.mark.parametrize("name", [*FIRST, *SECOND])
def test_every_class_takes_its_arguments_and_data_sets_exist(name: str) -> None:
    config = config_of(name)
    for class_path, arguments in classes(config):
        module, _, member = class_path.rpartition(".")
        inspect.signature(getattr(importlib.import_module(module), member)).bind(**arguments)
    mixed = config["data"]["init_args"]["train"]["init_args"]
    assert len(mixed["rates"]) == len(mixed["sources"])
    sets = [arguments for _, arguments in classes(config["data"]) if "split" in arguments]
    assert all(one["split"] in CATALOG[one["dataset"]].splits for one in sets)
    named = [one["dataset"] for one in sets[:-1]]
    family = ["refclef", "refcoco", "refcoco+", "refcocog"]
    more = ["grefcoco", "pix2cap", "reasonseg", "muse", "rrsisd", "earthreason"]
    assert named == (family if name in FIRST else ["coco-panoptic", *family, *more])


@pytest.mark.parametrize("name", [*FIRST, *SECOND])
def test_the_recipe_is_the_papers(name: str) -> None:
    config = config_of(name)
    model, data, trainer = config["model"], config["data"]["init_args"], config["trainer"]
    first = name in FIRST
    assert (model["lr"], model["weight_decay"], model["warmup_share"]) == (2e-4, 0.0, 0.03)
    assert (model["optimizer"], tuple(model["betas"]), trainer["gradient_clip_val"]) == ("adamw", (0.9, 0.95), 1.0)
    assert model["schedule"] == ("cosine" if first else "linear")
    assert trainer["devices"] * data["batch_prompts"] * trainer.get("accumulate_grad_batches", 1) == 128
    assert 33_500 <= trainer["max_steps"] <= 33_900 if first else trainer["max_steps"] == 50_000
    task = model["task"]["init_args"]
    lmm, codec = task["lmm"]["init_args"], task["codec"]["init_args"]
    rank = 64 if first else 128
    assert lmm["lora"] == {"r": rank, "alpha": 2 * rank, "dropout": 0.05}
    assert (task["variant"], task["label"], task["phrasing"]) == (name.partition("_")[0], "prompt", "sentences")
    assert task["longest"] == 3069
    if first:
        assert (codec["grid"], codec["layout"], codec.get("special_tags", False)) == (16, "row", False)
    else:
        assert (codec["bins"], codec["longest"]) == (64, 63)
    if "llava" in name:
        assert task["side"] == 336 and " ".join(lmm["system_prompt"].split()) == VICUNA_SYSTEM
    if name == "text4segpp_qwen2_vl_7b":
        assert task["side"] ** 2 == lmm["min_pixels"] == lmm["max_pixels"] == 784**2


def test_gres_is_two_passes_behind_res() -> None:
    config = read_configs([PAPER / "text4seg_llava_7b.yaml", GRES])
    samples = 2 * 2 * CATALOG["grefcoco"].about["train"]  # the published sets hold every expression twice
    assert config["trainer"]["max_steps"] == pytest.approx(samples / 128, rel=0.01)
    assert config["model"]["task"]["init_args"]["start"] == "runs/text4seg_llava_7b/text4seg.safetensors"


@pytest.mark.parametrize("name", [*FIRST, *SECOND])
def test_true_sizes_are_built_without_weights(name: str) -> None:
    """Everything on the meta device: adapters, what trains beside them, and image tokens for the picture's size."""
    config = config_of(name)
    skeleton = build_skeleton(config["model"]["task"])
    assert skeleton.reasons == [] and skeleton.whole is not None
    assert all(parameter.device.type == "meta" for parameter in skeleton.whole.parameters())
    parts = {part.name: part for part in count(named_parameters(skeleton))}
    rank, layers, widths = ADAPTERS[name]
    assert parts["LoRA"].trained == rank * layers * widths and not parts["LoRA"].frozen
    new_tokens = EMBEDDINGS.get(name, 0)
    assert (parts["language model"].trained, parts["output layer"].trained) == (new_tokens, new_tokens)
    assert parts["image projector"].trained and not parts["image projector"].frozen
    assert not parts["vision tower"].trained
    whole: Any = skeleton.whole
    tokens = {"text4segpp_qwen2_vl_7b": 28**2}.get(name, 24**2 if "llava" in name else 16**2)
    assert whole.lmm.most_image_tokens == tokens == whole.image_grid()[0] * whole.image_grid()[1]
    assert count_tokens(whole, config)


def test_what_is_missing_is_told_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    told = {need.help for need in missing(config_of("text4segpp_internvl3_14b"))}
    assert "hf download OpenGVLab/InternVL3-14B-hf" in told
    told = {need.help for need in missing(config_of("text4segpp_qwen2_vl_7b"))}
    assert "hf download Qwen/Qwen2-VL-7B-Instruct" in told
