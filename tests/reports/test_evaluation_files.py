"""What an evaluation leaves on disk: samples that a later run goes on from, a page, a comparison."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskselect import cli
from maskselect.cli import loading
from maskselect.evaluation.samples import build_report, measure_ceiling, score_samples
from maskselect.reports import charts
from maskselect.reports.cases import CaseKeeper
from maskselect.reports.compare import compare, print_comparison
from maskselect.reports.page import draw_page
from maskselect.reports.published import PUBLISHED, lacking
from maskselect.reports.records import RecordFile, in_order, read_records, records_path
from maskselect.scenes.samples import ask_scenes
from maskselect.structures.facts import ModelFacts
from maskselect.structures.masks import MaskSet
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.sample import Sample
from maskselect.structures.scored import Scored
from tests.broken_images import write_own


class Halves:
    """Candidates: the left and the right half; answers with the left one, and with nothing every third time."""

    fingerprint = "halves"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def facts(self) -> ModelFacts:
        return ModelFacts(fingerprint=self.fingerprint)

    def cache_key(self) -> str:
        return "halves"

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
            groups.append(MaskGroup(image, prompt, masks, scores, 2, 0.5, none, pool.scores.numpy(), pool=pool))
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
    assert cli.tool("evaluate", [*words, "--scenes", "2", "--overwrite"]) == 0
    assert len(model.asked) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"r.json", "r.html", "r.samples.jsonl", "r.cases.json"}


def test_the_report_of_another_model_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Halves(), Halves()
    second.fingerprint = "other weights"
    models = {"a": first, "b": second, "copy-of-a": first}
    monkeypatch.setattr(loading, "load_model", lambda options: models[options.model])
    output = tmp_path / "r.json"

    def evaluate(model: str, *more: str) -> int:
        words = ["--model", model, "--dataset", "scenes", "--split", "val", "--seed", "4", "--scenes", "2"]
        return cli.tool("evaluate", [*words, "--output", str(output), *more], "p")

    assert evaluate("a") == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert evaluate("b") == 2
    told = capsys.readouterr().err
    assert f"{output} holds the evaluation of other weights (a)" in told and "--overwrite" in told
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before and second.asked == []
    assert evaluate("copy-of-a") == 0  # the same weights by another name go on
    output.unlink()  # interrupted before the report: the samples are another model's all the same
    assert evaluate("b") == 2 and (tmp_path / "r.samples.jsonl").read_bytes() == before["r.samples.jsonl"]
    (tmp_path / "r.samples.jsonl").unlink()
    output.write_bytes(before["r.json"])  # without samples the name decides
    assert evaluate("b") == 2 and "the report of another model, a" in capsys.readouterr().err
    assert evaluate("a") == 0
    output.write_text('{"mine": 1}')
    assert evaluate("a") == 2 and output.read_text() == '{"mine": 1}'
    assert evaluate("b", "--overwrite") == 0 and json.loads(output.read_text())["model"] == "b"


def test_samples_of_an_older_rule_are_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Halves()
    monkeypatch.setattr(loading, "load_model", lambda options: model)
    words = ["--model", "x", "--dataset", "scenes", "--split", "val", "--scenes", "1", "--output"]
    words.append(str(tmp_path / "r.json"))
    assert cli.tool("evaluate", words) == cli.tool("evaluate", words) == 0
    assert len(model.asked) == 3
    monkeypatch.setattr("maskselect.metrics.referring.RULES_VERSION", 1)
    assert cli.tool("evaluate", words) == 0 and len(model.asked) == 6


def test_other_outputs_are_not_overwritten(
    tmp_path: Path, scored: tuple[list[Scored], CaseKeeper], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        with RecordFile(records_path(tmp_path / f"{name}.json"), {"model": name}) as records:
            for row in scored[0]:
                records.add(row)
    (tmp_path / "a.json").write_text('{"model": "a", "metrics": {}}')
    first, second, third = (str(tmp_path / f"{name}.json") for name in "abc")
    output = str(tmp_path / "out.json")
    assert cli.tool("compare", [first, second, "--output", first], "p") == 2
    assert "a.json holds something else than a comparison of these two" in capsys.readouterr().err
    assert cli.tool("compare", [first, second, "--output", output], "p") == 0
    assert cli.tool("compare", [first, second, "--output", output], "p") == 0
    assert cli.tool("compare", [first, third, "--output", output], "p") == 2
    assert cli.tool("compare", [first, third, "--output", output, "--overwrite"], "p") == 0
    assert json.loads(Path(output).read_text())["second"] == third
    for verb, words in (("recall", ["--proposer", "grid"]), ("calibrate", ["--model", "ras"])):
        before = Path(first).read_bytes()
        assert cli.tool(verb, [*words, "--dataset", "scenes", "--scenes", "1", "--output", first], "p") == 2
        assert Path(first).read_bytes() == before


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


def test_broken_images_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And again when the run is resumed; the report, the page and the table say so."""
    monkeypatch.setattr(loading, "load_model", lambda options: Halves())
    root = write_own(tmp_path / "own")
    words = ["--model", "x", "--dataset", "own", "--root", str(root), "--split", "train"]
    for _ in range(2):
        assert cli.tool("evaluate", [*words, "--output", str(tmp_path / "r.json")]) == 1
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 5 and "Traceback" not in captured.err
        assert "error: 4 samples of own were left out:" in captured.err and "4 samples were left out" in captured.out
        report = json.loads((tmp_path / "r.json").read_text())
        assert report["samples"] == 3 and report["left_out"]["count"] == 4
        told = " ".join(one["reason"] for one in report["left_out"]["reasons"])
        assert "4.jpg" in told and "EXIF orientation" in told and "5.jpg" in told and "annotation 70" in told
        assert "4 samples were left out" in (tmp_path / "r.html").read_text()
    good = ["--dataset", "own", "--root", str(write_own(tmp_path / "good", (1, 2, 3))), "--split", "train"]
    assert cli.tool("evaluate", ["--model", "x", *good, "--output", str(tmp_path / "g.json")]) == 0
    clean = json.loads((tmp_path / "g.json").read_text())
    assert clean["metrics"]["overall"] == report["metrics"]["overall"] and clean["left_out"]["count"] == 0
    assert "left out" not in (tmp_path / "g.html").read_text()


def test_where_everything_is_left_out_there_is_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "load_model", lambda options: Halves())
    words = ["--model", "x", "--dataset", "own", "--root", str(write_own(tmp_path / "own", (5, 6))), "--split", "train"]
    assert cli.tool("evaluate", [*words, "--output", str(tmp_path / "r.json")]) == 2
    assert "none of the 2 samples could be scored: " in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()


def test_a_sample_whose_id_another_has_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A resumed run would take it for one that was scored."""
    monkeypatch.setattr(loading, "load_model", lambda options: Halves())
    samples = list(_samples(1))
    monkeypatch.setattr(
        "maskselect.evaluation.questions.open_samples", lambda *_, **__: (iter(samples * 2), 2 * len(samples))
    )
    words = ["--model", "x", "--dataset", "scenes", "--split", "val", "--output", str(tmp_path / "r.json")]
    assert cli.tool("evaluate", words) == 1
    assert "two samples have one id" in capsys.readouterr().err
    assert json.loads((tmp_path / "r.json").read_text())["samples"] == len(samples)


def test_recall_goes_on_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("maskselect.proposers.loading.load_proposer", lambda *_: Halves())
    words = ["--proposer", "x", "--dataset", "own", "--root", str(write_own(tmp_path / "own")), "--split", "train"]
    assert cli.tool("recall", [*words, "--output", str(tmp_path / "r.json")]) == 1
    assert "error: 4 samples were left out:" in capsys.readouterr().err
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["samples"] == 3 and found["left_out"]["count"] == 4


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path, scored: tuple[list[Scored], CaseKeeper]) -> None:
    rows, _ = scored
    path = records_path(tmp_path / "r.json")
    with RecordFile(path, {"model": "a"}) as records:
        for row in rows[:3]:
            records.add(row)
    path.write_text(path.read_text()[:-20])
    assert RecordFile(path, {"model": "a"}).rows == rows[:2]
    assert RecordFile(path, {"model": "b"}).rows == []


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
    assert "<script>" not in page and "tools/evaluate.py --model halves" in page
    assert "RAS-13B" not in page and "the whole split of about 3,599 samples; this run has 9" in page
    nothing = (
        sum(row.no_target and not row.chosen for row in rows),
        sum(row.no_target and row.chosen > 0 for row in rows),
    )
    assert f"<td>nothing answers</td><td>{nothing[0]}</td><td>{nothing[1]}</td>" in page


def test_a_few_samples_are_shown_as_few(scored: tuple[list[Scored], CaseKeeper]) -> None:
    rows, keeper = scored
    report = build_report(rows[:6], "scenes", "val", "halves", False, "maskselect")
    page = draw_page(report, rows[:6], keeper.cases())
    assert "6 samples, 2 images" in page and "without intervals: fewer than 20 images" in page
    assert report["intervals"]["overall"] == {} and "</b>gIoU</div>" in page
    assert "<small>" not in page and "<span>" not in page  # where intervals stand
    assert "is a score of 0.8 right" not in page and "1 targets" not in page and "1 target<" in page
    many = [replace(row, image_id=str(number)) for number, row in enumerate(rows * 4)]
    report = build_report(many, "scenes", "val", "halves", False, "maskselect")
    page = draw_page(report, many, {})
    assert "with 95 % intervals" in page and "is a score of 0.8 right" in page
    low, high = report["intervals"]["overall"]["gIoU"]
    assert f"</b>gIoU<br><span>{low:.1f} to {high:.1f}</span>" in page


def test_published_figures_stand_beside_whole_splits_only() -> None:
    assert lacking("reasonseg", "val", 200) == "" and "this run has 6" in lacking("reasonseg", "val", 6)
    assert "about 10,758 samples" in lacking("refcoco+", "val", 9_000) and lacking("refcoco+", "val", 10_758) == ""
    assert "whole split; this run has 6" in lacking("grefcoco", "val", 6)
    for dataset, split in PUBLISHED:
        assert lacking(dataset, split, 6), dataset


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
    assert found["matched_recall@0.5"] == 0.0
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
    shown = capsys.readouterr().out
    assert "changed most" in shown and "too few images" in shown and "yes" not in shown
    assert "Fewer than 20 images: too few samples" in shown and "+" not in shown
    found = json.loads((tmp_path / "c.json").read_text())
    mean = 100 * np.mean([b.iou - a.iou for a, b in zip(rows, better, strict=True)])
    overall = found["differences"]["overall"]
    assert overall["difference"] == pytest.approx(mean, abs=0.01) and overall["images"] == 3
    assert (overall["interval"], overall["beyond_chance"]) == (None, None)
    assert len(found["changed_most"]) == 2 and found["samples"] == len(rows)


def test_compare_says_what_is_beyond_chance(
    scored: tuple[list[Scored], CaseKeeper], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [replace(row, image_id=str(number), kind="", references=0) for number, row in enumerate(scored[0] * 4)]
    better = [replace(row, iou=row.iou + 0.1 + 0.01 * (number % 3)) for number, row in enumerate(rows)]
    found = compare(rows, better, 1)["differences"]["overall"]
    low, high = found["interval"]
    assert found["beyond_chance"] is True and 10 < low < found["difference"] < high < 13
    assert compare(rows, rows, 1)["differences"]["overall"]["beyond_chance"] is False
    print_comparison(compare(rows, better, 1), "a", "b")
    shown = capsys.readouterr().out
    assert "yes" in shown and "too few" not in shown and f"{low:+.2f} to {high:+.2f}" in shown
