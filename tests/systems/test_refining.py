"""Refiners by name or config, and applied to answers: pictures, clips, the predict path, the commands."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from maskselect import cli
from maskselect.cli import loading
from maskselect.ops.images import WORKING_SIDE
from maskselect.predictor import Model, load
from maskselect.refiners.crf import CrfRefiner
from maskselect.refiners.snapping import SnappingRefiner
from maskselect.structures.answer import Answer
from maskselect.structures.clip import ClipMasks
from maskselect.structures.masks import OF_PROMPT, MaskSet
from maskselect.structures.refiner import Refiner
from maskselect.systems.refining import REFINERS, load_refiner, refine_answer
from tests.cli.asking import predict
from tests.systems.skeleton import Halves
from tests.systems.tiny import Quarters, tiny_ras

CRF = {"class_path": "maskselect.refiners.crf.CrfRefiner", "init_args": {"side": 8, "device": "cuda"}}


class Corner:
    """Keeps the part of each mask in the upper left quarter of the image, and records its arguments."""

    name = "corner"

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[int, ...], int | None]] = []
        self.sizes: list[tuple[int, ...]] = []

    def refine(self, image: np.ndarray, masks: Tensor, proposals: MaskSet | None = None) -> Tensor:
        self.sizes.append(tuple(masks.shape[1:]))
        self.calls.append((image.shape[:2], None if proposals is None else len(proposals)))
        out = torch.nn.functional.interpolate(masks[None].float(), image.shape[:2], mode="nearest-exact")[0].bool()
        out[:, image.shape[0] // 2 :] = False
        out[:, :, image.shape[1] // 2 :] = False
        return out

    def cache_key(self) -> str:
        return "corner"


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", REFINERS)
def test_every_name_is_a_refiner(name: str) -> None:
    refiner = load_refiner(name)
    assert isinstance(refiner, Refiner) and refiner.name == name
    image, masks = image_of(40, 60), torch.zeros(2, 5, 7, dtype=torch.bool)
    masks[1, 1:4, 2:5] = True
    found = refiner.refine(image, masks)
    assert found.shape == (2, 40, 60) and not found[0].any()


def test_a_config_names_a_class(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(CRF))
    refiner = load_refiner(path)
    assert isinstance(refiner, CrfRefiner) and refiner.side == 8 and refiner.device.type == "cpu"
    path.write_text(yaml.safe_dump({**CRF, "init_args": {"side": 9}}))
    names = {refiner.name, load_refiner(path).name, load_refiner(path).name}
    assert len(names) == 2 and all(name.startswith("crf-own-") for name in names) and CrfRefiner().name == "crf"
    for content, message in (
        ({"class_path": "maskselect.proposers.sam.SamProposer", "init_args": {}}, "SamProposer; expected a refiner"),
        ({**CRF, "init_args": {"sides": 8}}, r"init_args of refiner config .* do not fit CrfRefiner: .*'sides'"),
        ({}, "refiner config .* has no class_path"),
    ):
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(ValueError, match=message):
            load_refiner(path)
    with pytest.raises(FileNotFoundError, match=r"refiner config gone\.yaml does not exist"):
        load("ras", refiner="gone.yaml")
    with pytest.raises(ValueError, match=r"^refiner 'grabcut' is unknown; expected sam, samrefiner, crf, snap or a"):
        load("gone", refiner="grabcut")


def test_an_answer_about_a_picture() -> None:
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0], masks[1, 3, 5] = True, True
    answer = Answer(masks, torch.tensor([0.9, 0.4]), text="said")
    found = refine_answer(Corner(), image_of(8, 12), answer)
    assert isinstance(found.masks, Tensor) and found.masks.shape == (2, 8, 12)
    assert found.masks[0].sum() == 24 and found.masks[1, 6:, 10:].all() and found.masks[1].sum() == 4
    assert found.text == "said" and torch.equal(found.scores, answer.scores) and answer.masks is masks


def test_an_answer_about_a_clip() -> None:
    masks = ClipMasks(3, (8, 12))
    for _ in range(2):
        masks.add()
    masks.put(1, 2, torch.ones(8, 12, dtype=torch.bool))

    class Frames(list[np.ndarray]):
        fps, size = 5.0, (8, 12)

    refiner = Corner()
    found = refine_answer(refiner, Frames([image_of(8, 12)] * 3), Answer(masks, torch.tensor([0.9, 0.4]))).masks
    assert isinstance(found, ClipMasks) and found.get(0, 2) is None and found.get(1, 0) is None
    assert found.frame(2)[1].sum() == 24 and refiner.calls == [((8, 12), None)]


def test_masks_drawn_for_a_prompt_are_no_proposals() -> None:
    masks = torch.ones(1, 8, 12, dtype=torch.bool)
    for source, given in (("quarters", 1), (OF_PROMPT, None), (f"{OF_PROMPT}+extra", None)):
        refiner, pool = Corner(), MaskSet(masks, torch.ones(1), source)
        refine_answer(refiner, image_of(8, 12), Answer(masks, torch.tensor([0.6]), pool, torch.ones(1)))
        assert refiner.calls == [((8, 12), given)]


def test_a_refiner_may_add_masks_where_a_system_states_coverage() -> None:
    class Adding(Corner):
        def refine_covered(self, image: Any, masks: Tensor, coverage: Tensor, proposals: Any = None) -> Tensor:
            """Two more masks: the right half, then the bottom half."""
            added = torch.zeros(2, *image.shape[:2], dtype=torch.bool)
            added[0, :, image.shape[1] // 2 :] = added[1, image.shape[0] // 2 :] = True
            return torch.cat([self.refine(image, masks, proposals), added])

    masks = torch.ones(1, 8, 12, dtype=torch.bool)
    coverage = torch.tensor([[0.2, 0.1], [0.9, 0.4]])
    answer = Answer(masks, torch.tensor([0.6]), coverage=coverage)
    found = refine_answer(Adding(), image_of(8, 12), answer)
    assert isinstance(found.masks, Tensor)
    # Means under the halves are 0.25 and 0.65; the latter ends at the score of the mask before it.
    assert torch.allclose(found.scores, torch.tensor([0.6, 0.6, 0.25]))
    assert found.masks[1, 4:].all() and not found.masks[1, :4].any() and found.masks[2, :, 6:].all()
    for other in (replace(answer, coverage=None), replace(answer, labels=("cup",))):
        assert len(refine_answer(Adding(), image_of(8, 12), other).scores) == 1
    assert len(refine_answer(Corner(), image_of(8, 12), answer).scores) == 1


def test_the_predict_path_refines_at_the_working_size() -> None:
    refiner = Corner()
    model = Model(tiny_ras(), 0.0, fingerprint="abc", refiner=refiner)
    plain = Model(tiny_ras(), 0.0, fingerprint="abc")
    image = image_of(40, 60)
    group, before = model.select(image, "red mugs"), plain.select(image, "red mugs")
    assert group.refiner == "corner" and group.to_json()["refiner"] == "corner" and "refiner" not in before.to_json()
    assert np.array_equal(group.scores, before.scores) and np.array_equal(group.masks, before.masks)  # quarters
    assert refiner.calls == [((40, 60), 4)] and model.fingerprint != plain.fingerprint
    large = model.select(image_of(20, 2 * WORKING_SIDE), "red mugs")
    assert refiner.calls[-1][0] == (10, WORKING_SIDE) and large.masks.shape[1:] == (20, 2 * WORKING_SIDE)
    snapping = Model(tiny_ras(), 0.0, refiner=SnappingRefiner(Quarters()))
    assert pickle.loads(pickle.dumps(snapping)).select(image, "red mugs") == snapping.select(image, "red mugs")


def test_a_clip_is_refined_frame_by_frame() -> None:
    clip = [image_of(16, 16)] * 2
    refined = Model(Halves(), refiner=Corner()).select_video(clip, "all")
    plain = Model(Halves()).select_video(clip, "all")
    assert len(refined) == len(plain) and refined.refiner == "corner" and refined.frame(0).shape[1:] == (16, 16)


def test_predict_says_which_refiner_ran(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options: list[Any] = ["--image", image, "--prompt", "mugs", "--output", tmp_path / "out"]
    assert predict(*options, "--refiner", "grabcut") == 2
    assert capsys.readouterr().err.strip().endswith("or a YAML file with class_path")
    assert not (tmp_path / "out").exists()
    assert predict(*options, "--refiner", "snap", "--threshold", 0) == 0
    answer = json.loads((tmp_path / "out" / "cup.json").read_text())
    assert answer["refiner"] == "snap"
    monkeypatch.setattr(loading, "load_model", lambda options: Model(tiny_ras(), 0.0))
    assert predict(*options) == 0
    assert "refiner" not in json.loads((tmp_path / "out" / "cup.json").read_text())


def test_evaluate_tells_refiners_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--dataset", "scenes", "--scenes", "2", "--output", str(tmp_path / "report.json")]
    assert cli.main([*words, "--refiner", "crf"], prog="maskselect") == 0
    assert json.loads((tmp_path / "report.json").read_text())["refiner"] == "crf"
    assert cli.main(words, prog="maskselect") == 2
    assert "expected another --output" in capsys.readouterr().err
