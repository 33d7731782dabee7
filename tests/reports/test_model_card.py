"""The model card: what the hub reads of it, and what people do."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import maskselect
from maskselect.backends.checkpoints import find_checkpoint
from tests.hub_world import SCENES, config, write_ras, write_report

DOCS = Path(__file__).resolve().parents[2] / "docs"


def pushed(folder: Path, checkpoint: Any, *reports: Path, **settings: Any) -> ModelCard:
    """The model card, read again as the hub does."""
    out = folder / "out"
    maskselect.push_to_hub(checkpoint, "org/tiny", report=list(reports), folder=out, **settings)
    return ModelCard.load(out / "README.md")


def test_what_the_hub_reads(tmp_path: Path) -> None:
    file = write_ras(tmp_path)
    report = write_report(tmp_path / "a.json", file)
    write_report(tmp_path / "gt.json", file, with_gt=True)
    data = pushed(tmp_path, file, tmp_path / "a.json", tmp_path / "gt.json", license="apache-2.0").data
    assert (data.library_name, data.pipeline_tag, data.license) == ("maskselect", "image-segmentation", "apache-2.0")
    assert {"maskselect", "ras", "arxiv:2506.05342"} <= set(data.tags)
    overall = report["metrics"]["overall"]
    own = {one.metric_type: one for one in data.eval_results if one.dataset_config is None}
    assert own["gIoU"].metric_value == overall["gIoU"] == 75.0 and own["cIoU"].metric_value == overall["cIoU"]
    assert {(one.task_type, one.dataset_type, one.dataset_split) for one in data.eval_results} == {
        ("image-segmentation", "scenes", "test")
    }
    assert not [name for name in own if name.startswith("oracle")] and overall["oracle_gIoU"] == 100.0
    assert len(data.eval_results) == 2 * len(own)  # the easier pool stands apart


def test_what_people_read(tmp_path: Path) -> None:
    mixture = {
        "class_path": "maskselect.data.mixing.MixedGroups",
        "init_args": {
            "sources": [
                SCENES,
                {
                    "class_path": "maskselect.data.groups.DatasetGroups",
                    "init_args": {"dataset": "refcoco", "root": "/secret/place", "split": "train", "limit": 50},
                },
                SCENES,
            ],
            "rates": [3, 1, 0],
        },
    }
    source = {"dataset": "scenes", "split": "val", "samples": 4800, "least_n_acc": 92.0}
    file = write_ras(
        tmp_path,
        data={"class_path": "maskselect.training.data.GroupsData", "init_args": {"train": mixture}},
        threshold_from=source,
        steps=600,
        minutes=9.5,
    )
    sentence = "the model was trained on the scenes of split test, seed 5"
    report = write_report(tmp_path / "a.json", file, overlap=[sentence])
    text = pushed(tmp_path, file, tmp_path / "a.json").text
    assert "\n\n\n" not in text and "/secret" not in text
    assert "A checkpoint of RAS, of [arXiv 2506.05342]" in text and 'maskselect.load("hf://org/tiny")' in text
    assert "- generated scenes, split `train`, seed 3, count 900, 75% of draws\n- RefCOCO (unc)" in text
    assert "split `train`, the first 50 samples, 25% of draws\n- 600 steps of the last run\n- 9.5 minutes" in text
    assert "from a score of 0.25 on. Chosen for the highest F1 on 4800 samples of `scenes` val" in text
    assert "an N-acc of at least 92 %." in text
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "| `RegionProposer` |" in rows["candidates"] and "`SinusoidEncoder` (grid 8)" in rows["encoder"]
    assert "`Llava` (image_size 32, width 32, layers 2, heads 2)" in rows["language model"]
    assert "k in this checkpoint" in rows["language model"]
    assert rows["overall"].split("|")[2:4] == [" 2 ", " 75.0 "]
    for part in ("w/o mask-ref", "w/ mask-ref"):
        assert f"| 1 | {report['metrics'][part]['gIoU']:.1f} |" in rows[part]
    assert report["intervals"]["overall"] == {} and "95 % intervals" not in text  # of one image
    assert f"**Beware: {sentence}.**" in text and "2 samples, 1 image, seed 5." in text
    command = "--dataset scenes --split test --scenes 1 --seed 5 --limit 2 --protocol maskselect --output report.json"
    assert f"```\nmaskselect evaluate --model hf://org/tiny {command}\n```" in text


def test_the_command_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maskselect.cli import options
    from maskselect.reports.evaluated import read_evaluation

    file = write_ras(tmp_path)
    write_report(tmp_path / "a.json", file, with_gt=True)
    words = read_evaluation(tmp_path / "a.json").command("hf://org/tiny").split()
    asked = options.evaluate_parser("evaluate").parse_args(words[2:])
    assert (asked.model, asked.dataset, asked.seed, asked.limit) == ("hf://org/tiny", ["scenes"], 5, 2)
    assert asked.with_gt_candidates and asked.scenes == 1
    (tmp_path / "a.samples.jsonl").unlink()
    assert "--scenes 1 --seed SEED --limit 2" in read_evaluation(tmp_path / "a.json").command("ras")
    report = json.loads((tmp_path / "a.json").read_text()) | {"dataset": "refcoco", "split": "val"}
    (tmp_path / "b.json").write_text(json.dumps(report))
    found = read_evaluation(tmp_path / "b.json")
    assert "--dataset refcoco --split val --root DIR --limit 2" in found.command("ras") and found.seed is None


def test_without_a_report(tmp_path: Path) -> None:
    card = pushed(tmp_path, write_ras(tmp_path, data={}, metrics={"val/f1@0.25": 0.5}))
    assert card.data.eval_results in (None, []) and card.data.license is None
    assert "## Evaluation" not in card.text and "- The training data is unknown." in card.text
    assert "Chosen by F1 on the validation samples of training." in card.text


def test_weights_from_elsewhere_are_told(tmp_path: Path) -> None:
    made = config(model="llava-hf/llava-1.5-7b-hf")
    made["init_args"]["proposer"] = {
        "class_path": "maskselect.proposers.sam.SamProposer",
        "init_args": {"checkpoint": "weights/sam_vit_h.pth", "model_type": "vit_h"},
    }
    card = pushed(tmp_path, write_ras(tmp_path, config=made))
    assert card.data.base_model == ["llava-hf/llava-1.5-7b-hf"]
    assert "Fetched from the hub when the model is loaded: `llava-hf/llava-1.5-7b-hf`." in card.text
    assert "relative to the working folder: `weights/sam_vit_h.pth`." in card.text
    assert "`SamProposer` (model_type vit_h, checkpoint weights/sam_vit_h.pth) | – |" in card.text


def test_the_shipped_model(tmp_path: Path) -> None:
    report = json.loads((DOCS / "reports" / "test.json").read_text())
    card = pushed(tmp_path, "ras", DOCS / "reports" / "test.json")
    assert "Part of the package `maskselect`, and not in this repository: `sam`, `encoder_conv`" in card.text
    assert "`SnappingProposer` of `SamProposer` (model_type compact, checkpoint sam, points_per_side 12" in card.text
    assert (
        " M (`sam`) |" in card.text and f"| overall | 3000 | {report['metrics']['overall']['gIoU']:.1f} |" in card.text
    )
    assert "The overlap of these samples with training data was not checked." in card.text or "overlap" in report
    assert (tmp_path / "out" / "ras.safetensors").read_bytes() == find_checkpoint("ras").read_bytes()
