"""A run with LoRA begins from full weights, and a full run from LoRA's: what comes out is the same at the start."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from maskselect import cli
from maskselect.backends.checkpoints import read_tensors, write_checkpoint
from maskselect.lmm.llava import Llava
from maskselect.lmm.lora import LoraSettings
from maskselect.systems.llmseg import LLMSeg
from maskselect.systems.ras import RAS
from tests.systems.tiny import SIZES, tiny_batch, tiny_llmseg, tiny_ras

LORA = LoraSettings(r=2, alpha=6, dropout=0.0, targets=["q_proj", "down_proj"])
System = RAS | LLMSeg
MAKES = pytest.mark.parametrize(
    "make", [tiny_ras, partial(tiny_llmseg, answering="teacher_forced")], ids=["ras", "llmseg"]
)


def built(make: Any, seed: int, **lmm: Any) -> Any:
    """A system whose weights are random, and others for another seed."""
    torch.manual_seed(seed)
    system = make(lmm=Llava(sizes=SIZES, **lmm))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in system.named_parameters():
            if not name.startswith("encoders."):
                parameter.add_(0.05 * torch.randn_like(parameter))  # adapters that change nothing would test nothing
    return system.eval()


def written(system: System, file: Path, lora: LoraSettings | None, system_name: str = "") -> str:
    lmm = {"class_path": "maskselect.lmm.llava.Llava", "init_args": {} if lora is None else {"lora": vars(lora)}}
    card = {"system": system_name or system.name, "config": {"init_args": {"lmm": lmm}}}
    write_checkpoint(file, system.learned_state(), card, stored=None)
    return str(file)


def outputs(system: Any) -> torch.Tensor:
    batch = tiny_batch(system)
    features = batch.candidate_features[0][batch.candidate_valid[0]]
    image = (torch.arange(40 * 40 * 3).reshape(40, 40, 3) % 251).to(torch.uint8).numpy()
    with torch.no_grad():
        return system.score_candidates(
            system.read_candidates(image, features), ["the red mugs", "stars"], [features[:0]] * 2, 0.5
        )[0]


def close(one: Any, two: Any) -> None:
    torch.testing.assert_close(outputs(one), outputs(two), atol=1e-5, rtol=1e-4)


@MAKES
def test_both_ways(make: Any, tmp_path: Path) -> None:
    full = built(make, 1)
    start = written(full, tmp_path / "full.safetensors", None)
    adapted = make(lmm=Llava(sizes=SIZES, lora=LORA), start=start).eval()
    close(adapted, full)
    trained = built(make, 2, lora=LORA)
    start = written(trained, tmp_path / "lora.safetensors", LORA)
    merged = make(lmm=Llava(sizes=SIZES), start=start).eval()
    close(merged, trained)
    assert not torch.allclose(outputs(merged), outputs(full), atol=1e-3)
    assert all(parameter.requires_grad for parameter in merged.lmm.language_model.parameters())
    again = make(lmm=Llava(sizes=SIZES, lora=LORA), start=start).eval()  # adapters go on as adapters
    assert {k for k in again.learned_state() if ".lora_" in k} == {k for k in read_tensors(start) if ".lora_" in k}
    close(again, trained)


@MAKES
def test_what_is_random_and_comes_from_no_file_is_in_the_checkpoint(make: Any, tmp_path: Path) -> None:
    """Otherwise the next one to load it would draw its own frozen weights below the adapters, or before them."""
    trained = built(make, 2, lora=LORA)
    file = written(trained, tmp_path / "lora.safetensors", LORA)
    other = built(make, 3, lora=LORA)
    other.load_learned(read_tensors(file), file)
    close(other, trained)


@MAKES
def test_adapters_alone_need_what_they_stood_on(make: Any, tmp_path: Path) -> None:
    torch.manual_seed(7)
    base = tmp_path / "base.safetensors"
    write_checkpoint(base, Llava(sizes=SIZES).model.state_dict(), {"system": "llava", "config": {}}, stored=None)
    trained = make(lmm=Llava(sizes=SIZES, base=str(base), lora=LORA))
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.1)
    start = written(trained.eval(), tmp_path / "lora.safetensors", LORA)
    assert not any("base_layer" in name for name in read_tensors(start))
    merged = make(lmm=Llava(sizes=SIZES, base=str(base)), start=start).eval()
    close(merged, trained)
    with pytest.raises(ValueError, match=r"lora\.safetensors holds adapters \(LoRA\) without the language model"):
        make(lmm=Llava(sizes=SIZES), start=start)
    with pytest.raises(ValueError, match=r"does not fit|without the language model|has another"):
        make(lmm=Llava(sizes=SIZES, lora=LORA), start=start)  # its frozen weights would be random


def test_a_language_model_is_taken_out_of_a_run_with_lora(tmp_path: Path) -> None:
    trained = built(tiny_ras, 2, lora=LORA)
    file = written(trained, tmp_path / "lora.safetensors", LORA)
    taken, ids = Llava(sizes=SIZES, base=file).eval(), torch.arange(5, 11)[None]
    with torch.no_grad():
        wanted = trained.lmm.hidden(trained.lmm.embed(ids))
        torch.testing.assert_close(taken.hidden(taken.embed(ids)), wanted, atol=1e-5, rtol=1e-4)


def test_a_card_without_the_settings_of_its_adapters_is_refused(tmp_path: Path) -> None:
    file = written(built(tiny_ras, 2, lora=LORA), tmp_path / "lora.safetensors", None)
    with pytest.raises(ValueError, match="has no `lora`"):
        tiny_ras(start=file)


LORA_OPTIONS = ("--model.task.init_args.lmm.init_args.lora.r", "8")
START = "--model.task.init_args.start"


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ("ras", {"lmm": {"init_args": {"lora": {"r": 8}}}}),
        ("ras", {"scorer": "decoder"}),
        ("ras_stage1", {"lmm": {"init_args": {"start": None}}}),
        ("llmseg", {"lmm": {"init_args": {"base": None}}}),
    ],
)
def test_a_frozen_random_language_model_is_refused(
    config: str, task: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"model": {"task": {"init_args": task}}}))
    files = ["-c", f"configs/{config}.yaml", "-c", str(overlay)]
    assert cli.main(["doctor", *files]) == 1
    assert "weights of the language model," in " ".join(capsys.readouterr().out.split())
    assert cli.main(["fit", *files]) == 2
    told = capsys.readouterr().err
    assert "weights of the language model, which" in told and "--model.task.init_args.start NAME" in told
    assert "Traceback" not in told


def test_lora_on_the_shipped_weights_lacks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "-c", "configs/ras.yaml", *LORA_OPTIONS, START, "ras", "--trainer.devices", "1"]) == 0


@pytest.mark.parametrize("verb", ["validate"])
@pytest.mark.parametrize("config", ["ras", "llmseg", "sam", "llava"])
def test_random_weights_are_not_scored(verb: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "-c", f"configs/{config}.yaml"], prog="lightning") == 2
    told = capsys.readouterr().err
    assert (
        told.startswith(f"lightning {verb}: error: lightning {verb} would score random weights")
        and "--ckpt_path" in told
    )
    assert (START in told) == (config in ("ras", "llmseg"))
