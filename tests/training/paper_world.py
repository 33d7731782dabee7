"""All that `configs/paper/ras_13b.yaml` and `ras_7b.yaml` read, tiny and random, in the true file formats.

Models lie in a cache of the hub as its client lays them out, under the ids that the configs name; SAM is a pickled
state dict with the package's names; data sets lie where the configs look for them. Widths are overridden by `overlay`,
which is laid over the configs, but those of SAM and of open_clip's text tower, which no config can change: for them
this module's sizes stand in the packages' tables while a test is in the world (`World.entered`).
"""

import csv
import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip.factory
import pytest
import timm
import torch
import yaml
from huggingface_hub import constants
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor
from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from maskselect.backends.building import build
from maskselect.backends.configs import SHIPPED, read_configs
from maskselect.backends.sam import OFFICIAL_SIZES, build_sam
from maskselect.cli import main
from maskselect.data.maskgroups_2m import ImageRows
from maskselect.data.maskgroups_writer import write_maskgroups
from maskselect.data.refer import VARIANTS
from maskselect.ops import rle
from maskselect.recipes.scene_files import scene_rows
from maskselect.scenes.samples import AskedScene, ask_scenes
from maskselect.structures.protocols import Proposer
from maskselect.training.module import TrainingModule
from tests.doctor.machines import put_into_cache
from tests.importers import release

PAPER = SHIPPED / "paper"
OVERLAYS = PAPER / "overlays"
SIZE = (80, 112)
"""Of all pictures."""
WIDTHS: dict[str, dict[str, Any]] = {
    "clip": {"embed_dim": 16, "depth": 3, "num_heads": 2},
    "convnext": {"depths": [1, 1, 2, 1], "dims": [8, 8, 16, 16]},
    "siglip": {"embed_dim": 16, "depth": 2, "num_heads": 2},
    "dinov2": {"embed_dim": 16, "depth": 2, "num_heads": 2},
}
"""Of the encoders, as arguments of timm; image sizes are the published ones."""
CLIP_TOWER = {"width": 16, "layers": 3, "head_width": 8}
"""The same of the first as open_clip says it."""
CLIP_TEXT = {"context_length": 8, "vocab_size": 32, "width": 8, "heads": 1, "layers": 1}
OPENAI = "vit_large_patch14_clip_quickgelu_336.openai"


TINY_SAM: dict[str, Any] = {
    "image_size": 64, "embed_dim": 16, "depth": 2, "num_heads": 2, "window_size": 2, "prompt_dim": 32,
    "decoder_mlp_dim": 16, "iou_head_hidden_dim": 16, "use_rel_pos": True, "global_attn_indexes": (1,),
}  # fmt: skip
"""Sizes of a SAM with all that the official ones have."""


@torch.no_grad()
def write_sam(path: Path) -> None:
    """Random, but sure of itself: at the published thresholds random weights would propose nothing."""
    torch.manual_seed(0)
    sam = build_sam(**TINY_SAM)
    for name, parameter in sam.named_parameters():
        if parameter.ndim > 1 and name.startswith(("mask_decoder", "prompt_encoder")):
            parameter.normal_(std=parameter[0].numel() ** -0.5 if "embed" not in name else 1.0)
    sam.image_encoder.patch_embed.proj.weight.mul_(0.1)  # where rather than what: masks are blobs, not noise
    for head in sam.mask_decoder.output_hypernetworks_mlps:
        head.layers[-1].weight.mul_(1000)  # edges as sharp as the stability score wants them
    last = sam.mask_decoder.iou_prediction_head.layers[-1]
    last.weight.mul_(0.01)
    last.bias.fill_(0.95)
    path.parent.mkdir(parents=True)
    torch.save(sam.state_dict(), path)


def write_llava(cache: Path, model: str, width: int, layers: int) -> None:
    """A LLaVA-1.5 of transformers: float16 in shards, an output layer of its own, spare rows in the vocabulary."""
    torch.manual_seed(1)
    folder = put_into_cache(cache, model)
    release.base_llava(folder, release.Sizes())
    words = AutoTokenizer.from_pretrained(folder)
    words.add_tokens(["<image>"], special_tokens=True)
    words.add_special_tokens({"pad_token": "<pad>"})
    words.save_pretrained(folder)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, image_size=56, patch_size=14
    )
    text = LlamaConfig(
        vocab_size=-(-len(words) // 64) * 64,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=4096,
    )
    image = int(words.convert_tokens_to_ids("<image>"))
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=image, image_seq_length=16, vision_feature_layer=-2
    )
    made = LlavaForConditionalGeneration(config).half()
    made.save_pretrained(folder, max_shard_size="50KB")
    assert (folder / "model.safetensors.index.json").is_file()


def write_encoders(cache: Path) -> None:
    """What timm fetches for each encoder; OpenAI's CLIP as open_clip has it too, from the same weights."""
    torch.manual_seed(2)
    for encoder in encoders():
        given = encoder["init_args"]
        network = timm.create_model(given["model"], **WIDTHS[given["name"]])
        folder = put_into_cache(cache, str(network.pretrained_cfg["hf_hub_id"]))
        if given["model"] == OPENAI:
            whole = CLIP(8, {**CLIP_TOWER, "patch_size": 14, "image_size": 336}, CLIP_TEXT, quick_gelu=True)
            state = {name: tensor.contiguous() for name, tensor in whole.state_dict().items()}
            save_file(state, folder / "open_clip_model.safetensors")
            network.reset_classifier(8)
            network.load_state_dict(checkpoint_filter_fn(state, network))
        save_file(network.state_dict(), folder / "model.safetensors")


def encoders() -> list[dict[str, Any]]:
    """The encoders of the config that have weights."""
    listed = read_configs([PAPER / "ras_13b.yaml"])["model"]["task"]["init_args"]["encoders"]["init_args"]["encoders"]
    return [encoder for encoder in listed if encoder["init_args"].get("pretrained")]


def overlay() -> dict[str, Any]:
    """Paths, widths and the machine, and nothing else; a list can only be overridden as a whole."""
    task = read_configs([PAPER / "ras_13b.yaml"])["model"]["task"]["init_args"]
    listed = deepcopy(task["encoders"]["init_args"]["encoders"])
    for encoder in listed:
        if encoder["init_args"].get("name") in WIDTHS:
            encoder["init_args"]["model_args"] = WIDTHS[encoder["init_args"]["name"]]
    proposer = {"init_args": {"checkpoint": "weights/sam.pth", "device": "cpu"}}
    machine = {"accelerator": "cpu", "devices": 1, "strategy": "auto", "max_steps": 2, "log_every_n_steps": 1}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    arguments = {"encoders": {"init_args": {"encoders": listed}}, "proposer": proposer}
    return {"model": {"task": {"init_args": arguments}}, "trainer": machine | quiet}


def write_data(folder: Path, proposer: Proposer) -> None:
    """MaskGroups-HQ, MaskGroups-2M, LLaVA-Pretrain and the REFER family, of generated scenes.

    In each scene the first object's mask is a candidate of the proposer, so that some prompts can be answered.
    """
    hq = folder / "maskgroups-hq"
    for split, asked in (("train", drawn(1, 2, 5)), ("validation", drawn(4, 2, 4))):
        for scene in asked:
            scene.masks[0] = proposer.propose(scene.image).masks[0].numpy()
            picture(scene, hq / "images_resized" / f"{scene.id}.png")
        write_maskgroups(hq, split, [row for scene in asked for row in scene_rows(scene, [])])
    two_m, asked = folder / "maskgroups-2m", drawn(3, 2, 17)
    for number, scene in enumerate(asked):
        scene.masks[0] = proposer.propose(scene.image).masks[0].numpy()
        picture(scene, two_m / "images" / "coco" / f"{number:012}.png")
        ImageRows().write(two_m / f"train-{number:05}-of-{len(asked):05}.parquet", [image_row(number, scene)])
    captioned, records = folder / "llava-pretrain", []
    for number, scene in enumerate(drawn(4, 2, 1)):
        name = f"00453/{number:09}.jpg"
        picture(scene, captioned / "images" / name)
        asks = {"from": "human", "value": "Write a terse but informative summary of the picture.\n<image>"}
        tells = {"from": "gpt", "value": f"some things on the ground, picture {number}"}
        records.append({"id": f"{number:09}", "image": name, "conversations": [asks, tells]})
    (captioned / "blip_laion_cc_sbu_558k.json").write_text(json.dumps(records))
    for name in ("refcoco", "refcoco+", "refcocog", "grefcoco"):
        write_refer(folder / "refer_seg", name, proposer)


def write_refer(folder: Path, name: str, proposer: Proposer) -> None:
    """A set of the REFER family: three pictures to train on, one to validate."""
    images, annotations, references = [], [], []
    for number, scene in enumerate(drawn(5, 4, 1)):
        scene.masks[0] = proposer.propose(scene.image).masks[0].numpy()
        file = f"COCO_train2014_{number:012}.jpg"
        picture(scene, folder / "images" / "train2014" / file)
        images.append({"id": number, "file_name": file, "height": SIZE[0], "width": SIZE[1]})
        own = range(100 * number, 100 * number + len(scene.masks))
        for id, outline in zip(own, rle.encode(scene.masks), strict=True):
            annotations.append({"id": id, "image_id": number, "segmentation": outline, "iscrowd": 0})
        meant: list[Any] = [[own[0]], list(own), [-1]] if name == "grefcoco" else [own[0]]
        for which in meant:
            sentences = [{"sent_id": len(references), "sent": f"what {which} says"}]
            split = "val" if number == 3 else "train"
            told = {"image_id": number, "ann_id": which, "split": split, "sentences": sentences}
            references.append({"ref_id": len(references), **told})
    variant = VARIANTS[name]
    home = folder / variant.folder
    home.mkdir(parents=True)
    categories = [{"id": 1, "name": "thing"}]
    (home / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    if name == "grefcoco":
        (home / "grefs(unc).json").write_text(json.dumps(references))
    else:
        (home / f"refs({variant.by}).p").write_bytes(pickle.dumps(references, 2))


def drawn(seed: int, count: int, prompts: int) -> list[AskedScene]:
    return list(ask_scenes("train", seed, count, SIZE, prompts))


def picture(scene: AskedScene, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.image).save(path)


def image_row(number: int, scene: AskedScene) -> dict[str, Any]:
    """A row of MaskGroups-2M."""
    prompts = [
        {"text": p.text, "kind": p.kind, "references": list(p.references), "targets": list(p.targets)}
        for p in scene.prompts
    ]
    named = {"image": f"coco/{number:012}.png", "image_id": f"coco/{number}", "source": "coco"}
    sized = {"height": SIZE[0], "width": SIZE[1], "masks": rle.encode(scene.masks)}
    return named | sized | {"asked": len(prompts), "prompts": prompts}


@dataclass(frozen=True)
class Run:
    """A finished `fit`. task: what was trained.  before: its tensors when training began.  losses: of its steps."""

    task: Any
    before: dict[str, Tensor]
    losses: list[float]

    def moved(self) -> set[str]:
        """Names of the tensors that training changed."""
        now = self.task.state_dict()
        return {name for name, tensor in self.before.items() if not torch.equal(tensor, now[name])}


@dataclass(frozen=True)
class World:
    """A folder with everything; runs are in folders within, from which they see data, weights and kept features."""

    root: Path

    @classmethod
    def made(cls, root: Path) -> "World":
        """Write all files."""
        write_sam(root / "weights" / "sam.pth")
        write_llava(root / "hub", "llava-hf/llava-1.5-13b-hf", 64, 2)
        write_llava(root / "hub", "llava-hf/llava-1.5-7b-hf", 64, 1)
        write_encoders(root / "hub")
        for name in ("data", "kept"):
            (root / name).mkdir()
        (root / "tiny.yaml").write_text(yaml.safe_dump(overlay()))
        world = cls(root)
        with world.entered("making"):
            task = read_configs([PAPER / "ras_13b.yaml", root / "tiny.yaml"])["model"]["task"]
            write_data(root / "data", build(task["init_args"]["proposer"]))
        return world

    @contextmanager
    def entered(self, name: str) -> Iterator[pytest.MonkeyPatch]:
        """Work in a folder of this name, with the hub's cache of this world and no network."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        for link, target in (("data", "data"), ("weights", "weights"), (".cache", "kept")):
            if not (folder / link).exists():
                (folder / link).symlink_to(self.root / target)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(constants, "HF_HUB_CACHE", str(self.root / "hub"))
            patch.setattr(constants, "HF_HUB_OFFLINE", True)
            patch.setitem(OFFICIAL_SIZES, "vit_h", TINY_SAM)
            named = open_clip.factory._MODEL_CONFIGS["ViT-L-14-336-quickgelu"]
            patch.setitem(
                open_clip.factory._MODEL_CONFIGS,
                "ViT-L-14-336-quickgelu",
                named | {"embed_dim": 8, "text_cfg": CLIP_TEXT},
            )
            yield patch

    def fit(self, config: str, *overlays: str, options: tuple[str, ...] = ()) -> Run:
        """`lightning fit` with a config, its overlays and this world's; to be called within `entered`."""
        files = [PAPER / f"{config}.yaml", *(OVERLAYS / f"{name}.yaml" for name in overlays), self.root / "tiny.yaml"]
        words = [word for file in files for word in ("-c", str(file))]
        seen: dict[str, Any] = {}

        def watch(module: TrainingModule) -> None:
            seen["task"] = module.task
            seen["before"] = {name: tensor.clone() for name, tensor in module.task.state_dict().items()}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainingModule, "on_fit_start", watch)
            status = main(["fit", *words, *options], prog="lightning")
        assert status == 0, f"fit of {config} {overlays} ended with status {status}"
        return Run(seen["task"], seen["before"], losses_in(Path(read_configs(files)["output"])))


def losses_in(output: Path) -> list[float]:
    """Of each step of the last run that wrote there."""
    logs = sorted(output.glob("csv/version_*/metrics.csv"), key=lambda log: int(log.parent.name.rpartition("_")[2]))
    with logs[-1].open() as lines:
        return [float(row["train/loss"]) for row in csv.DictReader(lines) if row.get("train/loss")]
