"""The builder `llm-seg40k` end to end from tiny LVIS and EgoObjects folders, over real HTTP on loopback, to files that
the data set's reader reads."""

import json
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from maskselect.data.llm_seg40k import LlmSeg40kDataset
from maskselect.data.lvis import LvisDataset
from maskselect.ops import rle
from maskselect.recipes.box_masks import ProposerBoxes
from maskselect.recipes.llm_seg40k.answers import (
    DUPLICATE,
    LENGTH,
    LOCATED,
    NAMED,
    NO_QUESTION,
    NOT_LISTED,
    SURPLUS,
    UNREADABLE,
    Rules,
)
from maskselect.recipes.llm_seg40k.build import Settings
from maskselect.recipes.llm_seg40k.captioners import RasCaptioner
from maskselect.recipes.llm_seg40k.images import Group, choose
from maskselect.recipes.llm_seg40k.language_models import ChatEndpoint
from maskselect.recipes.llm_seg40k.worker import EXAMPLE, QuestionMaker
from maskselect.structures.masks import MaskSet
from tests.recipes.endpoint import Reply, Request, Script, serving
from tests.recipes.llm_seg40k_world import (
    LVIS_COUNTS,
    SIZE,
    Inside,
    Shade,
    World,
    images_of,
    picture,
    polygon,
    published,
    question,
    rejected,
    square,
    well,
)


def test_the_reader_reads_what_was_built(world: World) -> None:
    with serving(well) as endpoint:
        report = world.build(endpoint)
    assert report["sampled"] == {
        "LVIS simple": {"wanted": 6000, "found": 4, "taken": 4},
        "LVIS complex": {"wanted": 4000, "found": 2, "taken": 2},
        "EgoObjects": {"wanted": 3000, "found": 2, "taken": 2},
    }
    assert report["questions"]["kept"] == 2 + 3 + 3 + 5 * 4 and report["questions"]["offered"] == 34
    assert rejected(report) == {SURPLUS: 6}
    assert json.loads((world.output / "report.json").read_text()) == json.loads(json.dumps(report))

    found = 0
    for split in ("train", "validation", "test"):
        data = LlmSeg40kDataset(world.output, split)
        summary = report["splits"][split]
        assert len(data) == summary["questions"] and len(set(data.image_ids())) == summary["images"] > 0
        raw = json.loads((world.output / f"{split}.json").read_text())
        for sample, pair in zip(data, [pair for image in raw.values() for pair in image["qa_pairs"]], strict=True):
            found += 1
            assert sample.target_mask.any() and tuple(sample.target_mask.shape) == SIZE
            assert isinstance(pair["rle_seg"]["counts"], str) and pair["segmentation_path"] == ""
            assert sample.prompt.text == pair["question"]
    assert found == 28


def test_masks_are_all_instances_of_the_answer(world: World) -> None:
    with serving(well) as endpoint:
        world.build(endpoint, settings=Settings(write_png=True, rules=Rules(most=9)))
    images = images_of(world.output)
    for number, count in LVIS_COUNTS.items():
        if count < 2:
            assert f"{number:012}.jpg" not in images
            continue
        image = images[f"{number:012}.jpg"]
        assert image["from_dataset"] == "coco"
        answers = [pair["answer"] for pair in image["qa_pairs"]]
        assert answers == sorted(["cup", "mouse", "book", "lamp", "knife", "chair", "bottle"][:count])
        for pair in image["qa_pairs"]:
            place = ["cup", "mouse", "book", "lamp", "knife", "chair", "bottle"].index(pair["answer"])
            wanted = rle.decode(polygon(place), SIZE) | (rle.decode(polygon(0), SIZE) if place == 0 else False)
            assert (rle.decode(pair["rle_seg"]) == wanted).all()
            png = np.asarray(Image.open(world.output / pair["segmentation_path"]))
            assert ((png > 0) == wanted).all()
    assert set(images) >= {"A.jpg", "C.jpg"} and "B.jpg" not in images
    assert images["A.jpg"]["from_dataset"] == "ego_objects"
    for pair in images["A.jpg"]["qa_pairs"]:
        place = ["cup", "remote control", "towel"].index(pair["answer"])
        x, y, width, height = (int(value) for value in square(place))
        inner = np.zeros(SIZE, bool)
        inner[y + 1 : y + height - 1, x + 1 : x + width - 1] = True
        assert (rle.decode(pair["rle_seg"]) == inner).all()


def test_the_model_is_asked_with_caption_and_list(world: World) -> None:
    with serving(well) as endpoint:
        world.build(endpoint)
    asked = {tuple(request.things) for request in endpoint.requests}
    assert ("cup", "mouse") in asked and ("cup", "remote control", "towel") in asked
    assert all("Description: A wall of " in request.prompt for request in endpoint.requests)
    for request in endpoint.requests:
        assert EXAMPLE in request.prompt and "at most 2 of the questions" in request.prompt
    assert len({request.body["seed"] for request in endpoint.requests}) == len(endpoint.requests) == 8


def test_bad_answers_are_refused_and_counted(world: World) -> None:
    def script(request: Request, number: int) -> Reply:
        first = request.things[0]
        synonym = "mug" if first == "cup" and "Description: A wall of 1" in request.prompt else first
        entries = [
            question(first),
            question("unicorn"),
            {"question": f"Which {synonym}s would one take along today?", "answer": first},
            {"question": "What in the top corner would help one see?", "answer": first},
            question(first),
            {"question": "Which?", "answer": first},
            {"answer": first},
            7,
        ]
        return Reply(json.dumps({"questions": entries}))

    with serving(script) as endpoint:
        report = world.build(endpoint)
    once = [UNREADABLE, NO_QUESTION, NOT_LISTED, NAMED, LOCATED, DUPLICATE, LENGTH]
    assert rejected(report) == dict.fromkeys(once, 8)
    assert report["questions"]["kept"] == 8 and len(images_of(world.output)) == 8


def test_unreadable_replies_are_asked_for_again(world: World) -> None:
    def script(request: Request, number: int) -> Reply:
        garbage = [None, "I would rather not.", "[{'question': 'single quotes'}]", '[{"question": "cut of']
        if "mouse" in request.things and len(request.things) == 2:
            return Reply("never")
        return (
            Reply(garbage[number // 2 % 4]) if request.body["seed"] in first_seeds(request) else well(request, number)
        )

    seen: dict[str, int] = {}

    def first_seeds(request: Request) -> set[int]:
        return {seen.setdefault(request.prompt, request.body["seed"])}

    with serving(script) as endpoint:
        report = world.build(endpoint)
        assert len(endpoint.requests) == report["questions"]["replies"] == 16
    assert rejected(report)[UNREADABLE] == 9
    assert report["images"]["without a question"] == 1 and len(images_of(world.output)) == 7


def test_an_interrupted_build_asks_nothing_twice(world: World) -> None:
    down = [True]

    def script(request: Request, number: int) -> Reply:
        if number == 0:
            return Reply(b"slow down", 429, {"Retry-After": "0"})
        return Reply(b"broken", 500) if down[0] and number >= 6 else well(request, number)

    captioner = Shade()
    with serving(script) as endpoint:
        with pytest.raises(ValueError, match="failed 3 times, at last so: status 500"):
            world.build(endpoint, captioner=captioner)
        assert published(world.output) == {} and not list(world.output.rglob("*.part"))
        down[0] = False
        world.build(endpoint, captioner=captioner)
        answered = [request.prompt for request in endpoint.requests[1:6] + endpoint.requests[9:]]
        assert len(answered) == len(set(answered)) == 8 and captioner.looked == 8
        world.build(endpoint, captioner=captioner)
        assert len(endpoint.requests) == 12 and captioner.looked == 8
        before = published(world.output)
        world.build(endpoint, output=world.root / "at once")
    assert published(world.root / "at once") == before


def test_other_settings_are_refused(world: World) -> None:
    with serving(well) as endpoint:
        world.build(endpoint)
        with pytest.raises(ValueError, match=r"begun with other settings \(seed\b"):
            world.build(endpoint, settings=Settings(seed=1, shares=(4, 2, 2), rules=Rules(most=4)))


def test_an_image_that_cannot_be_used_is_told_and_tried_again(world: World) -> None:
    away, small = (world.root / f"lvis/coco/train2017/{number:012}.jpg" for number in (11, 12))
    away.rename(world.root / "away.jpg")
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(small)
    with serving(well) as endpoint:
        report = world.build(endpoint)
        assert report["images"]["asked"] == 6 and len(report["images"]["skipped"]) == 2
        told = sorted(report["images"]["skipped"])
        assert told[0].startswith("image 11: image '000000000011.jpg' is in none of")
        assert "masks of [24, 40]" in told[1] and told[1].endswith("of [5, 6] (h, w)")
        asked = len(endpoint.requests)
        (world.root / "away.jpg").rename(away)
        picture(small, 12)
        report = world.build(endpoint)
        assert report["images"]["skipped"] == [] and len(endpoint.requests) == asked + 2
        world.build(endpoint, output=world.root / "at once")
    assert published(world.root / "at once") == published(world.output)


def test_when_nothing_passes_nothing_is_written(world: World) -> None:
    with pytest.raises(ValueError, match=r"no question passed of 8 images, .*\(unreadable: 16\)"):
        build_without()(world, lambda request, number: Reply("no"))
    assert published(world.output) == {}


@pytest.mark.parametrize(("source", "left"), [("lvis", 6), ("ego", 2)])
def test_one_source_is_enough(world: World, source: str, left: int) -> None:
    other = {"lvis": "ego_root", "ego": "lvis_root"}[source]
    with serving(well) as endpoint:
        report = world.build(endpoint, **{other: None}, boxes=None if source == "lvis" else Inside())
    assert len(images_of(world.output)) == left and sum(one["taken"] for one in report["sampled"].values()) == left


def test_numbers_of_images_are_settings(world: World) -> None:
    with serving(well) as endpoint:
        world.build(endpoint, settings=Settings(simple=1, complex=1, ego_objects=0), boxes=None)
    assert len(images_of(world.output)) == 2


def test_objects_that_were_not_all_drawn_can_be_left_out(world: World) -> None:
    file = world.root / "lvis/lvis_v1_train.json"
    whole = json.loads(file.read_text())
    for image in whole["images"]:
        image["not_exhaustive_category_ids"] = [1]
    file.write_text(json.dumps(whole))
    with serving(well) as endpoint:
        world.build(endpoint, settings=Settings(exhaustive=True), ego_root=None)
    answers = {pair["answer"] for image in images_of(world.output).values() for pair in image["qa_pairs"]}
    assert answers and "cup" not in answers


def test_with_the_shipped_compact_models(world: World) -> None:
    def script(request: Request, number: int) -> Reply:
        assert request.prompt.count("Description: ") == 1 and "(none)" not in request.prompt
        return well(request, number)

    captioner = RasCaptioner(device="cpu", max_new_tokens=5)
    with serving(script) as endpoint:
        report = world.build(endpoint, captioner=captioner, boxes=ProposerBoxes("sam", device="cpu"))
    assert report["models"]["captioner"] == captioner.name and report["models"]["boxes"].startswith("sam ")
    assert report["questions"]["kept"] + rejected(report).get("empty mask", 0) + rejected(report)[SURPLUS] == 34


class Nothing(Inside):
    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        masks = torch.zeros(len(boxes_xyxy), *image.shape[:2], dtype=torch.bool)
        return MaskSet(masks, torch.zeros(len(masks)), "nothing")


def test_empty_masks_are_refused(world: World) -> None:
    with serving(well) as endpoint:
        report = world.build(endpoint, boxes=Nothing())
    assert rejected(report) == {SURPLUS: 6, "empty mask": 7} and report["images"]["without a question"] == 2


def test_the_worker_travels(world: World) -> None:
    with serving(well) as endpoint:
        reader = LvisDataset(world.root / "lvis", "train")
        chosen, _ = choose(Group("simple", "coco", 2, 5, 9), reader, (1, 0, 0), 0)
        captioner, boxes = RasCaptioner(max_new_tokens=2), ProposerBoxes("sam")
        model, kept = ChatEndpoint(endpoint.url, "stand-in"), world.root / "kept"
        worker = QuestionMaker({"coco": reader}, captioner, model, boxes, Rules(), 0, 1, kept)
        first = worker.build(asdict(chosen[0]))
        sent = pickle.dumps(worker)
        assert len(sent) < 100_000  # no weights, no data
        assert pickle.loads(sent).build(asdict(chosen[0])) == first


def build_without(**missing: Any) -> Callable[[World, Script], None]:
    def run(world: World, script: Script) -> None:
        with serving(script) as endpoint:
            world.build(endpoint, **missing)

    return run


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"boxes": None}, "EgoObjects has boxes only"),
        ({"lvis_root": None, "ego_root": None}, "expected the root of LVIS or of EgoObjects"),
        ({"per_shard": 0}, "per_shard and workers must be at least 1"),
        ({"settings": Settings(simple=0, complex=1), "lvis_root": None, "ego_root": None}, "nothing to build from"),
    ],
)
def test_builds_that_cannot_be(world: World, more: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        build_without(**more)(world, well)
    assert not world.output.exists()


def test_data_that_is_not_there(world: World) -> None:
    with pytest.raises(FileNotFoundError, match="no LVIS file of train"):
        build_without(lvis_root=world.root / "nowhere")(world, well)


def test_no_image_has_enough_categories(world: World) -> None:
    file = world.root / "lvis/lvis_v1_train.json"
    whole = json.loads(file.read_text())
    whole["annotations"] = [one for one in whole["annotations"] if one["category_id"] == 1]
    file.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="no image to ask about was found"):
        build_without(ego_root=None)(world, well)


def test_boxes_need_a_proposer_that_takes_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ProposerBoxes(str(tmp_path / "none.yaml"))
    config = tmp_path / "other.yaml"
    config.write_text("class_path: maskselect.encoders.position.SinusoidEncoder\ninit_args: {grid: 8}\n")
    with pytest.raises(ValueError, match="takes no boxes"):
        ProposerBoxes(str(config)).segment_boxes(np.zeros((8, 8, 3), np.uint8), torch.ones(1, 4))
