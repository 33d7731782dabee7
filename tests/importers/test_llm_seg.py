"""The importer of LLM-Seg's releases, on a file with the true names: answers, tensors, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from torch import Tensor
from transformers import AutoTokenizer

import maskselect
from maskselect import cli
from maskselect.backends.configs import read_configs
from maskselect.encoders.position import SinusoidEncoder
from maskselect.importers.llm_seg import MADE, base_config, expected_shapes, import_llm_seg
from maskselect.importers.llm_seg_names import LLAVA, LLM_SEG
from maskselect.structures.sample import Overlaps
from maskselect.systems.llmseg import LLMSeg
from maskselect.systems.loading import load_system
from tests.importers import release
from tests.importers.llm_seg_reference import Reference
from tests.importers.release import PUBLISHED, M, P, Sizes
from tests.lmm.twin import LIGHTNING_SYSTEM
from tests.systems.tiny import tiny_batch

ALPHA, HEADS = 4, 2
PAPER = Path("configs/paper/llmseg_7b.yaml")
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
MASKS = torch.zeros(5, 40, 60, dtype=torch.bool)
BOXES = ((0, 40, 0, 30), (0, 9, 44, 60), (33, 40, 2, 5), (5, 31, 7, 55), (18, 19, 40, 41))
for number, (top, bottom, left, right) in enumerate(BOXES):
    MASKS[number, top:bottom, left:right] = True


def task_config() -> dict[str, Any]:
    """As configs/paper/llmseg_7b.yaml, tiny."""
    regions = {"class_path": "maskselect.proposers.regions.RegionProposer"}
    position = {
        "class_path": "maskselect.encoders.position.SinusoidEncoder",
        "init_args": {"grid": 8, "frequencies": 3},
    }
    encoders = {"framing": "corner", "mask_resize": "fine", "geometry": False, "encoders": [position]}
    lmm = {
        "model": "weights/somewhere",
        "lora": {"r": 2, "alpha": ALPHA, "dropout": 0.05, "targets": ["q_proj", "v_proj"]},
        "system_prompt": LIGHTNING_SYSTEM,
        "crop_image": True,
        "frame_image": True,
        "dtype": "float32",
    }
    arguments = {
        "width": 16,
        "heads": HEADS,
        "mlp_dim": 24,
        "depth": 2,
        "references": False,
        "answering": "teacher_forced",
        "start": "of a training run",
        "proposer": regions,
        "encoders": {"class_path": "maskselect.encoders.ensemble.EncoderEnsemble", "init_args": encoders},
        "lmm": {"class_path": "maskselect.lmm.llava.Llava", "init_args": lmm},
    }
    trained_on = {"dataset": "refcoco", "root": "data/refcoco", "split": "train"}
    source = {"class_path": "maskselect.data.groups.DatasetGroups", "init_args": trained_on}
    data = {"class_path": "maskselect.training.data.GroupsData", "init_args": {"train": source}}
    return {"model": {"task": {"class_path": "maskselect.systems.llmseg.LLMSeg", "init_args": arguments}}, "data": data}


class Made:
    """A release on disk, its base LLaVA, and a config."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "base"
        self.base.mkdir()
        self.sizes = Sizes(vocabulary=release.base_llava(self.base, Sizes()))
        self.tensors = release.tensors(self.sizes)
        self.source = release.write(folder / "source", self.tensors)
        self.config = folder / "llmseg.yaml"
        self.config.write_text(yaml.safe_dump(task_config()))

    def run(self, destination: Path, **changed: Any) -> Any:
        given = {"source": self.source, "tokenizer": self.base, "configs": [self.config]} | changed
        return import_llm_seg(destination=destination, **given)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("llmseg"))


@pytest.fixture(scope="module")
def imported(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported") / "llm-seg"
    made.run(folder, shard="60KB")
    return folder


def stored(folder: Path) -> dict[str, Tensor]:
    """All tensors of an imported folder by the importer's own names."""
    out: dict[str, Tensor] = {}
    for path in [*folder.glob("llava/*.safetensors"), folder / "llmseg.safetensors"]:
        prefix = LLAVA if path.parent.name == "llava" else ""
        with safe_open(path, "pt") as file:
            out |= {prefix + name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return out


def test_every_tensor_comes_back(made: Made, imported: Path) -> None:
    found = stored(imported)
    made_here = {LLAVA + name for name in MADE}
    back: dict[str, Tensor] = {}
    for name, tensor in found.items():
        if name in made_here:
            continue
        foreign = LLM_SEG.foreign(name)
        assert foreign not in back or torch.equal(back[foreign], tensor)  # embeddings are in both
        back[foreign] = tensor
    for foreign, tensor in back.items():
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, made.tensors[foreign]), foreign
    left = made.tensors.keys() - back.keys()
    assert left == {name for name in made.tensors if LLM_SEG.reason(name)}
    assert all("visual_model" in name or "inv_freq" in name or "position_ids" in name for name in left)
    second, bias = (found[LLAVA + name] for name in MADE)
    assert torch.equal(second.float(), torch.eye(32)) and not bias.any()


def test_weights_come_in_shards_and_the_card_tells_where_from(made: Made, imported: Path) -> None:
    assert len(list((imported / "llava").glob("model-*-of-*.safetensors"))) > 2
    assert all(path.stat().st_size < 100_000 for path in (imported / "llava").glob("model-*.safetensors"))
    card = json.loads((imported / "llmseg.json").read_text())
    assert card["system"] == "llmseg" and card["threshold"] == 0.5 and card["source"] == str(made.source)
    assert card["data"] == task_config()["data"]
    assert "start" not in card["config"]["init_args"]
    assert card["config"]["init_args"]["lmm"]["init_args"]["model"] == "{beside}/llava"
    dropped = card["imported"]["dropped"]
    assert dropped == {
        "a computed table": made.sizes.layers + 1,
        "Segment Anything, from its file": 3,
        "DINOv2, from its file": 5,
    }
    assert card["imported"]["matched"] + sum(dropped.values()) == len(made.tensors)


def test_tokens_stand_where_the_release_put_them(made: Made, imported: Path) -> None:
    words = AutoTokenizer.from_pretrained(imported / "llava")
    assert len(words) == made.sizes.vocabulary
    names = ["<im_patch>", "[SEG]", "<im_start>", "<im_end>"]
    assert words.convert_tokens_to_ids(names) == list(range(len(words) - 4, len(words)))
    pieces = words.convert_ids_to_tokens(words("it is [SEG].", add_special_tokens=False)["input_ids"])
    assert pieces == ["▁i", "t", "▁is", "[SEG]", "▁", "."]
    assert words.decode([words.convert_tokens_to_ids("<im_start>")], skip_special_tokens=True) == ""


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("the Mug", "What is the mug in this image? Please output segmentation mask."),
        ("What holds tea?", "What holds tea? Please output segmentation mask."),
    ],
)
def test_answers_are_the_release_s(made: Made, imported: Path, prompt: str, question: str) -> None:
    model = maskselect.load(imported, device="cpu")
    system = model.system
    assert isinstance(system, LLMSeg)
    reference = Reference(made.tensors, made.sizes, HEADS, ALPHA)
    ids = reference.ids(system.lmm.tokenizer, question)
    wanted = reference.hidden(ids, IMAGE)
    image_map = SinusoidEncoder(grid=8, frequencies=3).table
    similarity, iop = reference.judge(wanted, reference.mask_features(image_map, MASKS))

    pooled = system.pool_features(system.encode(IMAGE), MASKS)
    read = system.read_candidates(IMAGE, pooled)
    none = [torch.zeros(0, system.channels)]
    torch.testing.assert_close(system.answers(read, [prompt], none).states[0], wanted, atol=1e-4, rtol=1e-3)
    # A threshold in the middle of the widest gap: which side a score is on does not hang on its last digits.
    ordered = iop.sort().values
    below = int(ordered.diff().argmax())
    threshold = float(ordered[below : below + 2].mean())
    scores, chosen = system.score_candidates(read, [prompt], none, threshold)
    torch.testing.assert_close(scores[0], iop, atol=1e-4, rtol=1e-4)
    assert torch.equal(chosen[0], iop > threshold) and 0 < int(chosen.sum()) < len(iop)
    system.strategy = "top_iou"
    torch.testing.assert_close(
        system.score_candidates(read, [prompt], none, 0.5)[0][0], (similarity + 1) / 2, atol=1e-4, rtol=0
    )
    assert float(iop.std()) > 1e-2 and float(similarity.std()) > 1e-2  # the masks are told apart


def test_the_sequence_read_is_the_release_s(made: Made, imported: Path) -> None:
    system, _ = load_system(imported)
    assert isinstance(system, LLMSeg)
    asked = "What is the mug in this image? Please output segmentation mask."
    prefix = system.reader.prefix([], made.sizes.grid**2)
    prompt = system.reader.prompt(asked, len(prefix))
    images = [n for n, kind in enumerate(prefix.kinds) if kind == 2]
    values = [*prefix.values[: images[0]], -200, *prefix.values[images[-1] + 1 :], *prompt.values]
    reference = Reference(made.tensors, made.sizes, HEADS, ALPHA)
    assert len(images) == 4 and values == reference.ids(system.lmm.tokenizer, asked)


def test_an_imported_folder_may_be_moved_trained_on_and_asked(made: Made, imported: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    made.run(moved)
    assert (moved / "llava" / "model.safetensors").is_file()  # one file where it fits
    further = tmp_path / "further"
    moved.rename(further)
    first, second = (load_system(folder)[0] for folder in (imported, further))
    assert isinstance(first, LLMSeg) and isinstance(second, LLMSeg)
    for name, tensor in first.learned_state().items():
        assert torch.equal(tensor, second.learned_state()[name]), name
    trained = {name for name, p in second.named_parameters() if p.requires_grad}
    assert trained == set(second.learned_state())
    again = LLMSeg(second.proposer, second.encoders, second.lmm, 16, 2, 24, 2, references=False, start=str(further))
    assert torch.equal(again.mask_conv.weight, second.mask_conv.weight)
    group = maskselect.load(further, device="cpu").select(IMAGE, "the mug")
    assert group.candidates > 0 and group.mask.shape == (40, 60)


def test_an_import_with_narrow_frozen_weights_answers_much_the_same_and_trains(made: Made, tmp_path: Path) -> None:
    """As the paper config reads it: what is frozen in bfloat16, what trains in float32."""
    config = task_config()
    config["model"]["task"]["init_args"]["lmm"]["init_args"]["dtype"] = "bfloat16"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    made.run(tmp_path / "out", configs=[tmp_path / "config.yaml"])
    system, _ = load_system(tmp_path / "out")
    assert isinstance(system, LLMSeg)
    frozen = {p.dtype for n, p in system.lmm.named_parameters() if not p.requires_grad and "projector" not in n}
    assert frozen == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in system.parameters() if p.requires_grad)
    reference = Reference(made.tensors, made.sizes, HEADS, ALPHA)
    question = "What is the mug in this image? Please output segmentation mask."
    hidden = reference.hidden(reference.ids(system.lmm.tokenizer, question), IMAGE)
    _, iop = reference.judge(hidden, reference.mask_features(SinusoidEncoder(grid=8, frequencies=3).table, MASKS))
    system.eval()
    read = system.read_candidates(IMAGE, system.pool_features(system.encode(IMAGE), MASKS))
    scores, _ = system.score_candidates(read, ["the mug"], [torch.zeros(0, system.channels)], 0.5)
    torch.testing.assert_close(scores[0], iop, atol=5e-2, rtol=0)
    system.train()
    batch = tiny_batch(system, images=1)
    texts = ["stars", "What holds tea?"]
    overlaps = Overlaps(*(tensor[:, : len(texts)] for tensor in vars(batch.overlaps).values()))
    none = [[batch.candidate_features[0, :0]] * len(texts)]
    losses = system.loss(replace(batch, prompts=[texts], reference_features=none, overlaps=overlaps))
    losses["loss"].backward()
    for name, parameter in system.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad or "fusion" in name, name


Change = Callable[[dict[str, Tensor]], None]


def _drop(name: str) -> Change:
    return lambda tensors: tensors.__delitem__(name)


def _rename(name: str, other: str) -> Change:
    return lambda tensors: tensors.update({other: tensors.pop(name)})


def _cut(name: str) -> Change:
    return lambda tensors: tensors.update({name: tensors[name][:-1]})


FUSION = M + "lisa_attention_layers.1.cross_attn_image_to_token.k_proj.bias"
LORA = M + "layers.1.self_attn.v_proj.lora_B.default.weight"


QUERY = M + "layers.0.self_attn.q_proj."


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_drop(FUSION), [f"1 missing, 0 reshaped; missing: {FUSION}"]),
        (_drop(LORA), [f"missing: {LORA}"]),
        (_drop(M + "layers.1.mlp.up_proj.weight"), [f"missing: {M}layers.1.mlp.up_proj.weight"]),
        (_drop(P + "lm_head.weight"), [f"1 missing, 0 reshaped; missing: {P}lm_head.weight"]),
        (_drop(M + "embed_tokens.weight"), [f"{M}embed_tokens.weight is missing"]),
        (_drop(release.TOWER + "encoder.layers.0.mlp.fc1.weight"), ["1 missing", "encoder.layers.0.mlp.fc1.weight"]),
        (_rename(FUSION, FUSION + "es"), [f"unknown: {FUSION}es", f"missing: {FUSION}"]),
        (_rename(LORA, LORA.replace("layers.1", "layers.7")), ["unknown: ", "layers.7", f"missing: {LORA}"]),
        (_rename(M + "mm_projector.bias", M + "mm_projector.0.bias"), [f"missing: {M}mm_projector.bias"]),
        (_cut(M + "lisa_iou_head.0.weight"), [f"0 missing, 1 reshaped; reshaped: {M}lisa_iou_head.0.weight is 7 x 16"]),
        (_cut(M + "lisa_dino_conv.weight"), ["lisa_dino_conv.weight is 15 x 12 x 1 x 1, expected 16 x 12 x 1 x 1"]),
        (_cut(P + "lm_head.weight"), ["1 reshaped", "lm_head.weight"]),
        (_cut(M + "layers.0.self_attn.k_proj.weight"), ["k_proj.weight is 31 x 32, expected 32 x 32"]),
        (_cut(M + "embed_tokens.weight"), ["lm_head.weight"]),
        (lambda tensors: tensors.update({"something.else": torch.ones(1)}), ["1 unknown", "something.else"]),
        (
            lambda tensors: tensors.update({f"{QUERY}base_layer.weight": tensors[f"{QUERY}weight"].clone()}),
            [f"0 reshaped, 1 doubled; doubled: {QUERY}weight and {QUERY}base_layer.weight are two names for one"],
        ),
    ],
)
def test_one_tensor_that_is_not_as_it_should_be_is_named(
    made: Made, tmp_path: Path, change: Change, told: list[str]
) -> None:
    tensors = dict(made.tensors)
    change(tensors)
    source = release.write(tmp_path / "source", tensors)
    with pytest.raises(ValueError) as caught:
        made.run(tmp_path / "out", source=source)
    assert all(part in str(caught.value) for part in told), str(caught.value)
    assert "\n" not in str(caught.value) and str(source) in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_later_names_of_layers_under_lora_are_known(made: Made, tmp_path: Path) -> None:
    tensors = {
        name.replace("_proj.weight", "_proj.base_layer.weight") if f".{x}_proj.weight" in name else name: tensor
        for name, tensor in made.tensors.items()
        for x in ("q" if ".q_proj" in name else "v",)
    }
    assert any("base_layer" in name and name.startswith(M + "layers") for name in tensors)
    tensors = {
        name.replace(".base_layer", "") if "vision_tower" in name or "lisa_" in name else name: tensor
        for name, tensor in tensors.items()
    }
    report = made.run(tmp_path / "out", source=release.write(tmp_path / "source", tensors))
    assert len(report.matched) + len(report.dropped) == len(made.tensors)
    name = LLAVA + "model.language_model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(stored(tmp_path / "out")[name], made.tensors[M + "layers.0.self_attn.q_proj.weight"])


@pytest.mark.parametrize("place", ["", "ckpt_model", "ckpt_model/global_step5000", "the file"])
def test_a_checkpoint_is_found_wherever_one_points(made: Made, tmp_path: Path, place: str) -> None:
    within = "ckpt_model/global_step5000/mp_rank_00_model_states.pt" if place == "the file" else place
    report = made.run(tmp_path / "out", source=made.source / within)
    assert not report.unknown and not report.missing
    assert (tmp_path / "out" / "llmseg.safetensors").is_file()


class Runs:
    """Would run code when unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


def _break(made: Made, folder: Path, how: str) -> dict[str, Any]:
    """Something wrong with what is imported: the arguments that are not as they should be."""
    source, base, config = folder / "source", folder / "base", folder / "config.yaml"
    states = source / "mp_rank_00_model_states.pt"
    for path in (source, base):
        path.mkdir()
    for path in made.base.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    task = task_config()
    arguments = task["model"]["task"]["init_args"]
    match how:
        case "no source":
            return {"source": folder / "gone"}
        case "empty source":
            return {"source": source}
        case "latest points nowhere":
            (source / "latest").write_text("global_step7\n")
            return {"source": source}
        case "truncated":
            whole = (made.source / "ckpt_model/global_step5000/mp_rank_00_model_states.pt").read_bytes()
            states.write_bytes(whole[: len(whole) // 2])
            return {"source": source}
        case "flipped":
            whole = bytearray((made.source / "ckpt_model/global_step5000/mp_rank_00_model_states.pt").read_bytes())
            whole[len(whole) // 2] ^= 255
            states.write_bytes(whole)
            return {"source": source}
        case "code":
            torch.save({"module": {"a": torch.ones(1)}, "client": Runs()}, states)
            return {"source": source}
        case "no module":
            torch.save({"state_dict": {"a": torch.ones(1)}}, states)
            return {"source": source}
        case "no tokenizer":
            (base / "tokenizer.json").unlink()
            return {"tokenizer": base}
        case "a tokenizer.model that cannot be read":
            (base / "tokenizer.json").rename(base / "tokenizer.model")
            return {"tokenizer": base}
        case "damaged tokenizer":
            (base / "tokenizer.json").write_text("{")
            return {"tokenizer": base}
        case "another tokenizer":
            words = AutoTokenizer.from_pretrained(base)
            words.add_tokens(["one more"])
            words.save_pretrained(base)
            return {"tokenizer": base}
        case "tokenizer with another [SEG]":
            words = AutoTokenizer.from_pretrained(base)
            words.add_tokens(["[SEG]"])
            words.save_pretrained(base)
            return {"tokenizer": base}
        case "no base config":
            (base / "config.json").unlink()
            return {"tokenizer": base}
        case "damaged base config":
            (base / "config.json").write_text("[]")
            return {"tokenizer": base}
        case "base config of fewer layers":
            text = (base / "config.json").read_text()
            (base / "config.json").write_text(text.replace('"num_hidden_layers": 2', '"num_hidden_layers": 1'))
            return {"tokenizer": base}
        case "base config without heads":
            text = (base / "config.json").read_text()
            (base / "config.json").write_text(text.replace('"num_attention_heads": 4, ', ""))
            return {"tokenizer": base}
        case "no config":
            return {"configs": [folder / "gone.yaml"]}
        case "config of another system":
            task["model"]["task"]["class_path"] = "maskselect.systems.ras.RAS"
        case "config with references":
            arguments["references"] = True
        case "config without lora":
            del arguments["lmm"]["init_args"]["lora"]
        case "config without a task":
            del task["model"]
        case "config of another width":
            arguments["width"] = 32
    config.write_text(yaml.safe_dump(task))
    return {"configs": [config]}


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("no source", "does not exist"),
        ("empty source", "holds no DeepSpeed checkpoint; expected `latest`"),
        ("latest points nowhere", "global_step7/mp_rank_00_model_states.pt is missing"),
        ("truncated", "truncated or not a plain weights file"),
        ("flipped", "truncated or not a plain weights file"),
        ("code", "truncated or not a plain weights file"),
        ("no module", "has no weights under 'module'"),
        ("no tokenizer", "holds no tokenizer.model or tokenizer.json"),
        ("a tokenizer.model that cannot be read", "a tokenizer.model needs: make setup EXTRAS=import"),
        ("damaged tokenizer", "cannot be read"),
        ("another tokenizer", "expected the tokenizer of the LLaVA"),
        ("tokenizer with another [SEG]", "strips the space"),
        ("no base config", "config.json is missing"),
        ("damaged base config", "holds no settings by name"),
        ("base config of fewer layers", "unknown: base_model.model.model.layers.1."),
        ("base config without heads", "num_attention_heads None"),
        ("no config", "gone.yaml does not exist"),
        ("config of another system", "expected maskselect.systems.llmseg.LLMSeg"),
        ("config with references", "has reader.mask_tokenizer.pre, which the release does not have"),
        ("config without lora", "q_proj.weight, which the release does not have"),
        ("config without a task", "no model.task"),
        ("config of another width", "reshaped"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("maskselect.importers.llava_folder.find_spec", lambda name: None)  # as without sentencepiece
    wrong = _break(made, tmp_path, how)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        made.run(tmp_path / "to" / "out", **wrong)
    assert told in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "to").exists() and not Path("ran").exists()


@pytest.mark.parametrize(
    ("foreign", "own"),
    [
        (M + "lisa_iou_head.0.weight", "iop_head.layers.0.weight"),
        (M + "layers.0.mlp.up_proj.weight", "model.language_model.layers.0.mlp.up_proj.weight"),
    ],
)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensor: torch.full_like(tensor, torch.nan), "holds values that are not finite"),
        (lambda tensor: torch.full_like(tensor, torch.inf), "holds values that are not finite"),
        (lambda tensor: tensor.to(torch.int64), "is int64; expected a dense one of floating point"),
        (lambda tensor: tensor.to(torch.complex64), "is complex64; expected a dense one of floating point"),
        (lambda tensor: tensor.float().to_sparse(), "is sparse_coo of float32; expected a dense one of floating point"),
    ],
)
def test_what_cannot_be_computed_with_is_refused(
    made: Made, tmp_path: Path, foreign: str, own: str, change: Callable[[Tensor], Tensor], told: str
) -> None:
    source = release.write(tmp_path / "source", made.tensors | {foreign: change(made.tensors[foreign])})
    with pytest.raises(ValueError) as caught:
        made.run(tmp_path / "out", source=source)
    assert f"tensor {own} {told}" in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_what_is_there_is_not_overwritten(made: Made, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    with pytest.raises(ValueError, match="is there already"):
        made.run(tmp_path)
    with pytest.raises(ValueError, match="is there already"):
        made.run(tmp_path / "kept")
    (tmp_path / "empty").mkdir()
    made.run(tmp_path / "empty")
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "empty"}


def test_a_failure_while_writing_leaves_nothing(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr("maskselect.importers.llm_seg.checkpoints.write_checkpoint", full)
    with pytest.raises(OSError, match="No space left"):
        made.run(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["import", "llm-seg", str(made.source), str(tmp_path / "out"), "--tokenizer", str(made.base)]
    assert cli.main([*arguments, "-c", str(made.config)]) == 0
    told = capsys.readouterr().out
    assert "tensors taken" in told and "3: Segment Anything, from its file" in told
    assert (tmp_path / "out" / "llmseg.safetensors").is_file()
    assert cli.main([*arguments, "-c", str(made.config)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is there already" in error


def test_overlays_tell_what_a_release_was_trained_on(made: Made, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    source = {"class_path": "maskselect.scenes.groups.SceneGroups", "init_args": {"count": 3}}
    overlay.write_text(yaml.safe_dump({"model": {"lr": 1e-5}, "data": {"init_args": {"train": source}}}))
    merged = read_configs([made.config, overlay])
    assert merged["model"]["task"] == task_config()["model"]["task"] and merged["model"]["lr"] == 1e-5
    assert merged["data"]["init_args"] == {"train": source}
    overlay.write_text(yaml.safe_dump({"data": {"init_args": {"train": {"init_args": {"split": "val"}}}}}))
    kept = read_configs([made.config, overlay])["data"]["init_args"]["train"]["init_args"]
    assert kept == {"dataset": "refcoco", "root": "data/refcoco", "split": "val"}


def test_the_paper_config_fits_a_release_of_the_published_size(tmp_path: Path) -> None:
    """The whole account at true shapes, on the meta device: nothing of that size is ever made."""
    release.base_llava(tmp_path, PUBLISHED)
    base = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(base | {"mm_vision_tower": "openai/clip-vit-large-patch14"}))
    tensors = {name: torch.empty(shape, device="meta") for name, shape in release.shapes(PUBLISHED).items()}
    config = base_config(tmp_path, tensors, tmp_path)
    assert config.vision_config.image_size == 224 and config.vision_config.num_attention_heads == 16
    expected = expected_shapes(config, read_configs([PAPER])["model"]["task"])
    names, report = LLM_SEG.account(tensors, expected)
    report.check("the published sizes", "LLM-Seg")
    assert len(report.matched) + len(report.dropped) == len(tensors)
    trained = {name: torch.Size(expected[name]).numel() for name in names if not name.startswith(LLAVA)}

    def count(*parts: str) -> int:
        return sum(number for name, number in trained.items() if any(part in name for part in parts))

    assert count("fusion.", "mask_conv.", "iou_head.", "iop_head.") == 5_294_849
    assert count("text_projection.") == 17_830_144
    assert count("lora_") == 4_194_304
    assert count("embed_tokens") == count("lm_head") == 131_088_384
    assert sum(trained.values()) == 5_294_849 + 17_830_144 + 4_194_304 + 2 * 131_088_384
