"""LLaVA in original naming: what comes out computes what the source's tensors do, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, LlamaTokenizer, LlavaConfig

from maskselect import cli
from maskselect.importers.hub_folder import HubWeights
from maskselect.importers.llava import ADDED, import_llava
from maskselect.importers.llava_names import ORIGINAL
from maskselect.lmm.llava import Llava
from tests.importers import original_llava
from tests.importers.original_llava import TOWER, Original
from tests.importers.release import Sizes
from tests.lmm.twin import VICUNA_SYSTEM

SIDE = Sizes.grid * Sizes.patch


class Made:
    """A LLaVA on disk in original naming, in three pickled shards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "original"
        self.sizes = Sizes(vocabulary=original_llava.base(self.folder, Sizes()))
        self.tensors = original_llava.tensors(self.sizes)
        original_llava.write(self.folder, self.tensors)

    def again(self, folder: Path, tensors: dict[str, Tensor] | None = None, **form: Any) -> Path:
        """Another folder of the same, perhaps with other tensors or of another form."""
        original_llava.base(folder, self.sizes)
        return original_llava.write(folder, self.tensors if tensors is None else tensors, **form)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def imported(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported") / "llava"
    import_llava(made.folder, folder, shard="60KB")
    return folder


def check_forward(lmm: Llava, original: Original, rows: int) -> None:
    """Text, image and text again, through hidden states to logits."""
    image = torch.randint(256, (1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(3)) / 255
    before, after = lmm.token_ids(VICUNA_SYSTEM, begin=True), lmm.token_ids("what is that?")
    wanted = torch.cat([original.embedded(before), original.image(image), original.embedded(after)])
    with torch.no_grad():
        tokens = lmm.project_image(lmm.vision_features(image))[0]
        found = torch.cat([lmm.embed(torch.tensor(before)), tokens, lmm.embed(torch.tensor(after))])
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
        hidden = lmm.hidden(found[None])[0]
        torch.testing.assert_close(hidden, original.hidden(wanted), atol=1e-4, rtol=1e-3)
        logits = lmm.token_logits(hidden)
        torch.testing.assert_close(
            logits[:, :rows], hidden @ original.tensors["lm_head.weight"].T, atol=1e-4, rtol=1e-3
        )
        assert logits.argmax(-1).max() < rows


def test_an_imported_llava_computes_what_its_source_does(made: Made, imported: Path) -> None:
    lmm = Llava(model=str(imported), dtype="float32").eval()
    check_forward(lmm, Original(made.tensors, made.sizes), made.sizes.vocabulary)
    assert len(list(imported.glob("model-*-of-*.safetensors"))) > 2


def test_every_tensor_comes_back_with_its_dtype_and_the_vocabulary_is_filled_up(made: Made, imported: Path) -> None:
    found = HubWeights(imported, "LLaVA", "llava-hf/llava-1.5-13b-hf")
    rows = made.sizes.vocabulary
    assert {ORIGINAL.foreign(name) for name in found} == made.tensors.keys()
    for name, tensor in found.items():
        source = made.tensors[ORIGINAL.foreign(name)]
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor[: len(source)], source), name
        assert len(tensor) == (-(-(rows + 2) // 64) * 64 if len(source) == rows else len(source))
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        mean = found[name][:rows].float().mean(0)
        torch.testing.assert_close(
            found[name][rows:].float(), mean.expand(len(found[name]) - rows, -1), atol=1e-2, rtol=0
        )
    config = LlavaConfig.from_pretrained(imported)
    assert config.image_token_index == rows and config.text_config.vocab_size == len(found["lm_head.weight"])
    assert config.image_seq_length == 4 and config.vision_feature_layer == -2 and config.dtype == torch.bfloat16


def test_the_vocabulary_of_llava_1_5_is_that_of_llava_hf(tmp_path: Path) -> None:
    """32000 tokens become 32064, with <image> 32000 and <pad> 32001."""
    sizes = Sizes(vocabulary=32_000, layers=1)
    source = tmp_path / "source"
    original_llava.base(source, sizes, vocab_size=32_000)
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a"]
    words = LlamaTokenizer(vocab={piece: n for n, piece in enumerate(pieces + [f"▁w{n}" for n in range(31_739)])})
    words.save_pretrained(source)
    original_llava.write(source, original_llava.tensors(sizes), "safetensors", 2)
    import_llava(source, tmp_path / "out")
    words, config = AutoTokenizer.from_pretrained(tmp_path / "out"), LlavaConfig.from_pretrained(tmp_path / "out")
    assert words.convert_tokens_to_ids(list(ADDED)) == [32_000, 32_001] and words.pad_token == "<pad>"
    assert (config.image_token_index, config.text_config.vocab_size) == (32_000, 32_064)
    headers = HubWeights(tmp_path / "out", "LLaVA", "x/y").headers
    assert len(headers["lm_head.weight"]) == len(headers["model.language_model.embed_tokens.weight"]) == 32_064
    # A tokenizer that has both already, as llava-hf's, takes the place of a tokenizer.model that cannot be read.
    (source / "tokenizer.json").unlink()
    import_llava(source, tmp_path / "again", tokenizer=tmp_path / "out")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "again")) == 32_002


@pytest.mark.parametrize(("form", "shards"), [("safetensors", 2), ("safetensors", 1), ("bin", 1), ("legacy", 3)])
def test_all_forms_of_the_hub_give_the_same(made: Made, imported: Path, tmp_path: Path, form: str, shards: int) -> None:
    source = made.again(tmp_path / "source", form=form, shards=shards)
    (source / "mm_projector.bin").write_bytes(b"a copy that the hub has beside it")
    import_llava(source, tmp_path / "out")
    first, second = (HubWeights(folder, "LLaVA", "x/y") for folder in (imported, tmp_path / "out"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tables_and_a_tower_without_a_level_are_known(made: Made, imported: Path, tmp_path: Path) -> None:
    tensors = {name.replace(".vision_model.", "."): tensor for name, tensor in made.tensors.items()}
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    tensors["model.vision_tower.vision_tower.embeddings.position_ids"] = torch.arange(5)[None]
    report = import_llava(made.again(tmp_path / "source", tensors), tmp_path / "out")
    assert report.reasons() == {"a computed table": 2} and len(report.matched) == len(made.tensors)
    first, second = (HubWeights(folder, "LLaVA", "x/y") for folder in (imported, tmp_path / "out"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole CLIP, of image and text, as OpenAI's is on the hub."""
    sizes, folder = Sizes(), tmp_path_factory.mktemp("clip")
    vision = {
        "hidden_size": sizes.vision,
        "intermediate_size": sizes.vision_ffn,
        "num_hidden_layers": sizes.vision_layers,
        "num_attention_heads": 1,
        "image_size": SIDE,
        "patch_size": sizes.patch,
    }
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
    text |= {"bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(5)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    return folder


def without_tower(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if "vision_tower" not in name}


def test_a_missing_vision_tower_comes_from_clip(made: Made, clip: Path, tmp_path: Path) -> None:
    source = made.again(tmp_path / "source", without_tower(made.tensors))
    import_llava(source, tmp_path / "out", tower=str(clip))
    stored = HubWeights(tmp_path / "out", "LLaVA", "x/y")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    model = CLIPModel.from_pretrained(clip).vision_model
    tower = {name.removeprefix("vision_model."): t.bfloat16() for name, t in model.state_dict().items()}
    for name, tensor in tower.items():
        if "position_ids" not in name:
            assert torch.equal(stored[f"model.vision_tower.{name}"], tensor), name
    lmm = Llava(model=str(tmp_path / "out"), dtype="float32").eval()
    check_forward(lmm, Original(made.tensors, made.sizes, tower), made.sizes.vocabulary)


@pytest.mark.parametrize("model_type", ["llava", "llava_llama"])
def test_original_naming_is_refused_where_it_would_become_random(made: Made, tmp_path: Path, model_type: str) -> None:
    original_llava.base(tmp_path, made.sizes, model_type=model_type)
    original_llava.write(tmp_path, made.tensors)
    with pytest.raises(ValueError, match=f"maskselect import llava {tmp_path} DST"):
        Llava(model=str(tmp_path))


def test_original_naming_on_the_hub_is_refused_with_both_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"model_type": "llava", "mm_vision_tower": "openai/clip-vit-large-patch14-336"}
    monkeypatch.setattr("maskselect.lmm.loading.PreTrainedConfig.get_config_dict", lambda model: (config, {}))
    told = "hf download liuhaotian/llava-v1.5-7b --local-dir SRC; maskselect import llava SRC DST"
    with pytest.raises(ValueError, match=told):
        Llava(model="liuhaotian/llava-v1.5-7b")


def test_missing_weights_are_refused_where_they_would_become_random(imported: Path, tmp_path: Path) -> None:
    for path in imported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    del index["weight_map"]["model.language_model.layers.1.mlp.up_proj.weight"]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"LLaVA .* lacks \d+ tensors that its config asks for: model.language_model"):
        Llava(model=str(tmp_path))


def _break(made: Made, folder: Path, how: str) -> dict[str, Any]:
    """Something wrong with what is imported: the arguments that are not as they should be."""
    source = folder / "source"
    if how == "no source":
        return {"source": source}
    tensors = dict(made.tensors)
    match how:
        case "no tower":
            tensors = without_tower(tensors)
        case "no embeddings":
            del tensors["model.embed_tokens.weight"]
        case "a layer too few":
            del tensors["model.layers.1.mlp.up_proj.weight"]
        case "a tower with a hole":
            del tensors[TOWER + "encoder.layers.0.mlp.fc1.weight"]
        case "a newline of LLaVA-1.6":
            tensors["model.image_newline"] = torch.zeros(made.sizes.width)
        case "two names for one":
            tensors[TOWER.replace("vision_model.", "") + "pre_layrnorm.bias"] = torch.zeros(made.sizes.vision)
        case "an output layer of other rows":
            tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1].clone()
    made.again(source, tensors)
    shard, index = source / "pytorch_model-00002-of-00003.bin", source / "pytorch_model.bin.index.json"
    told = json.loads(index.read_text())
    config = json.loads((source / "config.json").read_text())
    match how:
        case "truncated shard":
            shard.write_bytes(shard.read_bytes()[:-500])
        case "flipped shard":
            content = bytearray(shard.read_bytes())
            content[len(content) // 2] ^= 255
            shard.write_bytes(content)
        case "shard that runs code":
            torch.save({"a": torch.ones(1), "b": Runs()}, shard)
        case "shard of no tensors":
            torch.save({"a": 1}, shard)
        case "missing shard":
            shard.unlink()
        case "index that leads elsewhere":
            told["weight_map"] = dict.fromkeys(told["weight_map"], "../pytorch_model.bin")
        case "index without a map":
            told = {"metadata": {}}
        case "no index":
            index.unlink()
            return {"source": source}
        case "no config":
            (source / "config.json").unlink()
        case "config of transformers":
            config = {name: value for name, value in config.items() if not name.startswith("mm_")}
            config["mm"] = None
        case "linear projector":
            config["mm_projector_type"] = "linear"
        case "stretched positions":
            config["rope_scaling"] = {"type": "linear", "factor": 2.0}
        case "another tower":
            config["mm_vision_tower"] = "google/siglip-so400m-patch14-384"
        case "another vocabulary":
            config["vocab_size"] += 1
        case "no width":
            config["hidden_size"] = "large"
        case "no tokenizer":
            (source / "tokenizer.json").unlink()
        case "another tokenizer":
            words = LlamaTokenizer.from_pretrained(source)
            words.add_tokens(["one more"])
            words.save_pretrained(source)
        case "no tower, and no CLIP where one is named":
            return {"source": made.again(folder / "blind", without_tower(tensors)), "tower": str(folder / "gone")}
    index.write_text(json.dumps(told))
    if how != "no config":
        (source / "config.json").write_text(json.dumps(config))
    return {"source": source}


class Runs:
    """Would run code when unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("no source", "does not exist; expected a LLaVA in original naming (get it with: hf download liuhaotian/llava"),
        ("no tower", "holds no vision tower; expected the CLIP that it was trained with, '"),
        ("no tower, and no CLIP where one is named", "CLIP vision tower"),
        ("no embeddings", "model.embed_tokens.weight is missing"),
        ("a layer too few", "1 missing, 0 reshaped; missing: model.layers.1.mlp.up_proj.weight"),
        ("a tower with a hole", f"missing: {TOWER}encoder.layers.0.mlp.fc1.weight"),
        ("a newline of LLaVA-1.6", "1 unknown, 0 missing, 0 reshaped; unknown: model.image_newline"),
        ("two names for one", "two names for one tensor"),
        ("an output layer of other rows", "reshaped: lm_head.weight is "),
        ("truncated shard", "pytorch_model-00002-of-00003.bin is truncated or not a plain weights file"),
        ("flipped shard", "pytorch_model-00002-of-00003.bin is truncated or not a plain weights file"),
        ("shard that runs code", "pytorch_model-00002-of-00003.bin is truncated or not a plain weights file"),
        ("shard of no tensors", "pytorch_model-00002-of-00003.bin holds no state dict"),
        ("missing shard", "names pytorch_model-00002-of-00003.bin, which is not there"),
        ("index that leads elsewhere", "which is no file beside it"),
        ("index without a map", "has no weight_map"),
        ("no index", "holds no weights of a LLaVA in original naming"),
        ("no config", "config.json is missing"),
        ("config of transformers", "has no mm_* settings"),
        ("linear projector", "has mm_projector_type 'linear'; only 'mlp2x_gelu' can be imported"),
        ("stretched positions", "has rope_scaling"),
        ("another tower", "only CLIP can be imported"),
        ("another vocabulary", "rows"),
        ("no width", "has hidden_size 'large'; expected a whole number"),
        ("no tokenizer", "holds no tokenizer.model or tokenizer.json"),
        ("another tokenizer", "expected the tokenizer that it was trained with"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    wrong = _break(made, tmp_path, how)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        import_llava(destination=tmp_path / "to" / "out", **wrong)
    assert told in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "to").exists() and not Path("ran").exists()


def test_a_damaged_safetensors_shard_is_named(made: Made, tmp_path: Path) -> None:
    source = made.again(tmp_path / "source", form="safetensors", shards=2)
    shard = source / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors is truncated or not a safetensors file"):
        import_llava(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_while_writing_leaves_nothing(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr("maskselect.importers.llava.write_tokenizer", full)
    with pytest.raises(OSError, match="No space left"):
        import_llava(made.folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", "llava", str(made.folder), str(tmp_path / "out")]) == 0
    assert f"{len(made.tensors)} tensors taken, 0 left behind" in capsys.readouterr().out
    assert cli.main(["import", "llava", str(made.folder), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is there already" in error
