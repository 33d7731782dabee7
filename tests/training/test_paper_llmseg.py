"""LLM-Seg's paper configs: they parse, name what exists, say what was published, and train when made tiny."""

import inspect
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from maskselect.backends.building import build, find_class
from maskselect.backends.configs import read_configs
from maskselect.data.catalog import CATALOG
from maskselect.proposers.union import UnionProposer
from maskselect.scenes.groups import SceneGroups
from maskselect.structures.masks import MaskSet
from maskselect.systems.llmseg import LLMSeg
from maskselect.systems.preparing import fingerprint
from maskselect.training.data import GroupsData
from tests.lmm.twin import LIGHTNING_SYSTEM
from tests.systems.tiny import SIZES, Quarters
from tests.training.batches import batch_of

PAPER = Path(__file__).resolve().parents[2] / "configs" / "paper"
WHOLE = PAPER / "llmseg_7b.yaml"
OVERLAYS = sorted(PAPER.glob("llmseg_7b_*.yaml"))
IDS = [path.stem.removeprefix("llmseg_7b_") for path in OVERLAYS]
UPDATES = {"20_epochs": 10_000, "zero_shot": 5_000, "llm_seg40k": 2_500}
IMAGES_AN_UPDATE = 20


def named(config: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every class of a tree with its arguments."""
    if isinstance(config, dict):
        if "class_path" in config:
            yield config["class_path"], config.get("init_args", {})
        for value in config.values():
            yield from named(value)
    elif isinstance(config, list):
        for value in config:
            yield from named(value)


def parsed(parser: LightningArgumentParser, overlay: Path | None) -> Any:
    base = parser.parse_object(yaml.safe_load(WHOLE.read_text()))
    return base if overlay is None else parser.parse_object(yaml.safe_load(overlay.read_text()), base)


def test_the_overlays_are_those_that_are_told() -> None:
    assert set(IDS) == set(UPDATES)
    assert all(path.name in WHOLE.read_text() for path in OVERLAYS)


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=["whole", *IDS])
def test_what_is_parsed_is_what_is_merged(fit_parser: LightningArgumentParser, overlay: Path | None) -> None:
    """And both ways of laying one over another, `fit`'s and the importer's, give the same."""
    merged = read_configs([WHOLE] if overlay is None else [WHOLE, overlay])
    found = parsed(fit_parser, overlay).as_dict()
    for path, wanted in _leaves(merged):
        here: Any = found
        for part in path:
            here = here[part]
        assert str(here) == str(wanted) or float(here) == pytest.approx(float(wanted)), path


def _leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    if not isinstance(tree, dict | list):
        yield path, tree
    for key, value in items:
        yield from _leaves(value, (*path, key))


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=["whole", *IDS])
def test_every_class_takes_the_arguments_that_it_is_given(overlay: Path | None) -> None:
    config = read_configs([WHOLE] if overlay is None else [WHOLE, overlay])
    found = list(named(config))
    assert len(found) > 6
    for class_path, arguments in found:
        inspect.signature(find_class(class_path)).bind(**arguments)
    sets = [a for name, a in found if name.endswith("DatasetGroups")]
    assert all(one["split"] in CATALOG[one["dataset"]].splits for one in sets)
    assert config["data"]["init_args"]["prompts_per_image"] == (1 if overlay and "40k" in overlay.name else 3)


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=["whole", *IDS])
def test_schedules_are_the_published_ones(overlay: Path | None) -> None:
    config = read_configs([WHOLE] if overlay is None else [WHOLE, overlay])
    updates = UPDATES[overlay.stem.removeprefix("llmseg_7b_")] if overlay else 5_000
    model, trainer, data = config["model"], config["trainer"], config["data"]["init_args"]
    assert trainer["max_steps"] == updates and round(model["warmup_share"] * updates) == 100
    assert data["batch_size"] * trainer["accumulate_grad_batches"] == IMAGES_AN_UPDATE
    assert (model["betas"], model["weight_decay"], model["schedule"]) == ([0.9, 0.95], 0.0, "linear")
    assert model["lr"] == (1e-5 if overlay and "40k" in overlay.name else 1e-4)
    train = data["train"]
    if train["class_path"].endswith("MixedGroups"):
        assert train["init_args"]["draws"] == updates * IMAGES_AN_UPDATE
        assert train["init_args"]["rates"] == ([9, 3, 0] if overlay and "zero" in overlay.name else [9, 3, 1])
        kinds = [[a["dataset"] for _, a in named(one) if "dataset" in a] for one in train["init_args"]["sources"]]
        assert kinds == [
            ["ade20k", "coco-stuff", "pascal-part", "paco", "mapillary"],
            ["refclef", "refcoco", "refcoco+", "refcocog"],
            ["reasonseg"],
        ]


def tiny_task() -> dict[str, Any]:
    """The task with everything kept but weights and sizes."""
    task: dict[str, Any] = deepcopy(read_configs([WHOLE])["model"]["task"])
    arguments = task["init_args"]
    lmm = arguments["lmm"]["init_args"]
    assert lmm.pop("dtype") == "bfloat16" and lmm.pop("model")
    lmm["sizes"] = vars(SIZES)
    (encoder,) = arguments["encoders"]["init_args"]["encoders"]
    encoder["init_args"] |= {
        "model": "vit_tiny_patch16_224",
        "image_size": 64,
        "pretrained": False,
        "model_args": {"embed_dim": 32, "depth": 1, "num_heads": 2, "class_token": False, "global_pool": ""},
    }
    arguments["proposer"] = None
    return task


def test_the_system_prompt_is_the_one_of_the_first_llavas() -> None:
    assert read_configs([WHOLE])["model"]["task"]["init_args"]["lmm"]["init_args"]["system_prompt"] == LIGHTNING_SYSTEM


def test_a_tiny_one_trains_and_answers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = tiny_task()
    system = build({**task, "init_args": task["init_args"]})
    assert isinstance(system, LLMSeg)
    system.proposer = Quarters()
    assert system.channels == 32 and system.lmm.square is not None and system.lmm.frame_ids is not None
    source = SceneGroups("train", 0, 2)
    batch = batch_of(system, source, [(0, 1)], 3, tmp_path)
    assert len(batch.prompts[0]) == 3 and batch.image_features is not None
    assert batch.image_features.shape == (1, 4, SIZES.vision_width)
    system.train()
    optimizer = torch.optim.AdamW([p for p in system.parameters() if p.requires_grad], 1e-3, betas=(0.9, 0.95))
    before = {name: tensor.clone() for name, tensor in system.learned_state().items()}
    for _ in range(3):
        losses = system.loss(batch)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert set(losses) == {"loss", "text", "iou", "iop"} and all(torch.isfinite(v) for v in losses.values())
    moved = {
        name.split(".")[0] for name, tensor in system.learned_state().items() if not torch.equal(tensor, before[name])
    }
    assert moved == {"text_projection", "mask_conv", "fusion", "iou_head", "iop_head", "reader"}
    system.eval()
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    candidates = Quarters().propose(image)
    read = system.read_candidates(image, system.pool_features(system.encode(image), candidates))
    scores, chosen = system.score_candidates(read, ["the mug"], [torch.zeros(0, 32)], 0.5)
    assert scores.shape == chosen.shape == (1, 4)


def test_frozen_features_are_kept_apart_by_what_the_tower_sees() -> None:
    torch.manual_seed(0)
    cropped = build(tiny_task())
    padded = deepcopy(cropped)
    padded.reader.lmm.square = None
    assert fingerprint(cropped) != fingerprint(padded)


class Many:
    """Sixty candidates, each of its own area, two of them the same."""

    def propose(self, image: np.ndarray) -> MaskSet:
        masks = torch.zeros(60, *image.shape[:2], dtype=torch.bool)
        for number in range(60):
            masks[number].view(-1)[: 7 * ((number * 17) % 60) + 1] = True
        masks[1] = masks[0]
        return MaskSet(masks, torch.linspace(0.9, 1, 60), "many")


def test_candidates_are_the_fifty_largest_even_where_two_are_the_same() -> None:
    settings = dict(read_configs([WHOLE])["model"]["task"]["init_args"]["proposer"]["init_args"])
    assert len(settings.pop("proposers")) == 1
    image = np.zeros((30, 30, 3), np.uint8)
    found = UnionProposer([Many()], **settings).propose(image)
    areas = Many().propose(image).masks.flatten(1).sum(1).sort(descending=True).values
    assert found.masks.flatten(1).sum(1).tolist() == areas[:50].tolist()


def test_the_data_module_takes_the_published_batch(tmp_path: Path) -> None:
    settings = {k: v for k, v in read_configs([WHOLE])["data"]["init_args"].items() if k not in ("train", "val")}
    data = GroupsData(SceneGroups("train", 0, 3), SceneGroups("val", 0, 1), cache_dir=tmp_path, **settings)
    assert (data.batch_size, data.prompts_per_image, data.settings.max_candidates) == (1, 3, None)
