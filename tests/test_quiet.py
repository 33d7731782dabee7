"""What commands print: nothing that nobody can act on, and tables that fit into 80 columns."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskselect import cli
from maskselect.data.catalog import EVERYTHING
from maskselect.data.check import CheckReport
from maskselect.metrics.protocols import RECALL
from maskselect.reports.compare import print_comparison
from maskselect.reports.data import print_catalog, print_check, print_composition, print_questions
from maskselect.reports.table import SHOWN, print_ceiling, print_report, print_thresholds

ROOT = Path(__file__).resolve().parents[1]

NOISE = (
    "Warning", "warn", "Tip", "litlogger", "litmodels", "Checkpoint directory", "eval mode", "treespec", "FLOPs",
    "not resumable", "weights_only", "TPU", "HPU", "many workers", "deprecated", "site-packages",
)  # fmt: skip

TWICE = """
import sys
from maskselect.cli import main
words = ["fit", "-c", "configs/ras.yaml", *sys.argv[1:]]
assert main([*words, "--trainer.max_steps", "1"]) == 0
assert main([*words, "--trainer.max_steps", "2", "--ckpt_path", "last"]) == 0
"""


def test_training_prints_its_progress_and_no_noise(tmp_path: Path) -> None:
    """Begun, and resumed into the same folder in the middle of an epoch."""
    images = "--data.init_args.{}.init_args.count"
    options = {
        "--output": tmp_path / "run", "--every": 1, "--data.init_args.cache_dir": tmp_path / "features",
        images.format("train"): 2, images.format("val"): 1, "--data.init_args.batch_size": 1,
        "--data.init_args.prompts_per_image": 2,
        "--trainer.val_check_interval": 1, "--trainer.num_sanity_val_steps": 0, "--trainer.accelerator": "cpu",
    }  # fmt: skip
    words = [str(word) for option in options.items() for word in option]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-c", TWICE, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = done.stdout + done.stderr
    assert [word for word in NOISE if word in told] == [], told
    assert "train/loss=" in told and "val/loss=" in told and "val/f1=" in told
    assert "parameters train on cpu" in told and f"2 steps done -> {tmp_path / 'run'}" in told


def report() -> None:
    """With the widest numbers there are."""
    metrics = {"samples": 19_200} | dict.fromkeys(SHOWN, 100.0)
    parts = {"overall": metrics, "w/o mask-ref": metrics, "relative position": metrics}
    latency = {"seconds_per_image": 123.456, "prompts_per_image": 12.34, "seconds_per_prompt": 12.3456}
    print_report(
        {
            "model": "ras", "dataset": "grefcoco", "split": "val", "metrics": parts, "by_kind": parts,
            "by_targets": {"2-5": metrics}, "candidates_per_image": 123.4, "latency": latency,
            "overlap": ["the model was trained on [some] of these " + "images " * 20],
        }
    )  # fmt: skip


def comparison() -> None:
    row = {
        "samples": 19_200,
        "images": 12_345,
        "difference": -12.34,
        "interval": [-12.34, 12.34],
        "beyond_chance": False,
    }
    few = {"samples": 1, "images": 1, "difference": -12.34, "interval": None, "beyond_chance": None}
    case = {"sample": "val-1234-56/7", "prompt": "the [b] ones " * 12, "targets": 12}
    changed = [case | {"iou": [0.123, 0.987], "chosen": [12, 34]}]
    found = {"differences": {"w/o mask-ref": row, "relative position": few}, "changed_most": changed}
    print_comparison(found, "first.json", "second.json")


def thresholds() -> None:
    names = ("F1", "gIoU", "cIoU", "N-acc", "T-acc")
    print_thresholds({step / 100: dict.fromkeys(names, 100.0) for step in range(5, 100, 5)}, 0.5)


def ceiling() -> None:
    names = ("oracle_gIoU", "oracle_cIoU", *RECALL, *(f"matched_{name}" for name in RECALL))
    print_ceiling({"images": 10, "samples": 30, "candidates_per_image": 9.5} | dict.fromkeys(names, 100.0), "sam on x")


def checked() -> None:
    reports = {split: CheckReport() for split in ("train", "validation")}
    for one in reports.values():
        one.images = one.samples = one.targets = one.no_target = one.with_references = 1_234_567
    print_check("refcoco", EVERYTHING["refcoco"], reports, True)


def built() -> None:
    print_composition([("RefCOCO/+/g", "relative position", True, 1_234_567, 1234)], {"prompts a": 1, "left out": 2})
    tally = {"wanted": 123_456, "found": 123_456, "taken": 123_456}
    print_questions(
        {
            "sampled": {"with many things": tally}, "published": {"images": {"with many things": 12_345}},
            "splits": {"validation": dict.fromkeys(("a", "b", "c", "d", "e"), 123_456)},
            "questions": {"replies": 1, "offered": 2, "kept": 1, "rejected": {"too long": 1}},
            "images": {"skipped": []},
        }
    )  # fmt: skip


PRINTERS: list[Callable[[], Any]] = [
    report, comparison, thresholds, ceiling, checked, built, lambda: print_catalog(EVERYTHING),
]  # fmt: skip


@pytest.mark.parametrize("show", PRINTERS, ids=["report", "compare", "calibrate", "recall", "check", "build", "list"])
@pytest.mark.parametrize("terminal", [False, True])
def test_tables_fit_into_80_columns(
    show: Callable[[], None], terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80" if terminal else "200")  # which counts for a terminal alone
    monkeypatch.setenv("TTY_COMPATIBLE", str(int(terminal)))
    monkeypatch.setenv("NO_COLOR", "1")
    show()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert len(lines) > 2 and "…" not in "".join(lines)
    assert [line for line in lines if len(line.rstrip()) > 80] == []


def test_the_doctors_tables_fit_into_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", "-c", str(ROOT / "configs" / "paper" / "ras_13b.yaml")]) == 1
    table, _, missing = capsys.readouterr().out.partition("memory, an estimate")
    assert [line for line in table.splitlines() if len(line.rstrip()) > 80] == []
    assert " hf download llava-hf/llava-1.5-13b-hf\n" in missing  # a command is never broken


def test_python_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maskselect", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: maskselect VERB")


@pytest.mark.parametrize("words", [["test", "-c", "configs/ras.yaml"], ["predict", "-c", "configs/ras.yaml"]])
def test_verbs_that_do_not_exist_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = cli.main(words, prog="maskselect")
    except SystemExit as stopped:
        status = int(str(stopped.code))
    told = capsys.readouterr().err
    assert status == 2 and told.count("\n") == 1 and "error: " in told
