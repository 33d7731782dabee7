"""What of the hub is on this machine: folders, the cache, and the files that each library asks for."""

import json
from pathlib import Path

import pytest

from maskselect.backends.hub_cache import (
    TOKENIZER,
    cached,
    files_of,
    open_clip_weights,
    safe_first,
    timm_weights,
    transformers_model,
)
from tests.doctor.machines import put_into_cache, write_index

ID = "llava-hf/llava-1.5-7b-hf"
DINO = "vit_large_patch14_dinov2.lvd142m"


def lacking(model: str) -> list[str]:
    return [need.what for need in transformers_model(model, "LLaVA", ID, TOKENIZER)]


def test_a_model_that_is_nowhere_comes_by_itself(alone: Path) -> None:
    (need,) = transformers_model(ID, "LLaVA", ID, TOKENIZER)
    assert (need.kind, need.what, need.help) == ("weights", f"{ID}, LLaVA", f"hf download {ID}")
    assert need.fetched


def test_a_model_is_whole_in_the_cache_only_with_all_its_shards(alone: Path) -> None:
    snapshot = put_into_cache(alone, ID, "config.json", "tokenizer.json", "one.safetensors")
    write_index(snapshot, "one.safetensors", "two.safetensors", "three.safetensors")
    assert lacking(ID) == [f"{ID}, LLaVA: lacks three.safetensors and 1 more"]
    put_into_cache(alone, ID, "two.safetensors", "three.safetensors")
    assert lacking(ID) == []


def test_weights_may_be_one_file_or_pickled(alone: Path) -> None:
    put_into_cache(alone, ID, "config.json", "tokenizer.model")
    assert lacking(ID) == [f"{ID}, LLaVA: lacks model.safetensors"]
    put_into_cache(alone, ID, "pytorch_model.bin")
    assert lacking(ID) == []


def test_a_damaged_index_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / "tokenizer.json").touch()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps([1]))
    assert lacking(str(tmp_path)) == [f"{tmp_path}, LLaVA: lacks a readable model.safetensors.index.json"]


def test_a_folder_must_be_whole_and_nothing_is_fetched_into_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    (need,) = transformers_model(str(tmp_path), "LLaVA", ID, TOKENIZER)
    assert need.what == f"{tmp_path}, LLaVA: lacks model.safetensors and 1 more"
    assert need.help == f"hf download {ID} --local-dir {tmp_path}"
    assert not need.fetched
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "vocab.json").touch()
    assert lacking(str(tmp_path)) == []
    assert files_of(str(tmp_path))("model.safetensors") == tmp_path / "model.safetensors"


def test_weights_by_another_name_and_adapters_are_left_to_transformers(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").touch()
    (tmp_path / "config.json").write_text(json.dumps({"transformers_weights": "own.safetensors"}))
    assert lacking(str(tmp_path)) == [f"{tmp_path}, LLaVA: lacks model.safetensors"]
    (tmp_path / "own.safetensors").touch()
    assert lacking(str(tmp_path)) == []
    (tmp_path / "own.safetensors").unlink()
    (tmp_path / "adapter_config.json").touch()
    assert lacking(str(tmp_path)) == []


def test_a_folder_that_is_not_there_is_named_with_what_could_fill_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (need,) = transformers_model("weights/llava/seven", "LLaVA", ID)
    assert need.help == f"hf download {ID} --local-dir weights/llava/seven" and not need.fetched
    (tmp_path / "weights").mkdir()
    (need,) = transformers_model("weights/llava", "LLaVA", ID)  # may be an id all the same
    assert need.help == f"hf download {ID} --local-dir weights/llava" and need.fetched


def test_no_id_is_not_looked_up(alone: Path) -> None:
    assert cached("a/b/c", "config.json") is None


def test_timm_is_asked_for_what_it_would_fetch(alone: Path) -> None:
    (need,) = timm_weights(DINO)
    assert need.help == f"hf download timm/{DINO} model.safetensors" and need.fetched
    put_into_cache(alone, f"timm/{DINO}", "pytorch_model.bin")
    assert timm_weights(DINO) == []
    assert timm_weights("no_such_model_at_all") == []  # the encoder says so
    with pytest.raises(ValueError, match="nobody"):
        timm_weights("resnet18.nobody")


def test_open_clip_is_asked_for_what_it_would_fetch(alone: Path, tmp_path: Path) -> None:
    (need,) = open_clip_weights("convnext_xxlarge", "laion2b_s34b_b82k_augreg_soup")
    repository = "laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg-soup"
    assert need.help == f"hf download {repository} open_clip_model.safetensors" and need.fetched
    put_into_cache(alone, repository, "open_clip_pytorch_model.bin")
    assert open_clip_weights("convnext_xxlarge", "laion2b_s34b_b82k_augreg_soup") == []
    (tmp_path / "own.pt").touch()
    assert open_clip_weights("convnext_xxlarge", str(tmp_path / "own.pt")) == []
    with pytest.raises(ValueError, match=r"nobody.*it has laion2b"):
        open_clip_weights("convnext_xxlarge", "nobody")


def test_safe_files_come_first() -> None:
    assert safe_first("pytorch_model.bin") == ["model.safetensors", "pytorch_model.bin"]
    assert safe_first("other.bin") == ["other.safetensors", "other.bin"]
    assert safe_first("weights.npz") == ["weights.npz"]
