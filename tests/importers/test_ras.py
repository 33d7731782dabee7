"""The importer of RAS's release, on files with the true names of LLaVA and guessed ones of what stands beside it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from transformers import LlamaTokenizer

import maskselect
from maskselect import cli
from maskselect.backends import checkpoints
from maskselect.backends.building import build
from maskselect.backends.configs import read_configs
from maskselect.importers.account import NONE, REFUSED, Row
from maskselect.importers.hub_folder import HubWeights
from maskselect.importers.llava import plan_llava
from maskselect.importers.ras import Choices, block_order, encoder_channels, import_ras, ras_task
from maskselect.systems.loading import BESIDE
from maskselect.systems.ras import RAS
from tests.importers import original_llava
from tests.importers.original_llava import Original
from tests.importers.release import Sizes
from tests.lmm.twin import VICUNA_SYSTEM

SIDE = Sizes.grid * Sizes.patch
CLIP, POSITION, HIDDEN = 8, 12, 12
"""Channels of the two encoders here, and of the classifier."""

PROJECTOR, CLASSIFIER = "model.mask_projector", "mask_classifier"
POOL, REF = "model.mask_pool_pre", "model.mask_ref_pre"
TOWERS = {
    "model.vision_tower_aux_list.1.vision_tower.blocks.0.mlp.fc1.weight": (16, 4),
    "model.vision_tower_aux_list.3.vision_tower.layernorm.bias": (32,),
    "model.convnext_tower.stages.0.blocks.0.gamma": (32,),
    "model.mask_encoders.dinov2.norm.weight": (4,),
}


def task_config() -> dict[str, Any]:
    """As configs/paper/ras_13b.yaml, tiny, with the encoders in another order than the release's."""

    def encoder(name: str, grid: int, frequencies: int) -> dict[str, Any]:
        arguments = {"name": name, "grid": grid, "frequencies": frequencies}
        return {"class_path": "maskselect.encoders.position.SinusoidEncoder", "init_args": arguments}

    encoders = [encoder("position", 8, POSITION // 4), encoder("clip", 4, CLIP // 4)]
    arguments = {
        "stage": 2,
        "proposal_score": False,
        "start": "of a training run",
        "proposer": {"class_path": "maskselect.proposers.regions.RegionProposer"},
        "encoders": {
            "class_path": "maskselect.encoders.ensemble.EncoderEnsemble",
            "init_args": {"geometry": False, "encoders": encoders},
        },
        "lmm": {
            "class_path": "maskselect.lmm.llava.Llava",
            "init_args": {
                "model": "llava-hf/llava-1.5-13b-hf",
                "lora": {"r": 2, "alpha": 4},
                "system_prompt": VICUNA_SYSTEM,
                "dtype": "float32",
            },
        },
    }
    source = {"class_path": "maskselect.data.groups.DatasetGroups", "init_args": {"dataset": "maskgroups-2m"}}
    data = {"class_path": "maskselect.training.data.GroupsData", "init_args": {"train": source}}
    return {"model": {"task": {"class_path": "maskselect.systems.ras.RAS", "init_args": arguments}}, "data": data}


def parts(width: int) -> dict[str, Tensor]:
    """What stands beside LLaVA in a release, and frozen encoders."""
    shapes: dict[str, tuple[int, ...]] = {
        f"{PROJECTOR}.0.weight": (width, CLIP + POSITION),
        f"{PROJECTOR}.0.bias": (width,),
        f"{PROJECTOR}.2.weight": (width, width),
        f"{PROJECTOR}.2.bias": (width,),
        POOL: (width,),
        REF: (1, width),
        f"{CLASSIFIER}.0.weight": (HIDDEN, width),
        f"{CLASSIFIER}.0.bias": (HIDDEN,),
        f"{CLASSIFIER}.2.weight": (1, HIDDEN),
        f"{CLASSIFIER}.2.bias": (1,),
        **TOWERS,
    }
    generator = torch.Generator().manual_seed(7)
    return {name: (torch.randn(shape, generator=generator) * 0.4).bfloat16() for name, shape in shapes.items()}


class Made:
    """A release on disk, and a config."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder / "release", folder / "ras.yaml"
        self.sizes = Sizes(vocabulary=original_llava.base(self.folder, Sizes(), model_type="llava_llama"))
        self.tensors = original_llava.tensors(self.sizes) | parts(self.sizes.width)
        original_llava.write(self.folder, self.tensors)
        self.config.write_text(yaml.safe_dump(task_config()))

    def again(self, folder: Path, tensors: dict[str, Tensor], **form: Any) -> Path:
        """Another folder, with other tensors."""
        original_llava.base(folder, self.sizes, model_type="llava_llama")
        return original_llava.write(folder, tensors, **form)

    def run(self, destination: Path, **changed: Any) -> list[Row]:
        told: list[Row] = []
        given = {"source": self.folder, "configs": [self.config], "tell": lambda rows, _: told.extend(rows)} | changed
        import_ras(destination=destination, **given)
        return told


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("ras"))


@pytest.fixture(scope="module")
def imported(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported") / "ras"
    made.run(folder, shard="60KB")
    return folder


def loaded(folder: Path) -> RAS:
    """The system that the card describes, with the checkpoint's tensors; those of its LLaVA are the folder beside."""
    config = json.loads(json.dumps(checkpoints.read_card(folder)["config"]).replace(BESIDE, str(folder)))
    system = build(config)
    assert isinstance(system, RAS)
    absent, unknown = system.load_state_dict(checkpoints.read_tensors(folder), strict=False)
    assert not unknown and all(name.startswith(("reader.lmm.model.", "encoders.", "proposer.")) for name in absent)
    return system.eval()


class Reference(Original):
    """What the release computes for one prompt, from its tensors: candidates twice, the classifier on the second."""

    def mask_tokens(self, features: Tensor) -> Tensor:
        return self.mlp(f"{PROJECTOR}.0", f"{PROJECTOR}.2", features)

    @torch.no_grad()
    def scores(self, system: RAS, image: Tensor, features: Tensor, pieces: list[str], references: Tensor) -> Tensor:
        """features, references: (N, C), (R, C) in the release's order. Gives (N,)."""
        ids = system.lmm.token_ids
        pool, ref = self.tensors[POOL][None], self.tensors[REF].view(1, -1)
        seen = [self.embedded(ids(f"{VICUNA_SYSTEM} USER:", begin=True)), self.image(image)]
        for token in self.mask_tokens(features):
            seen += [pool, token[None]]
        seen += [self.embedded(ids("\n")), self.embedded(ids(pieces[0]))]
        for piece, token in zip(pieces[1:], self.mask_tokens(references), strict=True):
            seen += [ref, token[None], self.embedded(ids(piece)) if piece else pool[:0]]
        seen += [self.embedded(ids(" ASSISTANT:"))]
        before = sum(map(len, seen))
        every = torch.cat([*seen, self.mask_tokens(features)])
        visible = torch.ones(len(every), len(every), dtype=torch.bool).tril()
        hidden = self.hidden(every, visible, [*range(len(every))])
        return self.mlp(f"{CLASSIFIER}.0", f"{CLASSIFIER}.2", hidden[before:])[:, 0].sigmoid()


IMAGE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
MASKS = torch.zeros(4, SIDE, SIDE, dtype=torch.bool)
for number, (top, bottom, left, right) in enumerate([(0, 28, 0, 9), (3, 9, 14, 28), (20, 28, 2, 5), (5, 26, 7, 25)]):
    MASKS[number, top:bottom, left:right] = True


def test_an_imported_ras_scores_as_its_source_does(made: Made, imported: Path) -> None:
    system = loaded(imported)
    ours = system.pool_features(system.encode(IMAGE), MASKS)
    theirs = torch.cat([ours[:, POSITION:], ours[:, :POSITION]], 1)
    image = torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float() / 255
    reference = Reference(made.tensors, made.sizes)
    wanted = [
        reference.scores(system, image, theirs[:3], ["left of", "and", ""], theirs[[3, 0]]),
        reference.scores(system, image, theirs[:3], ["the mug"], theirs[:0]),
    ]
    found = system.score_candidates(
        system.read_candidates(IMAGE, ours[:3]),
        ["left of <mask-ref> and <mask-ref>", "the mug"],
        [ours[[3, 0]], ours[:0]],
        0.5,
    )[0]
    torch.testing.assert_close(found, torch.stack(wanted), atol=1e-4, rtol=1e-3)
    assert float(found[0].std()) > 1e-2 and not torch.allclose(found[0], found[1], atol=1e-2)


def test_a_given_order_of_encoders_says_which_columns_are_whose(made: Made, imported: Path, tmp_path: Path) -> None:
    made.run(tmp_path / "out", choices=Choices(order=("position", "clip")))
    first, other = loaded(imported).reader.mask_tokenizer, loaded(tmp_path / "out").reader.mask_tokenizer
    features = torch.randn(3, CLIP + POSITION)
    source = {name: tensor.float() for name, tensor in made.tensors.items()}

    def mlp(x: Tensor) -> Tensor:
        inner = F.gelu(F.linear(x, source[f"{PROJECTOR}.0.weight"], source[f"{PROJECTOR}.0.bias"]))
        return F.linear(inner, source[f"{PROJECTOR}.2.weight"], source[f"{PROJECTOR}.2.bias"])

    with torch.no_grad():
        swapped = torch.cat([features[:, POSITION:], features[:, :POSITION]], 1)
        torch.testing.assert_close(first(features), mlp(swapped))
        torch.testing.assert_close(other(features), mlp(features))
    first.fit_statistics(features)  # would standardise what the release did not, were it not fitted already
    assert bool((first.mean == 0).all()) and bool((first.scale == 1).all())


def test_the_card_finds_the_llava_beside_it_and_says_what_was_assumed(made: Made, imported: Path) -> None:
    card = checkpoints.read_card(imported)
    arguments = card["config"]["init_args"]
    assert arguments["lmm"]["init_args"] == {
        "model": "{beside}/llava",
        "system_prompt": VICUNA_SYSTEM,
        "dtype": "float32",
    }
    assert (arguments["second_pass"], arguments["standardise"]) == ("causal", False)  # the config states neither
    assert "the second pass is causal" in card["imported"]["assumed"]
    assert card["system"] == "ras" and "start" not in arguments and card["data"] == task_config()["data"]
    assert card["source"] == str(made.folder) and card["threshold"] == 0.5
    assert any("in the order clip, position" in sentence for sentence in card["imported"]["assumed"])
    held = HubWeights(imported / "llava", "LLaVA", "x/y")
    assert {tensor.dtype for tensor in held.values()} == {torch.bfloat16}
    with_dtype = {"reader.mask_tokenizer.projector.0.weight", "scorer.head.layers.2.bias"}
    from safetensors import safe_open

    with safe_open(imported / "ras.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in with_dtype} == {torch.bfloat16}


def test_an_imported_folder_may_be_moved_and_asked(made: Made, tmp_path: Path) -> None:
    made.run(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    model = maskselect.load(tmp_path / "moved", device="cpu")
    group = model.select(IMAGE, "left of <mask-ref>", references=[MASKS[0].numpy()])
    assert group.mask.shape == (SIDE, SIDE)


def test_the_account_has_every_tensor_once(made: Made, imported: Path) -> None:
    account = json.loads((imported / "ras.import.json").read_text())
    by_source = {row["source"]: row for row in account["tensors"]}
    assert len(account["tensors"]) == len(by_source) and by_source.keys() == made.tensors.keys()
    for name, row in by_source.items():
        assert row["shape"] == list(made.tensors[name].shape) and row["dtype"] == "bfloat16"
        assert (row["target"] == NONE) == (name in TOWERS), name
    targets = {name: by_source[name]["target"] for name in (POOL, REF, f"{PROJECTOR}.2.bias", f"{CLASSIFIER}.0.weight")}
    assert list(targets.values()) == [
        "reader.mask_tokenizer.pre[0]",
        "reader.mask_tokenizer.pre[1]",
        "reader.mask_tokenizer.projector.2.bias",
        "scorer.head.layers.0.weight",
    ]
    assert by_source["lm_head.weight"]["target"] == "llava: lm_head.weight"
    assert "filled up to" in by_source["model.embed_tokens.weight"]["why"]
    assert "Cambrian-1" in by_source[next(iter(TOWERS))]["why"]


def renamed(tensors: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


def pre_tokens(folder: Path) -> Tensor:
    return checkpoints.read_tensors(folder)["reader.mask_tokenizer.pre"]


def test_pre_tokens_may_be_two_rows_of_a_matrix(made: Made, tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in made.tensors.items() if name not in (POOL, REF)}
    both = torch.stack([made.tensors[POOL], made.tensors[REF][0]])
    source = made.again(tmp_path / "source", tensors | {"model.mask_pre.weight": both})
    made.run(tmp_path / "out", source=source)
    assert torch.equal(pre_tokens(tmp_path / "out"), both.float())
    assert "the first row of model.mask_pre.weight" in (tmp_path / "out" / "ras.json").read_text()
    chosen = {"pool_pre": "model.mask_pre.weight[1]", "ref_pre": "model.mask_pre.weight[0]"}
    made.run(tmp_path / "swapped", source=source, choices=Choices(parts=chosen))
    assert torch.equal(pre_tokens(tmp_path / "swapped"), both.flip(0).float())


def test_pre_tokens_may_be_in_the_vocabulary(made: Made, tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in made.tensors.items() if name not in (POOL, REF)}
    rows = torch.randn(2, made.sizes.width).bfloat16()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], rows])
    source = made.again(tmp_path / "source", tensors)
    words = LlamaTokenizer.from_pretrained(source)
    words.add_tokens(["<mask-ref-pre>", "<mask-pool-pre>"])
    words.save_pretrained(source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": len(words)}))
    told = made.run(tmp_path / "out", source=source)
    assert torch.equal(pre_tokens(tmp_path / "out"), rows.flip(0).float())
    assert f"model.embed_tokens.weight[{len(words) - 1}]" in {row.source for row in told}
    # Vectors beside those of the vocabulary could be meant as well, so nothing is taken.
    twice = made.again(tmp_path / "twice", tensors | {"model.mask_pre.weight": rows})
    words.save_pretrained(twice)
    (twice / "config.json").write_text((source / "config.json").read_text())
    with pytest.raises(ValueError, match=r"1 tensors are left over, model\.mask_pre\.weight"):
        made.run(tmp_path / "none", source=twice)


def test_layers_without_a_bias_and_a_missing_tower_are_taken(made: Made, imported: Path, tmp_path: Path) -> None:
    from transformers import CLIPVisionModel

    lmm = loaded(imported).lmm
    vision: Any = lmm.model.config.vision_config
    CLIPVisionModel(vision).save_pretrained(tmp_path / "clip")
    tensors = {n: t for n, t in made.tensors.items() if ".vision_tower.vision_tower." not in n}
    tensors = {n: t for n, t in tensors.items() if n not in (f"{PROJECTOR}.0.bias", f"{CLASSIFIER}.2.bias")}
    source = made.again(tmp_path / "source", tensors, form="safetensors")
    told = made.run(tmp_path / "out", source=source, tower=str(tmp_path / "clip"))
    held = checkpoints.read_tensors(tmp_path / "out")
    assert not held["reader.mask_tokenizer.projector.0.bias"].any() and not held["scorer.head.layers.2.bias"].any()
    assert sum("of the vision tower given" in row.why for row in told) == len(lmm.vision_tower.state_dict())


def _other(made: Made, how: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a release in which something is not as it should be, and the arguments for it."""
    tensors, width = dict(made.tensors), made.sizes.width
    given: dict[str, Any] = {}
    match how:
        case "two projectors":
            tensors |= {f"model.region_projector.{n}.weight": torch.zeros(width, c) for n, c in ((0, 6), (2, width))}
        case "two classifiers":
            tensors |= {"model.iou.fc1.weight": torch.zeros(5, width), "model.iou.fc2.weight": torch.zeros(1, 5)}
        case "three layers":
            tensors[f"{PROJECTOR}.4.weight"] = torch.zeros(width, width)
        case "a norm in the projector":
            tensors[f"{PROJECTOR}.1.weight"] = torch.ones(width)
        case "no projector":
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(PROJECTOR)}
        case "one vector":
            del tensors[REF]
        case "three vectors":
            tensors["model.mask_end"] = torch.zeros(width)
        case "vectors of names that tell nothing":
            tensors = renamed(renamed(tensors, POOL, "model.mask_prefix.0"), REF, "model.mask_prefix.1")
        case "vectors of names that only begin as they should":
            tensors = renamed(renamed(tensors, POOL, "model.scale_token"), REF, "model.refine_token")
        case "norms in their place":
            tensors = renamed(renamed(tensors, POOL, "model.pool_norm.weight"), REF, "model.ref_norm.weight")
        case "something trained called after an encoder":
            tensors["model.dinov2.lora_A.weight"] = torch.zeros(3)
        case "a mask projector called after an encoder":
            tensors["model.dino.mask_projector.0.weight"] = torch.zeros(3)
        case "something else":
            tensors["model.something.else"] = torch.zeros(3)
        case "a LLaVA with a hole":
            del tensors["model.layers.0.mlp.up_proj.weight"]
        case "other features":
            tensors[f"{PROJECTOR}.0.weight"] = torch.zeros(width, 17)
        case "a wide classifier":
            tensors[f"{CLASSIFIER}.0.weight"] = torch.zeros(2 * width, width)
            tensors[f"{CLASSIFIER}.0.bias"] = torch.zeros(2 * width)
            tensors[f"{CLASSIFIER}.2.weight"] = torch.zeros(1, 2 * width)
        case "an order of other encoders":
            given = {"choices": Choices(order=("clip", "siglip"))}
        case "a part that there is not":
            given = {"choices": Choices(parts={"decoder": "model"})}
        case "a part of another shape":
            given = {"choices": Choices(parts={"projector": CLASSIFIER})}
        case "a chosen vector of another shape":
            given = {"choices": Choices(parts={"pool_pre": f"{POOL}[1]", "ref_pre": REF})}
        case "one vector for both":
            given = {"choices": Choices(parts={"pool_pre": POOL, "ref_pre": POOL})}
        case "one vector chosen of two":
            given = {"choices": Choices(parts={"pool_pre": POOL})}
        case "nothing to drop":
            given = {"choices": Choices(drop=("model.absent",))}
    return tensors, given


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("two projectors", "2 have the shape of the mask projector (C → D → D): model.mask_projector: 20 → 32 → 32; "),
        (
            "two classifiers",
            "2 have the shape of the classifier (D → any → 1): mask_classifier: 32 → 12 → 1; model.iou:",
        ),
        ("three layers", "nothing has the shape of the mask projector"),
        ("a norm in the projector", "nothing has the shape of the mask projector"),
        ("no projector", "nothing has the shape of the mask projector"),
        (
            "one vector",
            "only model.mask_pool_pre has the shape of <mask-pool-pre> and <mask-ref-pre> (two vectors of D)",
        ),
        ("three vectors", "3 have the shape of <mask-pool-pre>"),
        (
            "vectors of names that tell nothing",
            "the names of model.mask_prefix.0 and model.mask_prefix.1 do not say",
        ),
        ("vectors of names that only begin as they should", "do not say which of them is <mask-ref-pre>"),
        ("norms in their place", "do not say which of them is <mask-ref-pre>"),
        ("something trained called after an encoder", "left over, model.dinov2.lora_A.weight"),
        ("a mask projector called after an encoder", "left over, model.dino.mask_projector.0.weight"),
        ("something else", "1 tensors are left over, model.something.else (--drop leaves them behind)"),
        (
            "a LLaVA with a hole",
            "of its LLaVA, 79 matched, 0 dropped, 0 unknown, 1 missing, 0 reshaped; missing: model",
        ),
        ("other features", "reads 17 channels, the config's encoders give 20 (position 12, clip 8)"),
        ("a wide classifier", "its classifier has 64 hidden channels, but ours has room for 32"),
        ("an order of other encoders", "the encoder order is clip, siglip; expected each of position, clip once"),
        ("a part that there is not", "RAS has no part 'decoder'"),
        ("a part of another shape", "the tensors under 'mask_classifier' are not the mask projector"),
        ("a chosen vector of another shape", "'model.mask_pool_pre[1]' is no vector of 32"),
        ("one vector for both", "pool_pre and ref_pre are both model.mask_pool_pre"),
        ("one vector chosen of two", "only one is chosen"),
        ("nothing to drop", "nothing begins with 'model.absent'"),
    ],
)
def test_doubt_is_refused_with_all_that_is_known(made: Made, tmp_path: Path, how: str, told: str) -> None:
    tensors, given = _other(made, how)
    source = made.again(tmp_path / "source", tensors)
    rows: list[Row] = []
    with pytest.raises(ValueError) as caught:
        made.run(tmp_path / "to" / "out", source=source, tell=lambda r, _: rows.extend(r), **given)
    assert told in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value) and not (tmp_path / "to").exists()
    if not given:
        assert tensors.keys() <= {row.source for row in rows}
        assert any(row.why.startswith(REFUSED) for row in rows) == (how not in ("other features", "a wide classifier"))


def test_what_is_doubtful_can_be_said(made: Made, imported: Path, tmp_path: Path) -> None:
    tensors = dict(made.tensors) | _other(made, "two projectors")[0] | _other(made, "something else")[0]
    tensors = renamed(renamed(tensors, POOL, "model.pre.0"), REF, "model.pre.1")
    source = made.again(tmp_path / "source", tensors)
    chosen = {"projector": PROJECTOR, "pool_pre": "model.pre.0", "ref_pre": "model.pre.1"}
    with pytest.raises(ValueError, match=r"3 tensors are left over, model\.region_projector\.0\.weight"):
        made.run(tmp_path / "out", source=source, choices=Choices(parts=chosen))
    drop = ("model.region_projector.", "model.something.")
    told = made.run(tmp_path / "out", source=source, choices=Choices(parts=chosen, drop=drop))
    assert sum(row.why == "left behind: dropped on request" for row in told) == 3
    first, second = (checkpoints.read_tensors(folder) for folder in (imported, tmp_path / "out"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("stage", 1, "stage: 1"),
        ("proposal_score", True, "proposal_score: True"),
        ("pre_tokens", "same", "pre_tokens: same"),
        ("geometry", True, "geometry: True"),
        ("model", None, "lmm.model: None"),
    ],
)
def test_a_config_that_the_release_does_not_fit_is_refused(
    made: Made, tmp_path: Path, setting: str, value: Any, told: str
) -> None:
    config = task_config()
    arguments = config["model"]["task"]["init_args"]
    place = {"geometry": arguments["encoders"]["init_args"], "model": arguments["lmm"]["init_args"]}
    place.get(setting, arguments)[setting] = value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=f"the config's RAS has {told}, which does not fit the release"):
        made.run(tmp_path / "out", configs=[tmp_path / "config.yaml"])


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("truncated shard", "pytorch_model-00003-of-00003.bin is truncated or not a plain weights file"),
        ("missing shard", "names pytorch_model-00003-of-00003.bin, which is not there (get it with: hf download Sheng"),
    ],
)
def test_damaged_files_are_named_and_nothing_is_left(made: Made, tmp_path: Path, how: str, told: str) -> None:
    source = made.again(tmp_path / "source", made.tensors)
    shard = source / "pytorch_model-00003-of-00003.bin"
    if how == "truncated shard":
        shard.write_bytes(shard.read_bytes()[:-100])
    else:
        shard.unlink()
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        made.run(tmp_path / "out", source=source)
    assert told in str(caught.value) and not (tmp_path / "out").exists()


def test_a_failure_while_writing_leaves_nothing(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr("maskselect.importers.ras.write_rows", full)
    with pytest.raises(OSError, match="No space left"):
        made.run(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_table_whether_or_not_it_imports(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["import", "ras", str(made.folder), str(tmp_path / "out"), "-c", str(made.config)]
    arguments += ["--encoder-order", "position,clip"]
    assert cli.main(arguments) == 0
    told = capsys.readouterr().out
    assert "Assumed: the projector reads features in the order position, clip, not standardised." in told
    assert all(name in told for name in made.tensors) and "reader.mask_tokenizer.pre[1]" in told
    assert "32 x 20" in told and (tmp_path / "out" / "ras.safetensors").is_file()
    source = made.again(tmp_path / "source", made.tensors | {"model.something.else": torch.zeros(3)})
    arguments[2:4] = [str(source), str(tmp_path / "other")]
    assert cli.main(arguments) == 2
    found = capsys.readouterr()
    assert "model.something.else" in found.out and f"{REFUSED}: nothing explains it" in found.out
    assert found.err.count("\n") == 1 and "model.something.else" in found.err
    assert cli.main([*arguments, "--drop", "model.something", "--part", f"projector={PROJECTOR}"]) == 0


def test_the_paper_config_fits_a_release_of_the_published_size(tmp_path: Path) -> None:
    """The whole account at true shapes, on the meta device: nothing of that size is ever made."""
    sizes = Sizes(0, 5120, 40, 13_824, 40, 1, 1024, 4096, 24, 14, 24)
    sizes = replace(sizes, vocabulary=original_llava.base(tmp_path, sizes))
    headers = {n: torch.empty(shape, device="meta") for n, shape in original_llava.shapes(sizes).items()}
    assert len(headers) == 758
    plan = plan_llava(tmp_path, headers, None, None)
    assert len(plan.report.matched) == 758 and str(plan.report).startswith("758 matched, 0 dropped, 0 unknown, 0 miss")
    vision, text = plan.config.vision_config, plan.config.text_config
    assert (vision.image_size, vision.num_attention_heads, plan.config.image_seq_length) == (336, 16, 576)
    # Llama 13B with its 32000 tokens, CLIP ViT-L/14@336's image tower, and the projector between them.
    count = sum(header.numel() for header in headers.values()) + 2 * 5120 * (32_000 - sizes.vocabulary)
    assert count == 13_015_864_320 + 303_507_456 + 31_467_520 and text.vocab_size % 64 == 0
    channels = encoder_channels(ras_task(read_configs(["paper/ras_13b.yaml"])))
    assert channels == {"clip": 1024, "convnext": 3072, "siglip": 1152, "dinov2": 1024, "position": 256}
    assert block_order(channels, None) == tuple(channels)
