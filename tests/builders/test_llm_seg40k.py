"""The builder `llm-seg40k`: rules and sampling by themselves, then end to end from tiny LVIS and EgoObjects folders,
over real HTTP on loopback, to files that the data set's reader reads."""

import doctest
import json
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from maskselect.builders.box_masks import ProposerBoxes
from maskselect.builders.llm_seg40k import answers as llm_seg40k_answers
from maskselect.builders.llm_seg40k import build as llm_seg40k
from maskselect.builders.llm_seg40k.answers import (
    DUPLICATE,
    LENGTH,
    LOCATED,
    NAMED,
    NO_QUESTION,
    NOT_LISTED,
    SURPLUS,
    UNREADABLE,
    Rules,
    Thing,
    check,
    listed,
    locates,
    names,
    read_reply,
)
from maskselect.builders.llm_seg40k.build import Settings
from maskselect.builders.llm_seg40k.captioners import RasCaptioner
from maskselect.builders.llm_seg40k.images import Group, choose
from maskselect.builders.llm_seg40k.kept import Kept
from maskselect.builders.llm_seg40k.language_models import ChatEndpoint
from maskselect.builders.llm_seg40k.worker import QuestionMaker
from maskselect.data.llm_seg40k import LlmSeg40kDataset
from maskselect.data.lvis import LvisDataset
from maskselect.ops import rle
from maskselect.structures.masks import MaskSet
from tests.builders.endpoint import Endpoint, Reply, Request, Script, serving

# --- rules -----------------------------------------------------------------------------------------------------------

GOOD = "Which of these would somebody use to drink hot tea?"
CUP, SAUCER = Thing("cup", ("mug",)), Thing("saucer")


def test_examples() -> None:
    assert doctest.testmod(llm_seg40k_answers).failed == 0


@pytest.mark.parametrize(
    ("reply", "entries"),
    [
        ('[{"question": "a"}]', 1),
        ('```json\n[{"question": "a"}, {"question": "b"}]\n```', 2),
        ('Of course! As [1] says: {"questions": [{"question": "a"}, 3]} Anything else?', 2),
        ('{"question": "a"}\n{"question": "b"}', 2),
        ("[]", 0),
        ("", None),
        ("I cannot help with that.", None),
        ("[{'question': 'a'}]", None),
        ('[{"question": "a"', None),
        ("[" * 100_000, None),
        ("{" * 100_000, None),
        ('{"a": ' * 5000, None),
        ('["a", "b"]', None),
    ],
)
def test_replies_are_read_tolerantly(reply: str, entries: int | None) -> None:
    found = read_reply(reply)
    assert (None if found is None else len(found)) == entries


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("text", UNREADABLE),
        ({"question": GOOD.replace("tea", "<mask-ref>"), "answer": "cup"}, UNREADABLE),
        ({"question": "Which of these \ud800 would one use for tea?", "answer": "cup"}, UNREADABLE),
        ({"answer": "cup"}, NO_QUESTION),
        ({"question": 3, "answer": "cup"}, NO_QUESTION),
        ({"question": "The thing that one drinks hot tea from.", "answer": "cup"}, NO_QUESTION),
        ({"question": " ?", "answer": "cup"}, NO_QUESTION),
        ({"question": GOOD}, NOT_LISTED),
        ({"question": GOOD, "answer": "teapot"}, NOT_LISTED),
        ({"question": GOOD, "answer": ["cup"]}, NOT_LISTED),
        ({"question": GOOD, "answer": ""}, NOT_LISTED),
        ({"question": "Which one drinks?", "answer": "cup"}, LENGTH),
        ({"question": "What " + "very " * 60 + "old thing is this?", "answer": "cup"}, LENGTH),
        ({"question": "Which of the cups holds the tea?", "answer": "cup"}, NAMED),
        ({"question": "Which mug would hold the most tea?", "answer": "cup"}, NAMED),
        ({"question": "What holds tea next to the plate?", "answer": "cup"}, LOCATED),
        ({"question": "What on the Left would hold the tea?", "answer": "cup"}, LOCATED),
    ],
)
def test_what_is_refused(entry: Any, reason: str) -> None:
    assert check([entry], [CUP, SAUCER], Rules()) == ([], Counter({reason: 1}))


def test_what_passes() -> None:
    entries = [
        {"question": f"  {GOOD}\n", "answer": "The Cups."},
        {"question": GOOD.upper(), "answer": "saucer"},
        {"question": "What keeps the table clean under a dripping cup?", "answer": "saucer"},
        {"question": "What would be drunk from in the morning?", "answer": "cup"},
    ]
    kept, refused = check(entries, [CUP, SAUCER], Rules(most=2))
    assert kept == [(GOOD, "cup"), ("What keeps the table clean under a dripping cup?", "saucer")]
    assert refused == {DUPLICATE: 1, SURPLUS: 1}


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("Which knives cut bread?", "knife"),
        ("Whose olives are these?", "olive"),
        ("Who are these people?", "person"),
        ("Which mouse's cable is it?", "mouse (computer equipment)"),
        ("What lifts hot air balloons?", "hot-air balloon"),
        ("Whose teddybear is it?", "teddy bear"),
        ("Who wears a T-shirt?", "tshirt"),
        ("What do berries taste of?", "berry"),
        ("Is it one of the buses?", "bus"),
    ],
)
def test_names_in_any_number(question: str, name: str) -> None:
    assert names(question, Thing(name))
    assert not names("Which of these would one need at once?", Thing(name))


def test_no_name_is_found_inside_a_word() -> None:
    assert not names("Who is captured carpeting the cupboard?", Thing("cup", ("cap", "car", "pet")))
    assert not locates("Who came upright to the topic of laptops?")


def test_an_answer_must_mean_one_object() -> None:
    mice = [Thing("mouse (animal)"), Thing("mouse (computer equipment)")]
    assert listed("mouse", mice) is None and listed("mouse", mice[:1]) == mice[0]
    assert listed("Mouse (Animal)", mice) == mice[0]
    assert listed("wine glasses", [Thing("wineglass"), Thing("glasses")]) == Thing("wineglass")


def test_rules_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="max_words not below min_words"):
        Rules(min_words=9, max_words=8)


# --- sampling --------------------------------------------------------------------------------------------------------


class Ids:
    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes

    def image_ids(self) -> list[str]:
        return [image for image, count in self.sizes.items() for _ in range(count)]


def test_sampling_depends_on_seed_and_ids_alone() -> None:
    sizes = {str(number): number % 7 for number in range(700)}
    group = Group("simple", "coco", 2, 5, 280)
    chosen, tally = choose(group, Ids(sizes), (11, 1, 2), seed=3)
    assert tally == (280, 400, 280) and len({one.image_id for one in chosen}) == 280
    assert all(sizes[one.image_id] == one.count and 2 <= one.count <= 5 for one in chosen)
    ids = Ids(sizes).image_ids()
    assert all(set(ids[one.first : one.first + one.count]) == {one.image_id} for one in chosen)
    assert Counter(one.split for one in chosen) == {"train": 220, "validation": 20, "test": 40}

    turned, _ = choose(group, Ids(dict(reversed(sizes.items()))), (11, 1, 2), seed=3)
    assert [(one.image_id, one.split) for one in turned] == [(one.image_id, one.split) for one in chosen]
    other, _ = choose(group, Ids(sizes), (11, 1, 2), seed=4)
    assert {one.image_id for one in other} != {one.image_id for one in chosen}


def test_fewer_than_wanted() -> None:
    chosen, tally = choose(Group("all", "coco", 6, None, 10), Ids({"a": 6, "b": 5, "c": 90}), (1, 0, 0), seed=0)
    assert tally == (10, 2, 2) and {one.image_id for one in chosen} == {"a", "c"}
    assert {one.split for one in chosen} == {"train"}


# --- end to end ------------------------------------------------------------------------------------------------------

NAMES = ["cup", "mouse_(computer_equipment)", "book", "lamp", "knife", "chair", "bottle"]
SYNONYMS = {"cup": ["cup", "mug"]}
LVIS_COUNTS = {11: 2, 12: 3, 13: 5, 14: 6, 15: 7, 16: 1, 17: 4}
EGO_COUNTS = {"A": 3, "B": 2, "C": 4}
SIZE = (24, 40)


def square(place: int) -> list[float]:
    """A box of its own for each of an image's things."""
    return [1.0 + 5 * place, 2.0 + place, 4.0, 6.0]


def polygon(place: int) -> list[list[float]]:
    x, y, width, height = square(place)
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), value, np.uint8)).save(path)


def write_lvis(root: Path) -> None:
    """Categories 0, 1, … in every image; the first of them twice."""
    images, annotations = [], []
    for number, count in LVIS_COUNTS.items():
        address = f"http://images.cocodataset.org/train2017/{number:012}.jpg"
        images.append({"id": number, "coco_url": address, "height": SIZE[0], "width": SIZE[1]})
        picture(root / f"coco/train2017/{number:012}.jpg", number)
        for place, category in [(place, place) for place in range(count)] + [(7, 0)]:
            shape = {"segmentation": polygon(place % 7), "category_id": category + 1, "image_id": number}
            annotations.append({"id": len(annotations), **shape})
    categories = [
        {"id": place + 1, "name": name, "synonyms": SYNONYMS.get(name, [name])} for place, name in enumerate(NAMES)
    ]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    (root / "lvis_v1_train.json").write_text(json.dumps(whole))


def write_ego(root: Path) -> None:
    images, annotations = [], []
    for name, count in EGO_COUNTS.items():
        images.append({"id": name, "url": f"http://x/{name}.jpg", "height": SIZE[0], "width": SIZE[1]})
        picture(root / f"images/{name}.jpg", ord(name))
        for place in range(count):
            box = {"bbox": square(place), "category_id": 50 + place, "image_id": name}
            annotations.append({"id": len(annotations), **box})
    (root / "EgoObjectsV1_unified_train.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    categories = [
        {"id": 50 + place, "name": name} for place, name in enumerate(["cup", "remote_control", "towel", "phone"])
    ]
    (root / "EgoObjectsV1_unified_metadata.json").write_text(json.dumps({"cat_det_cats": categories}))


class Shade:
    """Says how bright a picture is, and counts how often it looked."""

    name = "shade"

    def __init__(self) -> None:
        self.looked = 0

    def caption(self, image: np.ndarray) -> str:
        self.looked += 1
        return f"A wall of {image.mean():.0f}."


class Inside:
    """The mask of a box is the box without its outermost pixels."""

    name = "inside"

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        masks = torch.zeros(len(boxes_xyxy), *image.shape[:2], dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes_xyxy.int().tolist(), strict=True):
            mask[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = True
        return MaskSet(masks, torch.ones(len(masks)), "inside")


def question(thing: str, number: int = 0) -> dict[str, str]:
    """One that passes for any thing: it holds no word that names one."""
    return {"question": f"What would somebody want for purpose {number} of today?", "answer": thing}


def well(request: Request, number: int) -> Reply:
    """One good question a thing, in a fence."""
    entries = [question(thing, place) for place, thing in enumerate(request.things)]
    return Reply(f"Sure!\n```json\n{json.dumps(entries)}\n```")


@dataclass
class World:
    """The folders of a build, and how to run it."""

    root: Path

    @property
    def output(self) -> Path:
        return self.root / "out"

    def build(self, endpoint: Endpoint, output: Path | None = None, **more: Any) -> dict[str, Any]:
        model = ChatEndpoint(endpoint.url, "stand-in", pause=0.01, retries=2, timeout=10)
        settings = more.pop("settings", Settings(shares=(4, 2, 2), rules=Rules(most=4)))
        arguments = {"lvis_root": self.root / "lvis", "ego_root": self.root / "ego", "boxes": Inside(), "per_shard": 3}
        captioner = more.pop("captioner", None) or Shade()
        return llm_seg40k.build_llm_seg40k(
            output or self.output, captioner, model, settings=settings, **(arguments | more)
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("MASKSELECT_INDEX", str(tmp_path / "indexes"))
    write_lvis(tmp_path / "lvis")
    write_ego(tmp_path / "ego")
    return World(tmp_path)


def published(folder: Path) -> dict[str, bytes]:
    names = ("train.json", "validation.json", "test.json", "report.json")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def images_of(folder: Path) -> dict[str, Any]:
    return {
        k: v for name, data in published(folder).items() if name != "report.json" for k, v in json.loads(data).items()
    }


def rejected(report: dict[str, Any]) -> dict[str, int]:
    return {reason: number for reason, number in report["questions"]["rejected"].items() if number}


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
        assert told[1].endswith("is of size [5, 6], its annotations of [24, 40]")
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
        model, kept = ChatEndpoint(endpoint.url, "stand-in"), Kept(world.root / "kept")
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


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"simple": -1}, "numbers of images"),
        ({"simple": 0, "complex": 0, "ego_objects": 0}, "numbers of images"),
        ({"shares": (0, 0, 0)}, "expected those of train, validation and test"),
        ({"shares": (float("nan"), 1, 1)}, "expected those of train, validation and test"),
        ({"attempts": 0}, "attempts must be at least 1"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Settings(**change)


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
