"""Data sets by name, and the walk that says whether a copy is whole."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect import cli
from maskselect.data.catalog import CATALOG, EVERYTHING, find_any, find_entry
from maskselect.data.check import DAMAGED, EMPTY, MISSING, OTHER_SIZE, check
from maskselect.metrics.protocols import PROTOCOLS
from maskselect.metrics.video_protocols import VIDEO_PROTOCOLS
from maskselect.structures.sample import Prompt, Sample
from tests.data import test_llava, test_video


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_entry_opens_its_reader_and_says_what_is_missing(tmp_path: Path, name: str) -> None:
    entry = EVERYTHING[name]
    for split in entry.splits:
        with pytest.raises(FileNotFoundError, match=str(tmp_path)):
            entry.open(tmp_path, split)
    with pytest.raises(FileNotFoundError, match="looked for"):
        entry.open_splits(tmp_path)
    assert entry.protocol in (PROTOCOLS if name in CATALOG else {**VIDEO_PROTOCOLS, "": None, "semantic": None})
    assert set(entry.samples) | set(entry.about) <= set(entry.splits) and entry.page.startswith("https://")


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="unknown dataset 'x'; expected one of own, maskgroups, "):
        find_entry("x")
    with pytest.raises(ValueError, match=r"unknown dataset 'x'; expected one of own, .*, mevis, llava"):
        find_any("x")
    with pytest.raises(ValueError, match="unknown dataset 'revos'"):
        find_entry("revos")  # it cannot be evaluated as images


class StubReader:
    """One sample for each kind of trouble, and two good ones."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "a.png"
        Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(self.image)
        full, none = torch.ones(1, 4, 5).bool(), torch.zeros(1, 4, 5).bool()
        self.rows: list[Any] = [
            self._sample("good", full, (0,), references=1),
            self._sample("no target", full, ()),
            self._sample("empty", none, (0,)),
            self._sample("size", torch.ones(1, 5, 4).bool(), (0,)),
            FileNotFoundError("image 'b.png' is nowhere"),
            ValueError("sample 7 has an RLE of another size"),
        ]

    def _sample(self, name: str, pool: torch.Tensor, targets: tuple[int, ...], references: int = 0) -> Sample:
        prompt = Prompt("x" + " <mask-ref>" * references, pool[:references])
        return Sample(self.image, "a", name, prompt, pool, targets)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Any:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Sample:
        if isinstance(self.rows[number], Exception):
            raise self.rows[number]
        return self.rows[number]

    def image_ids(self) -> list[str]:
        return ["a", "a", "a", "a", "b", "a"]


def test_videos_are_walked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = test_video.revos(tmp_path / "good")
    assert cli.main(["data", "check", "revos", "--root", str(root), "--split", "valid"]) == 0
    capsys.readouterr()
    report = check(find_any("revos").open(root, "valid"))
    assert (report.samples, report.images, report.targets, report.no_target) == (3, 1, 3, 1)
    nothing = np.zeros_like(test_video.FIRST)
    masks = {"70": test_video.codes(nothing), "71": test_video.codes(nothing)[:1]}
    root = test_video.revos(tmp_path / "bad", masks)
    report = check(find_any("revos").open(root, "valid"))
    assert report.problems == {EMPTY: 1, DAMAGED: 1}
    assert cli.main(["data", "check", "revos", "--root", str(root), "--split", "valid"]) == 1
    assert "none of 3 frames" in capsys.readouterr().out


def test_conversations_are_walked_too(tmp_path: Path) -> None:
    root = test_llava.write(tmp_path, "llava_v1_5_mix665k.json", test_llava.TALKS)
    (root / "vg/VG_100K/b.jpg").unlink()
    report = check(find_any("llava").open(root, "mix-665k"))
    assert (report.samples, report.images) == (2, 1) and report.problems == {MISSING: 1}


def test_a_walk_counts_and_goes_on(tmp_path: Path) -> None:
    report = check(StubReader(tmp_path))
    assert (report.samples, report.images, report.targets) == (6, 2, 3)
    assert (report.no_target, report.with_references) == (1, 1)
    assert report.problems == {EMPTY: 1, OTHER_SIZE: 1, MISSING: 1, DAMAGED: 1}
    assert report.examples[DAMAGED] == ["sample 7 has an RLE of another size"]
    assert json.loads(json.dumps(report.as_json()))["problems"][MISSING] == 1
    assert check(StubReader(tmp_path), limit=2).problems == {}


def test_the_command(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["check", "refcoco", "--root", str(shared_data / "refcoco_mini"), "--output", str(tmp_path / "r.json")]
    assert cli.tool("data", asked, "maskselect data") == 0
    out = capsys.readouterr().out
    assert "val: 36 samples, 10834 were published" in out and "testB" in out
    found = json.loads((tmp_path / "r.json").read_text())
    assert {split: (r["images"], r["samples"], r["problems"]) for split, r in found.items()} == {
        "val": (4, 36, {}), "testA": (1, 12, {}), "testB": (4, 26, {}),
    }  # fmt: skip


def test_the_command_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.tool("data", ["check", "x", "--root", str(tmp_path)], "p") == 2
    assert "unknown dataset 'x'" in capsys.readouterr().err
    assert cli.tool("data", ["check", "muse", "--root", str(tmp_path), "--split", "val"], "p") == 2
    assert "looked for muse_val.json" in capsys.readouterr().err
    folder = tmp_path / "val"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps({"text": ["what?"], "shapes": []}))
    assert cli.tool("data", ["check", "reasonseg", "--root", str(tmp_path)], "p") == 1
    assert f"{MISSING}: 1" in capsys.readouterr().out
    assert cli.tool("data", ["list"], "p") == 0
    out = capsys.readouterr().out
    assert [name for name in EVERYTHING if name not in out] == []
