"""What proposers say that their weights learned from, and what the evaluator's report makes of it."""

import json
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskselect.cli import loading
from maskselect.cli.program import main
from maskselect.proposers.codetr.config import VARIANTS
from maskselect.proposers.codetr.proposer import CoDetrProposer
from maskselect.proposers.queries import QueryProposer
from maskselect.proposers.snapping import SnappingProposer
from maskselect.proposers.store import StoredProposer
from maskselect.proposers.union import UnionProposer
from maskselect.structures.masks import MaskSet
from maskselect.structures.provenance import Provenance, TrainingData, trained_on
from tests.data import test_refer
from tests.proposers import test_queries
from tests.proposers.codetr.test_names import TINY, official_tensors, tiny_model
from tests.test_cli import StubModel

COCO = Provenance.of_dataset("Co-DETR's published COCO weights", "coco", "train2017")
TOLD = (
    "the candidates' proposer (Co-DETR's published COCO weights) was trained on all of COCO's train2017, which holds "
    "the COCO pictures of refcoco: it has seen those that are evaluated"
)

mask2former = test_queries.folder


class Silent:
    """A proposer that says nothing of its weights."""

    def __init__(self, *inner: Any) -> None:
        self.inner = {"first": inner}

    def cache_key(self) -> str:
        return "silent"

    def propose(self, image: np.ndarray) -> MaskSet:
        return MaskSet.empty((image.shape[0], image.shape[1]), "silent")


class Learned(Silent):
    trained_on = (COCO,)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codetr") / "pytorch_model.pth"
    torch.save({"state_dict": official_tensors(tiny_model())}, path)
    return path


@pytest.fixture
def codetr(published: Path, monkeypatch: pytest.MonkeyPatch) -> CoDetrProposer:
    monkeypatch.setitem(VARIANTS, "coco", TINY)
    return CoDetrProposer(published)


def test_at_any_depth_and_each_once() -> None:
    other = Learned()
    other.trained_on = (COCO, Provenance.of_dataset("others", "lvis", "train"))
    assert trained_on(Silent()) == trained_on(Silent(1, "x", None)) == []
    assert trained_on(SnappingProposer(UnionProposer([Silent(), Learned()]))) == [COCO]  # type: ignore[arg-type]
    assert trained_on(UnionProposer([Learned(), other])) == list(other.trained_on)


def test_codetr_says_what_its_weights_learned_from(
    codetr: CoDetrProposer, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert codetr.trained_on == (COCO,)
    assert CoDetrProposer(published, published=False).trained_on == ()
    monkeypatch.setitem(VARIANTS, "lvis", TINY)
    (lvis,) = CoDetrProposer(published, "lvis").trained_on
    assert "LVIS" in lvis.weights and lvis.data == (TrainingData("lvis", "train"),)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mask2former-swin-large-coco-instance", True),
        ("oneformer_COCO_tiny/", True),
        ("coco/mask2former-ade-semantic", False),
    ],
)
def test_models_with_mask_queries_say_it_by_their_name(
    name: str, told: bool, tmp_path: Path, mask2former: Path
) -> None:
    shutil.copytree(mask2former, tmp_path / name)
    found = QueryProposer(f"{tmp_path}/{name}").trained_on
    assert [one.data for one in found] == [(TrainingData("coco", "train2017"),)] * told
    assert all(name in one.weights for one in found)


def test_stored_proposals_say_it_for_whoever_made_them(tmp_path: Path) -> None:
    assert trained_on(StoredProposer(UnionProposer([Silent(), Learned()]), tmp_path)) == [COCO]


def test_the_report_of_an_evaluation_says_it(
    codetr: CoDetrProposer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, root, output = StubModel(), test_refer.write_root(tmp_path / "data"), tmp_path / "report.json"
    model.proposers = tuple(trained_on(UnionProposer([Silent(), codetr])))
    monkeypatch.setattr(loading, "load_model", lambda options: model)
    words = ["--dataset", "refcoco", "--root", root, "--split", "val", "--output", output]
    assert main(["evaluate", *map(str, words)]) == 0
    assert json.loads(output.read_text())["overlap"] == [TOLD]
    assert f"Beware: {TOLD}." in " ".join(capsys.readouterr().out.split())
    assert "all of COCO's train2017" in unescape(output.with_suffix(".html").read_text())
    scenes = ["--dataset", "scenes", "--scenes", "1", "--output", str(tmp_path / "scenes.json")]
    assert main(["evaluate", *scenes]) == 0
    assert json.loads((tmp_path / "scenes.json").read_text())["overlap"] == []


def test_the_ceiling_of_its_candidates_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = test_refer.write_root(tmp_path / "data"), tmp_path / "report.json"
    monkeypatch.setattr("maskselect.proposers.loading.load_proposer", lambda name, device: Learned())
    words = ["--dataset", "refcoco", "--root", root, "--split", "val", "--output", output]
    assert main(["recall", *map(str, words)]) == 0
    assert json.loads(output.read_text())["overlap"] == [TOLD]
    assert f"Beware: {TOLD}." in capsys.readouterr().out
