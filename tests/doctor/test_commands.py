"""`maskselect doctor`, and what `lightning fit` refuses before it builds anything."""

from pathlib import Path
from typing import Any

import pytest

from maskselect import cli
from maskselect.doctor import devices
from maskselect.doctor.commands import foreign_lightning
from maskselect.training.cli import TrainingCLI, parse
from tests.doctor.machines import COMPACT, PAPER


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_count", lambda: 0)


def test_all_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["-c", "configs/ras.yaml", "--model.task.init_args.lmm.init_args.lora.r", "8", "--trainer.devices", "1"]
    options += ["--model.task.init_args.start", "ras"]
    assert cli.main(["doctor", *options]) == 0
    out = capsys.readouterr().out
    assert "Nothing is missing." in out and "memory, an estimate" in out
    assert "encoder conv" in out and "LoRA" in out and "mask projector" in out


def test_things_are_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", "-c", str(PAPER / "ras_13b.yaml"), "--ckpt_path", "gone.ckpt"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 70  # a screen for the parts, and one for what is missing
    out = " ".join(" ".join(line.replace("│", " ").split()) for line in lines)
    assert "hf download llava-hf/llava-1.5-13b-hf" in out and "language model 12.85 B" in out
    assert "gone.ckpt" in out and "comes by itself where there is a network" in out
    assert "maskselect data check NAME --root DIR" in out


def test_another_packages_lightning_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = "#!python\nimport sys\nfrom {} import main\nsys.exit(main())\n"
    assert foreign_lightning(tmp_path) is None
    (tmp_path / "lightning").write_text(script.format("maskselect.cli"))
    assert foreign_lightning(tmp_path) is None
    (tmp_path / "lightning").write_text(script.format("litserve.cli"))
    info = tmp_path / "litserve-0.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: litserve\nVersion: 0.2\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nlightning = litserve.cli:main\n")
    monkeypatch.syspath_prepend(tmp_path)
    sentence = foreign_lightning(tmp_path) or ""
    assert "that of litserve, not maskselect's; use `maskselect fit`" in sentence

    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert cli.main(["doctor", "-c", "configs/ras.yaml"]) == 0
    assert f"Beware: {sentence}." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-c", "configs/ras.yaml", "--model.task.init_args.stages", "3"], "stages"),
        (["-c", "configs/ras.yaml", "--data.init_args.batch_size", "many"], "batch_size"),
        (["-c", "configs/ras.yaml", "--data.init_args.train.init_args.reasoning", "1"], "reasoning"),
    ],
)
def test_a_bad_config_is_refused_as_fit_refuses_it(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["doctor", *arguments])
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["doctor", "fit"])
def test_an_absent_config_is_told(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "-c", "no/such.yaml"]) == 2
    assert "config no/such.yaml does not exist" in capsys.readouterr().err


def test_a_config_whose_classes_refuse_it(capsys: pytest.CaptureFixture[str]) -> None:
    heads = "--model.task.init_args.iou_head"
    assert (
        cli.main(["doctor", "-c", "configs/llmseg.yaml", heads, "false", "--model.task.init_args.iop_head=false"]) == 2
    )
    assert "LLM-Seg needs iou_head or iop_head" in capsys.readouterr().err


def test_no_config_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["doctor"])
    assert "-c" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        cli.main(["doctor", "--help"])
    assert "uses no network" in " ".join(capsys.readouterr().out.split())


class BuiltError(Exception):
    """Training would have begun."""


@pytest.fixture
def building(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(self: Any) -> None:
        raise BuiltError

    monkeypatch.setattr(TrainingCLI, "instantiate_classes", build)


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_training_tells_all_that_is_missing_in_one_screen(
    verb: str, building: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([verb, "-c", str(PAPER / "llmseg_7b.yaml")], prog="lightning") == 2
    told = capsys.readouterr().err.partition(f"lightning {verb}: error: ")[2]
    assert told.startswith("15 things are missing:\n")
    assert len(told.splitlines()) < 40
    for name in ("sam_vit_h_4b8939.pth", "dinov2", "weights/llm-seg/llava", "ade20k", "reasonseg", "accelerator gpu"):
        assert name in told
    assert not list(tmp_path.iterdir())  # nothing was written


@pytest.mark.parametrize("path", [p for p in COMPACT if p.stem in ("ras", "codetr")], ids=lambda path: path.stem)
def test_training_begins_where_nothing_is_missing(path: Path, building: None) -> None:
    with pytest.raises(BuiltError):
        cli.main(["fit", "-c", str(path)])


def test_training_begins_where_the_hub_has_the_rest(building: None, capsys: pytest.CaptureFixture[str]) -> None:
    lmm = ["--model.task.init_args.lmm.init_args.model", "llava-hf/llava-1.5-7b-hf"]
    with pytest.raises(BuiltError):
        cli.main(["fit", "-c", "configs/ras.yaml", *lmm])
    assert "llava-hf/llava-1.5-7b-hf, LLaVA: not here yet" in capsys.readouterr().err


def test_what_is_parsed_is_plain_and_whole() -> None:
    config = parse(["-c", "configs/ras.yaml", "-c", "configs/overlays/synthetic_candidates.yaml"])
    task = config["model"]["task"]["init_args"]
    assert task["image_tokens"] is False and task["lmm"]["class_path"] == "maskselect.lmm.llava.Llava"
    assert config["data"]["init_args"]["best_iou"] == 0.5 and config["trainer"]["max_steps"] == 3600
    assert isinstance(config["output"], str)
