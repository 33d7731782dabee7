"""`maskselect doctor --models`: sizes and FLOPs against transformers' own counts, before any download."""

from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText, AutoProcessor

from maskselect import cli
from maskselect.doctor import devices, public_models
from maskselect.doctor.public_models import WORKING, cost_of
from maskselect.systems import named_models
from tests.systems.tiny_public import write_qwen2_vl, write_sam2, write_siglip

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_count", lambda: 0)
    monkeypatch.setattr(public_models, "cuda_count", lambda: 0)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("photos-fast", (31_440_721, 375_187_970)),
        ("photos-small", (31_440_721, 375_187_970, 2_208_985_600)),
    ],
)
def test_memory_is_that_of_the_published_numbers_of_parameters(name: str, parameters: tuple[int, ...]) -> None:
    """google/siglip2-base-patch16-224 has 375 M, Qwen/Qwen2-VL-2B-Instruct 2,208,985,600 (their pages on the hub)."""
    cost = cost_of(named_models.read(name), CPU)
    assert (cost.parts, cost.here) == (len(parameters), 0)
    assert cost.memory == 4 * sum(parameters) + WORKING
    assert list(cost.picture) == list(cost.prompt) == [torch.float32]
    on_gpu = cost_of(named_models.read(name), CUDA)
    halves = parameters[2:]
    assert on_gpu.memory == 4 * sum(parameters[:2]) + 2 * sum(halves) + WORKING
    assert on_gpu.download == cost.download == on_gpu.memory - WORKING  # files are in half precision


def test_flops_of_a_question_are_those_that_transformers_runs(tmp_path: Path) -> None:
    """Of the whole chat, without a shared prefix; the language model's part, up to attention over padding."""
    folder = write_qwen2_vl(tmp_path)
    lmm = public_models._language_model(public_models.Node("maskselect.lmm.qwen_vl.QwenVl", {"model": str(folder)}))
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    ids = processor.tokenizer("the red mug " * 40, return_tensors="pt")["input_ids"]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.model.language_model(input_ids=ids)
    whole = public_models._decoder(lmm, ids.shape[1], 0)
    assert whole == pytest.approx(counter.get_total_flops(), rel=0.35)  # causal pairs are counted once, not twice
    first = public_models._decoder(lmm, 30, 0)
    assert first + public_models._decoder(lmm, ids.shape[1] - 30, 30) == pytest.approx(whole)


def test_the_table_says_what_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(public_models, "device_room", lambda trainer: devices.Room("a toy", 8 * 10**9))
    monkeypatch.setattr(public_models, "rates", lambda device, dtypes: dict.fromkeys(dtypes, 1e12))
    assert cli.main(["doctor", "--models"]) == 1
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line.startswith("photos-")}
    assert [(name, row[1], row[6]) for name, row in rows.items()] == [
        ("photos-base", "0/3", "no"), ("photos-fast", "0/2", "yes"), ("photos-small", "0/3", "no"),
    ]  # fmt: skip
    assert rows["photos-fast"][-4:-2] == ["5.8", "5.8"]  # at 1 TFLOP/s
    assert "a toy: 8.0 GB" in lines[-2] and all(len(line) <= 80 for line in lines[:-2])
    assert cli.main(["doctor", "--models", "photos-fast"]) == 0
    with pytest.raises(SystemExit, match="2"):
        cli.main(["doctor", "--models", "-c", "configs/ras.yaml"])
    assert cli.main(["doctor", "--models", "photos"]) == 2


def test_parts_of_this_machine_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load((named_models.FOLDER / "photos-small.yaml").read_text())
    arguments = config["system"]["init_args"]
    for key, write in (("proposer", write_sam2), ("similarity", write_siglip), ("lmm", write_qwen2_vl)):
        (tmp_path / key).mkdir()
        arguments[key]["init_args"]["model"] = str(write(tmp_path / key))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    cost = cost_of(named_models.read(path), CPU)
    assert (cost.parts, cost.here, cost.download) == (3, 3, 0) and cost.memory < WORKING + 10**7
    arguments["similarity"]["init_args"]["model"] = "hf://org/unknown"
    path.write_text(yaml.safe_dump(config))
    assert cli.main(["doctor", "--models", str(path)]) == 2
    assert "the sizes of hf://org/unknown are not known before its download" in capsys.readouterr().err
