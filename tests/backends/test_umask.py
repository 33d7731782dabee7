"""Every file that users get has the permissions that their umask asks for."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from maskselect.backends.checkpoints import change_card, write_checkpoint
from maskselect.reports.files import write_json
from maskselect.reports.records import RecordFile
from tests.recipes.test_proposals import pictures, propose


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o026)
    yield 0o026
    os.umask(before)


def test_checkpoints_reports_and_proposals_follow_the_umask(umask: int, tmp_path: Path) -> None:
    weights, out = tmp_path / "tiny.safetensors", tmp_path / "out"
    write_checkpoint(weights, {"weight": torch.zeros(2)}, {"system": "tiny"})
    change_card(weights, {"threshold": 0.5})
    write_json({"samples": 1}, tmp_path / "report.json")
    with RecordFile(tmp_path / "report.samples.jsonl", {"model": "tiny"}):
        pass
    propose(pictures(tmp_path / "in", 4), out)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {weights, weights.with_suffix(".json"), tmp_path / "report.json"} < set(files) and any(
        out.rglob("*.parquet")
    )
    wrong = {str(file.relative_to(tmp_path)): oct(stat.S_IMODE(file.stat().st_mode)) for file in files}
    assert {name: mode for name, mode in wrong.items() if mode != oct(0o666 & ~umask)} == {}
