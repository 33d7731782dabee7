"""What an evaluation leaves on disk: samples that a later run goes on from, a page, a comparison."""

import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskselect import cli
from maskselect.cli import loading
from maskselect.data.scenes.samples import ask_scenes
from maskselect.evaluation import build_report, measure_ceiling, score_samples
from maskselect.reports import charts
from maskselect.reports.cases import CaseKeeper
from maskselect.reports.page import draw_page
from maskselect.reports.records import RecordFile, in_order, read_records, records_path
from maskselect.structures.masks import MaskSet
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.sample import Sample
from maskselect.structures.scored import Scored


class Halves:
    """Candidates: the left and the right half; answers with the left one, and with nothing every third time."""

    fingerprint = "halves"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def propose(self, image: np.ndarray) -> MaskSet:
        masks = torch.zeros(2, *image.shape[:2], dtype=torch.bool)
        masks[0, :, : image.shape[1] // 2] = masks[1, :, image.shape[1] // 2 :] = True
        return MaskSet(masks, torch.tensor([0.9, 0.2]), "halves")

    candidates = propose

    def select_many(self, image: np.ndarray, prompts: list[str], references: Any = None, **_: Any) -> list[MaskGroup]:
        groups = []
        for prompt in prompts:
            self.asked.append(prompt)
            count = 0 if len(self.asked) % 3 == 0 else 1
            pool = self.candidates(image)
            masks, scores = pool.masks[:count].numpy(), pool.scores[:count].numpy()
            none = np.zeros((0, *image.shape[:2]), bool)
            groups.append(MaskGroup(image, prompt, masks, scores, 2, 0.5, none, pool.scores.numpy()))
        return groups


def _samples(scenes: int = 3) -> Iterator[Sample]:
    return (sample for scene in ask_scenes("val", 4, scenes) for sample in scene.samples())


@pytest.fixture
def scored() -> tuple[list[Scored], CaseKeeper]:
    keeper = CaseKeeper(each=2)
    return list(score_samples(Halves(), _samples(), watch=keeper.watch)), keeper


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_model", lambda options: model)
    words = [
        "--model",
        "x",
        "--dataset",
        "scenes",
        "--split",
        "val",
        "--seed",
        "4",
        "--output",
        str(tmp_path / "r.json"),
    ]
    model = Halves()
    assert cli.tool("evaluate", [*words, "--scenes", "2"]) == 0
    first = read_records(tmp_path / "r.json")
    model = Halves()
    assert cli.tool("evaluate", [*words, "--scenes", "4"]) == 0
    assert len(model.asked) == 6  # two scenes of three were there
    assert read_records(tmp_path / "r.json")[:6] == first
    assert json.loads((tmp_path / "r.json").read_text())["samples"] == 12
    model = Halves()
    assert cli.tool("evaluate", [*words, "--scenes", "2"]) == 0
    assert model.asked == [] and json.loads((tmp_path / "r.json").read_text())["samples"] == 6
    other = Halves()
    other.fingerprint = "other weights"
    model = other
    assert cli.tool("evaluate", [*words, "--scenes", "2"]) == 0
    assert len(model.asked) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"r.json", "r.html", "r.samples.jsonl", "r.cases.json"}


def test_several_data_sets_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> None:
    monkeypatch.setattr(loading, "load_model", lambda options: Halves())
    own = Path(__file__).parents[2] / "examples" / "own"
    root = tmp_path / "data"
    for source, target in ((shared_data / "refcoco_mini" / "refcoco", "refcoco"), (own / "images", "images")):
        shutil.copytree(source, root / target, copy_function=shutil.copyfile)
    shutil.copytree(shared_data / "refcoco_mini" / "images" / "train2014", root / "images" / "train2014")
    shutil.copyfile(own / "val.json", root / "val.json")
    words = ["--model", "x", "--dataset", "refcoco", "own", "--split", "val", "--limit", "4", "--root", str(root)]
    assert cli.tool("evaluate", [*words, "--output", str(tmp_path / "r.json")]) == 0
    found = {name: json.loads((tmp_path / f"r-{name}.json").read_text()) for name in ("refcoco", "own")}
    assert {name: (r["samples"], r["protocol"]["name"]) for name, r in found.items()} == {
        "refcoco": (4, "lisa"), "own": (4, "maskselect"),
    }  # fmt: skip
    assert cli.tool("evaluate", [*words, "--protocol", "x", "--output", str(tmp_path / "s.json")]) == 2


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path, scored: tuple[list[Scored], CaseKeeper]) -> None:
    rows, _ = scored
    path = records_path(tmp_path / "r.json")
    with RecordFile(path, {"model": "a"}) as records:
        for row in rows[:3]:
            records.add(row)
    path.write_text(path.read_text()[:-20])
    assert RecordFile(path, {"model": "a"}).rows == rows[:2]
    assert RecordFile(path, {"model": "b"}).rows == []
    with pytest.raises(RuntimeError, match="not open"):
        RecordFile(path, {"model": "a"}).add(rows[0])


def test_records_that_are_not_there(tmp_path: Path, scored: tuple[list[Scored], CaseKeeper]) -> None:
    with pytest.raises(FileNotFoundError, match=r"r\.samples\.jsonl is not there"):
        read_records(tmp_path / "r.json")
    (tmp_path / "r.samples.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(ValueError, match="does not begin with a key"):
        read_records(tmp_path / "r.json")
    with pytest.raises(ValueError, match="no sample in common"):
        in_order(scored[0], [])


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.images += [values["src"] or ""] if tag == "img" else []
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_beside_it(scored: tuple[list[Scored], CaseKeeper]) -> None:
    rows, keeper = scored
    rows[0] = Scored.from_json({**rows[0].as_json(), "prompt": "<script>alert(1)</script>"})
    report = build_report(rows, "maskgroups", "validation", "halves", False, "maskselect")
    page = draw_page(report, rows, keeper.cases(), "tools/evaluate.py --model halves")
    reader = _Reader()
    reader.feed(page)
    assert reader.open == [] and reader.images and all(link.startswith("data:") for link in reader.links)
    assert "<script>" not in page and "RAS-13B" in page and "tools/evaluate.py --model halves" in page
    nothing = (
        sum(row.no_target and not row.chosen for row in rows),
        sum(row.no_target and row.chosen > 0 for row in rows),
    )
    assert f"<td>nothing answers</td><td>{nothing[0]}</td><td>{nothing[1]}</td>" in page


def test_the_most_telling_cases_are_kept(scored: tuple[list[Scored], CaseKeeper], tmp_path: Path) -> None:
    rows, keeper = scored
    cases = keeper.cases()
    best = sorted((row.iou for row in rows if not row.no_target), reverse=True)
    assert [case.row.iou for case in cases["best"]] == best[:2]
    assert [case.row.iou for case in cases["worst"]] == sorted(best)[:2]
    assert all(case.row.iou < 0.1 and case.row.chosen for case in cases["surest and wrong"])
    keeper.save(tmp_path / "c.json")
    again = CaseKeeper(each=2)
    again.load(tmp_path / "c.json")
    assert again.cases() == cases
    (tmp_path / "c.json").write_text('{"best": [[1]]}')
    with pytest.raises(ValueError, match=r"c\.json is damaged"):
        again.load(tmp_path / "c.json")


def test_charts_count() -> None:
    svg = charts.histogram([0.0, 0.01, 0.5, 1.0], "t", bins=2)
    assert "0.00 to 0.50: 2" in svg and "0.50 to 1.00: 2" in svg
    svg = charts.reliability([0.1] * 10 + [0.9] * 4, [True, False] * 5 + [True] * 4, "t")
    assert "right 0.50, 10 candidates" in svg and "4 candidates" not in svg


def test_scores_of_candidates_are_kept(scored: tuple[list[Scored], CaseKeeper]) -> None:
    rows, _ = scored
    assert all(row.scores == (0.9, 0.2) and len(row.right) == 2 for row in rows)
    assert all(row.targets == 0 or 0 < row.target_share < 1 for row in rows)


def test_the_ceiling_is_the_oracle_of_an_evaluation(scored: tuple[list[Scored], CaseKeeper]) -> None:
    report = build_report(scored[0], "scenes", "val", "halves", False, "maskselect")["metrics"]["overall"]
    found = measure_ceiling(Halves(), _samples())
    assert found["oracle_gIoU"] == report["oracle_gIoU"] and found["oracle_cIoU"] == report["oracle_cIoU"]
    assert found["images"] == 3 and found["candidates_per_image"] == 2.0 and found["recall@0.5"] == 0.0
    with pytest.raises(ValueError, match="no sample"):
        measure_ceiling(Halves(), [])


def test_compare_two_runs(
    tmp_path: Path, scored: tuple[list[Scored], CaseKeeper], capsys: pytest.CaptureFixture[str]
) -> None:
    rows, _ = scored
    better = [Scored.from_json({**row.as_json(), "iou": min(1.0, row.iou + 0.5)}) for row in rows]
    for name, some in (("a", rows), ("b", better)):
        with RecordFile(records_path(tmp_path / f"{name}.json"), {"model": name}) as records:
            for row in some:
                records.add(row)
    words = [str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--cases", "2", "--output", str(tmp_path / "c.json")]
    assert cli.tool("compare", words, "p") == 0
    assert "changed most" in capsys.readouterr().out
    found = json.loads((tmp_path / "c.json").read_text())
    mean = 100 * np.mean([b.iou - a.iou for a, b in zip(rows, better, strict=True)])
    assert found["differences"]["overall"]["difference"] == pytest.approx(mean, abs=0.01)
    assert len(found["changed_most"]) == 2 and found["samples"] == len(rows)
