"""The training data of Text4Seg and Text4Seg++: questions about classes, records, and a training item of each kind."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser
from PIL import Image

from maskselect.backends.training_data import training_data
from maskselect.cli import building
from maskselect.codecs.descriptors import DescriptorCodec
from maskselect.data.groups import DatasetGroups
from maskselect.data.llava import DialogueGroups
from maskselect.data.mixing import JoinedGroups
from maskselect.data.panoptic import readable
from maskselect.data.semantic import COCO_STUFF
from maskselect.evaluation.leakage import find_overlaps
from maskselect.lmm.llava import Llava
from maskselect.recipes.text4seg.build import RecordWriter, build_records, codec_of, count_recipe
from maskselect.recipes.text4seg.classes import ClassGroups
from maskselect.recipes.text4seg.mixture import RECIPES, ROOTS, Part, RecipeGroups
from maskselect.recipes.text4seg.names import COCO_STUFF_NAMES
from maskselect.structures.groups import PrepareSettings, Query
from maskselect.systems.text4seg import Text4Seg
from tests.data.test_panoptic import DOG as DOG_ID
from tests.data.test_panoptic import SKY as SKY_ID
from tests.data.test_panoptic import ids_map, root_of, segment
from tests.recipes.test_commands import run
from tests.recipes.test_maskgroups_2m import refer
from tests.systems.tiny import SIZES

BUILDING, SKY, TREE, DOG = (COCO_STUFF.index(name) for name in ("building-other", "sky", "tree", "dog"))
ABSENT = {"street sign", "hat", "shoe", "eye glasses", "plate", "mirror", "window", "desk", "door", "blender",
          "hair brush"}  # fmt: skip
"""Classes of the published list of 182 that no image has."""
TALKS = [
    {"id": "1", "image": "coco/train2017/a.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A bus."},
        {"from": "human", "value": "What colour?"}, {"from": "gpt", "value": "Red."},
    ]},
    {"id": "text", "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]},
    {"id": "2", "image": "vg/VG_100K/b.jpg", "conversations": [
        {"from": "human", "value": "<image>\nAnd?"}, {"from": "gpt", "value": "Yes."},
    ]},
]  # fmt: skip


def stuff(root: Path) -> Path:
    """Two images: sky above a building, with a tree, a dog, and unlabelled pixels; the other one is sky alone."""
    labels = {"000000000009": np.full((48, 64), SKY), "000000000025": np.full((48, 64), SKY)}
    label = labels["000000000009"]
    label[20:] = BUILDING
    label[10:40, 40:50] = TREE
    label[30:46, 4:20] = DOG
    label[24:30, 52:60] = 255
    for folder in ("stuffthingmaps/train2017", "train2017"):
        (root / folder).mkdir(parents=True)
    for name, values in labels.items():
        Image.fromarray(values.astype(np.uint8)).save(root / "stuffthingmaps/train2017" / f"{name}.png")
        # The red channel shows the label, so that a test can see where a crop comes from.
        picture = np.stack([values, np.indices(values.shape)[0] * 4, np.indices(values.shape)[1] * 3], -1)
        Image.fromarray(picture.astype(np.uint8)).save(root / "train2017" / f"{name}.jpg", format="PNG")
    return root


def llava(root: Path) -> Path:
    (root / "llava_v1_5_mix665k.json").parent.mkdir(parents=True)
    (root / "llava_v1_5_mix665k.json").write_text(json.dumps(TALKS))
    for record in TALKS:
        if "image" in record:
            path = root / str(record["image"])
            path.parent.mkdir(parents=True)
            Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(path)
    return root


def records_of(folder: Path, part: str) -> list[dict[str, Any]]:
    files = sorted(folder.glob(f"{part}-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def read_rows(text: str) -> list[list[str]]:
    """Row-wise run lengths by the paper's form: rows by line feed and space, items by pipe and space, `label *n`."""
    body = text.partition("<seg>")[2].partition("</seg>")[0].strip("\n")
    rows = []
    for row in body.split("\n "):
        pairs = [item.split(" *") for item in row.split("| ")]
        rows.append([label for label, count in pairs for _ in range(int(count))])
    return rows


def test_names_of_classes() -> None:
    assert set(COCO_STUFF_NAMES) == set(COCO_STUFF) - ABSENT and len(COCO_STUFF_NAMES) == 171
    names = Counter(name for names in COCO_STUFF_NAMES.values() for name in names)
    assert max(names.values()) == 1 and "others" not in names
    assert all(name == name.strip() and not set(name) & set("|*<>\n,") for name in names)


def test_the_command_offers_what_the_recipes_have() -> None:
    assert tuple(RECIPES) == building.RECIPES and tuple(building.ROOTS) == ROOTS
    assert {part.root for parts in RECIPES.values() for part in parts} == set(ROOTS)
    for parts in RECIPES.values():
        assert len({part.name for part in parts}) == len(parts)


def crops(tmp_path: Path, **more: Any) -> ClassGroups:
    root = tmp_path / "coco"
    settings: dict[str, Any] = {"crops": (16, 32, 100), "passes": 20} | more
    return ClassGroups("coco-stuff", root if root.exists() else stuff(root), **settings)


def test_crops_hold_their_own_pixels(tmp_path: Path) -> None:
    source = crops(tmp_path)
    assert len(source) == 40 and len({source.image_id(item) for item in range(40)}) == 40
    label = np.array(Image.open(tmp_path / "coco/stuffthingmaps/train2017/000000000009.png"))
    seen = set()
    for item in range(0, 40, 2):
        annotated = source.load(item)
        side = annotated.image.shape[0]
        top, left = annotated.image[0, 0, 1] // 4, annotated.image[0, 0, 2] // 3
        assert annotated.image.shape == (side, side, 3) and side in (16, 32) and annotated.file is None
        expected = label[top : top + side, left : left + side]
        classes = json.loads(bytes(annotated.extra["classes"].numpy()))
        assert len(np.unique(expected)) > 1
        own = {name: annotated.masks[places].any(0).numpy() for name, places in classes}
        assert set(own) == {COCO_STUFF[value] for value in np.unique(expected) if value != 255}
        for name, mask in own.items():
            assert np.array_equal(mask, expected == COCO_STUFF.index(name))
        seen.add((int(top), int(left), side))
        assert source.load(item) == annotated
    assert len(seen) > 15  # each pass has its own crop
    with pytest.raises(ValueError, match="none of 8 crops has two labels"):
        source.load(1)
    assert ClassGroups("coco-stuff", tmp_path / "coco", crops=(100,)).load(0).image.shape == (48, 48, 3)
    whole = ClassGroups("coco-stuff", tmp_path / "coco").load(0)
    assert whole.image.shape == (48, 64, 3) and whole.file == tmp_path / "coco/train2017/000000000009.jpg"


def test_questions_have_the_published_shares(tmp_path: Path) -> None:
    source = crops(tmp_path, crops=())
    annotated, rng = source.load(0), np.random.default_rng(0)
    drawn = [source.queries(0, annotated.extra, 9, rng) for _ in range(3000)]
    assert {len(queries) for queries in drawn} == {2}
    first = Counter(queries[0].group for queries in drawn)
    assert [first[group] / 3000 for group in ("all", "partial", "condition")] == pytest.approx(
        [0.1, 0.3, 0.6], abs=0.03
    )
    assert {q[1].group for q in drawn if q[0].group == "all"} == {"condition"}
    assert {q[1].group for q in drawn if q[0].group != "all"} == {"all", "partial", "condition"}

    present = {"building", "sky", "tree", "dog"}
    every = [query for queries in drawn for query in queries]
    whole = [query for query in every if query.group == "all"]
    assert all(query.text == "everything" and len(query.targets) == 4 for query in whole)
    dogs = Counter(label for query in whole for label in query.labels if label in COCO_STUFF_NAMES["dog"])
    assert sum(dogs.values()) == len(whole)
    assert dogs["hound"] / len(whole) == pytest.approx(0.8 / 2, abs=0.06)  # one of two names, with probability 0.8

    masks = {place: name for name, places in json.loads(bytes(annotated.extra["classes"].numpy())) for place in places}
    for query in (query for query in every if query.group != "all"):
        listed = query.text.split("|")
        assert [COCO_STUFF_NAMES[masks[place]][0] for place in query.targets] == list(query.labels)
        assert set(listed) & present == set(query.labels) != set() and len(set(listed)) == len(listed)
        if query.group == "partial":
            assert set(listed) == set(query.labels)
    partial = Counter(len(query.targets) for query in every if query.group == "partial")
    assert set(partial) == {1, 2, 3, 4}
    lists = [set(query.text.split("|")) for query in every if query.group == "condition"]
    assert np.mean(["others" in one for one in lists]) == pytest.approx(0.5, abs=0.03)
    absent = [len(one - present - {"others"}) for one in lists]
    assert np.mean([number > 0 for number in absent]) == pytest.approx(0.9, abs=0.03)
    assert max(absent) > 150 and max(absent) <= 167


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    stuff(tmp_path / "coco")
    for settings, message in (
        ({"dataset": "refcoco"}, "has no classes; expected one of coco-stuff"),
        ({"shares": (1, 2)}, "expected those of all, partial, condition"),
        ({"passes": 0}, "expected numbers from 1"),
    ):
        arguments: dict[str, Any] = {"dataset": "coco-stuff", "root": tmp_path / "coco"} | settings
        with pytest.raises(ValueError, match=message):
            ClassGroups(**arguments)
    for arguments, message in (
        ({"recipe": "text4seg"}, "expected one of text4seg-res"),
        ({"recipe": "text4seg-ovs", "roots": {}}, "expected one or more of coco"),
        ({"recipe": "text4seg-ovs", "roots": {"stuff": "x"}}, "unknown root 'stuff'"),
        ({"recipe": "text4seg-ovs", "parts": ["muse"]}, "has no part 'muse'"),
        ({"recipe": "text4segpp", "parts": ["muse"]}, "needs the root 'muse'"),
    ):
        with pytest.raises(ValueError, match=message):
            RecipeGroups(**({"roots": {"coco": tmp_path / "coco"}} | arguments))


def test_one_training_has_expressions_classes_and_dialogues(tmp_path: Path) -> None:
    root = refer(tmp_path / "refer")
    sources = [
        ClassGroups("coco-stuff", stuff(tmp_path / "coco"), shares=(0, 0, 1)),
        DatasetGroups("refcoco", root),
        DialogueGroups(llava(tmp_path / "llava")),
    ]
    joined = JoinedGroups(sources, [1, 3, 2])
    assert [joined.place(item) for item in range(len(joined))] == [
        (0, 0), (0, 1), *[(1, n) for _ in range(3) for n in range(len(sources[1]))], *[(2, n) for n in (0, 1, 0, 1)],
    ]  # fmt: skip
    codec = DescriptorCodec(grid=16, special_tags=True)
    torch.manual_seed(0)
    system = Text4Seg(Llava(sizes=SIZES), codec, "text4seg", side=32, label="prompt", phrasing="sentences")
    preparer, rng = system.preparer(PrepareSettings(), True), np.random.default_rng(0)

    item = preparer.prepare(joined, 0, rng, 8)
    label = Image.open(tmp_path / "coco/stuffthingmaps/train2017/000000000009.png").resize((16, 16), Image.NEAREST)
    names = np.array([[_named(value) for value in row] for row in np.array(label)])
    for question, answer in item.texts:
        listed = set(re.split(r"[|:.]\s*|classes are |labels |of |with | and ", question))
        asked = {name for name in ("building", "sky", "tree", "dog") if name in listed}
        assert asked and "|" in question
        assert read_rows(answer) == np.where(np.isin(names, list(asked)), names, "others").tolist()

    (question, answer), *_ = preparer.prepare(joined, 2, rng, 1).texts
    words = {label for row in read_rows(answer) for label in row} - {"others"}
    assert len(words) == 1 and words.pop() in question.lower()

    talk = preparer.prepare(joined, len(joined) - 2, rng, 8)
    assert talk.texts == [("What is it?", "A bus."), ("What is it?\nA bus.\nWhat colour?", "Red.")]
    assert [len(references) for references in talk.references] == [0, 0]
    assert joined.prompts_of(len(joined) - 2) == 2
    batch = preparer.collate([preparer.prepare(joined, number, rng, 2) for number in (0, 2, len(joined) - 1)])
    loss = system.loss(batch)["loss"]
    loss.backward()
    assert float(loss.detach()) > 0
    with pytest.raises(ValueError, match="expected a number from 1 for each source"):
        JoinedGroups(sources, [1, 0, 2])


def _named(value: int) -> str:
    return "others" if value == 255 else COCO_STUFF_NAMES[COCO_STUFF[value]][0]


def test_the_source_of_a_recipe(tmp_path: Path) -> None:
    roots = {"coco": stuff(tmp_path / "coco"), "llava": llava(tmp_path / "llava")}
    arguments = {"recipe": "text4seg-ovs", "roots": roots}
    source = RecipeGroups(**arguments)  # type: ignore[arg-type]
    assert len(source) == 20 and source.passes == [1]
    assert RecipeGroups.needs(arguments) == []
    config = {"class_path": "maskselect.recipes.text4seg.mixture.RecipeGroups", "init_args": arguments}
    (data,) = training_data(config)
    assert (data.dataset, data.split, data.share) == ("coco-stuff", "train2017", 1.0)
    (need,) = RecipeGroups.needs({"recipe": "text4seg-665k", "roots": {"llava": tmp_path / "none"}})
    assert need.kind == "data" and "llava" in need.what


def test_records_of_crops_are_those_of_the_images(tmp_path: Path) -> None:
    roots = {"coco": stuff(tmp_path / "coco")}
    rows, counts, left_out = build_records("text4seg-ovs", roots, tmp_path / "out", seed=3)
    records = records_of(tmp_path / "out", "coco-stuff")
    assert len(records) == 10 == rows[0].samples == counts["records"] and len(left_out) == 10
    assert all("none of 8 crops" in reason for reason in left_out.reasons.values())
    for record in records:
        ((question, answer),) = record["history"]
        image = np.array(Image.open(record["images"][0]))
        assert Path(record["images"][0]).parent == tmp_path / "out/images/coco-stuff"
        assert image.shape == (48, 48, 3)  # smaller than all published crops
        for text in (answer, record["response"]):
            rows_read = read_rows(text)
            assert len(rows_read) == 32 and {len(row) for row in rows_read} == {32}
        assert question and record["query"] and record.keys() == {"query", "response", "images", "history"}


def test_a_build_goes_on_and_tries_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, output = llava(tmp_path / "llava"), tmp_path / "out"
    image = root / "vg/VG_100K/b.jpg"
    content = image.read_bytes()
    image.unlink()
    asked = ["text4seg", "--recipe", "text4seg-665k", "--llava", root, "--output", output]
    status, out, err = run(capsys, *asked)
    assert status == 1 and "were left out" in err and "b.jpg" in err and "665,000" in out
    assert [record["query"] for record in records_of(output, "llava")] == ["What colour?"]
    image.write_bytes(content)
    status, out, err = run(capsys, *asked)
    assert (status, err) == (0, "")
    first, second = records_of(output, "llava")
    picture = root / "coco/train2017/a.jpg"
    assert first == {
        "query": "What colour?",
        "response": "Red.",
        "images": [str(picture)],
        "history": [["What is it?", "A bus."]],
    }
    assert second == {"query": "And?", "response": "Yes.", "images": [str(image)]}
    files = {path: path.stat().st_mtime_ns for path in output.glob("*.jsonl")}
    assert run(capsys, *asked)[0] == 0 and files == {path: path.stat().st_mtime_ns for path in output.glob("*.jsonl")}
    status, _, err = run(capsys, *asked, "--seed", 1)
    assert status == 2 and "other settings (seed)" in err
    report = json.loads((output / "composition.json").read_text())
    assert report["parts"][0] == {
        "part": "llava", "passes": 1, "images": 2, "samples": 2, "paper_images": None, "paper_samples": 665_000,
    }  # fmt: skip


def test_counts_are_those_of_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = refer(tmp_path / "refer")
    asked = ["text4seg", "--refer", root, "--parts", "refcoco", "grefcoco"]
    status, out, err = run(capsys, *asked, "--count")
    assert (status, err) == (0, "") and "209,000" in out and not (tmp_path / "out").exists()
    parts = ["refcoco", "grefcoco"]
    counted = count_recipe("text4segpp", {"refer": root}, parts)
    rows, counts, left_out = build_records("text4segpp", {"refer": root}, tmp_path / "out", parts)
    assert rows == counted and not left_out and sum(row.samples for row in rows) == counts["records"] > 0
    status, _, err = run(capsys, *asked)
    assert status == 2 and "--output is missing" in err
    none = [record for record in records_of(tmp_path / "out", "grefcoco") if "<seg>" not in record["response"]]
    assert len(none) == counts["prompts without a target"] + counts["targets without a pixel"]
    # Twice as many records in the recipe that passes over them twice, with other sentences.
    (twice,), _, _ = build_records("text4seg-gres", {"refer": root}, tmp_path / "gres")
    assert twice.samples == 2 * counted[1].samples and twice.passes == 2
    (one,), _, _ = build_records("text4seg-gres", {"refer": root}, tmp_path / "one", limit=1)
    assert one.images == 1 and one.samples == 2 * 2 and twice.images == 2
    again, _, _ = build_records("text4seg-gres", {"refer": root}, tmp_path / "again", seed=0)
    assert again == [twice] and records_of(tmp_path / "gres", "grefcoco") == records_of(tmp_path / "again", "grefcoco")
    build_records("text4seg-gres", {"refer": root}, tmp_path / "other", seed=1)
    assert records_of(tmp_path / "gres", "grefcoco") != records_of(tmp_path / "other", "grefcoco")


def earth(root: Path) -> Path:
    """Two aerial images with two questions each; the second one shows nothing of what is asked."""
    for name, answer in (("a", ["there"]), ("b", [])):
        for part in ("images", "labels", "QAs"):
            (root / "train" / part).mkdir(parents=True, exist_ok=True)
        mask = np.zeros((16, 16), np.uint8)
        mask[2:6] = 255 * bool(answer)
        Image.fromarray(mask).save(root / f"train/labels/{name}.png")
        Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(root / f"train/images/{name}.jpg")
        (root / f"train/QAs/{name}.json").write_text(json.dumps({"questions": ["where?", "what?"], "answer": answer}))
    return root


def muse(root: Path) -> Path:
    """One image and one question with two answers."""
    (root / "coco/train2017").mkdir(parents=True)
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(root / "coco/train2017/1.jpg")
    answer = [{"id": n, "segmentation": [[x, 0, x + 4, 0, x + 4, 4, x, 4]]} for n, x in ((1, 0), (2, 8))]
    record = {"file_name": "1.jpg", "height": 16, "width": 16, "questions": ["what holds tea?"], "answers": [answer]}
    (root / "muse_train.json").write_text(json.dumps([record]))
    return root


def test_reasoning_masks_are_numbered_and_descriptions_are_labels(tmp_path: Path) -> None:
    described = [segment(SKY_ID, 187, description="A pale sky"), segment(DOG_ID, 18, description="a dog that sits")]
    ids = ids_map()
    ids[~np.isin(ids, (SKY_ID, DOG_ID))] = 0
    roots = {"muse": muse(tmp_path / "muse"), "earthreason": earth(tmp_path / "earth"), "pix2cap": tmp_path / "coco"}
    root_of(roots["pix2cap"], described, "pix2cap_coco_train.json")
    channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(channels).save(roots["pix2cap"] / "panoptic_train2017" / f"{6:012}.png")
    rows, _, left_out = build_records("text4segpp", roots, tmp_path / "out")
    assert not left_out and {row.part: row.samples for row in rows} == {"pix2cap": 3, "muse": 1, "earthreason": 20}
    (record,) = records_of(tmp_path / "out", "muse")
    assert [label for label, _ in groups_of(record["response"])] == ["roi0", "roi1"]
    asked = Counter(
        (Path(r["images"][0]).stem, "where?" in r["query"], "roi0" in r["response"])
        for r in records_of(tmp_path / "out", "earthreason")
    )
    assert asked == {("a", True, True): 5, ("a", False, True): 5, ("b", True, False): 5, ("b", False, False): 5}
    labels = {label for r in records_of(tmp_path / "out", "pix2cap") for label, _ in groups_of(r["response"])}
    assert labels == {"a pale sky", "a dog that sits", "bricks"}


def test_a_config_names_the_recipe(tmp_path: Path) -> None:
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    arguments = {"recipe": "text4seg-665k", "roots": {"llava": str(llava(tmp_path / "llava"))}}
    train = {"class_path": "maskselect.recipes.text4seg.mixture.RecipeGroups", "init_args": arguments}
    val = {"class_path": "maskselect.scenes.groups.SceneGroups", "init_args": {"count": 2}}
    path = "maskselect.training.data.GroupsData"
    parsed = parser.parse_object({"data": {"class_path": path, "init_args": {"train": train, "val": val}}})
    instantiate = getattr(parser, "instantiate", parser.instantiate_classes)
    source = instantiate(parsed).data.train_source
    assert isinstance(source, RecipeGroups) and [part.name for part in source.parts] == ["llava"] and len(source) == 2
    own = training_data(train | {"init_args": {"recipe": "text4seg-res", "roots": {"refer": "data"}}})
    assert len(find_overlaps(own, "refcoco", "train")) >= 1


# Real samples.
def groups_of(text: str) -> list[tuple[str, np.ndarray]]:
    """Labels and 64 x 64 cells of box-wise descriptors, by the paper's form, written row by row."""
    found = []
    form = r"<ref>([^<]+)</ref><box>\[\[(\d+) (\d+) (\d+) (\d+)\]\]</box><seg>([^<]+)</seg>"
    for label, x1, y1, x2, y2, body in re.findall(form, text):
        cells = np.zeros((64, 64), bool)
        lines = body.split("\n")
        assert len(lines) == int(y2) - int(y1) + 1
        for row, line in enumerate(lines, int(y1)):
            column = int(x1)
            for colour, length in re.findall(r"(fg|bg)(\d+)", line):
                cells[row, column : column + int(length)] = colour == "fg"
                column += int(length)
            assert column == int(x2) + 1
        found.append((label, cells))
    return found


def test_real_panoptic(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "coco_panoptic_mini/panoptic_segmentation/annotations"
    root = tmp_path / "coco"
    root.mkdir()
    (root / "annotations").symlink_to(source)
    (root / "train2017").symlink_to(shared_data / "coco128/train2017")
    rows, _, left_out = build_records("text4segpp", {"coco": root}, tmp_path / "out")
    records = records_of(tmp_path / "out", "coco-panoptic")
    assert not left_out and len(records) == 200 == rows[0].samples and rows[0].images == 100
    data = json.loads((source / "panoptic_train2017.json").read_text())
    categories = {one["id"]: readable(one["name"]) for one in data["categories"]}
    annotations = {one["image_id"]: one for one in data["annotations"]}
    compared = 0
    for record in records[::10]:
        annotation = annotations[int(Path(record["images"][0]).stem)]
        pixels = np.array(Image.open(source / "panoptic_train2017" / annotation["file_name"])).astype(int)
        ids = pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
        written = groups_of(record["response"])
        for label in {label for label, _ in written}:
            own = [cells for name, cells in written if name == label]
            segments = [s["id"] for s in annotation["segments_info"] if categories[s["category_id"]] == label]
            expected = [
                np.array(Image.fromarray(ids == segment).convert("L").resize((64, 64), Image.NEAREST)) > 0
                for segment in segments
            ]
            crowds = sum(s["iscrowd"] for s in annotation["segments_info"] if categories[s["category_id"]] == label)
            assert len(own) == len(segments) - crowds
            for cells in own:  # a mask that vanishes keeps one cell
                assert any(np.array_equal(cells, one) for one in expected) or cells.sum() == 1
                compared += 1
    assert compared > 50


@pytest.mark.parametrize(
    ("dataset", "folder", "reasoning"), [("refcoco", "refcoco_mini", False), ("reasonseg", "reasonseg_sample", True)]
)
def test_real_prompts(shared_data: Path, tmp_path: Path, dataset: str, folder: str, reasoning: bool) -> None:
    part = Part(dataset, dataset, "val", dataset, settings={"reasoning": reasoning})
    worker = RecordWriter(part, shared_data / folder, codec_of("text4segpp"), tmp_path, 0)
    assert isinstance(worker.source, DatasetGroups)
    samples = list(worker.source.samples)
    built = [worker.build({"pass": 0, "item": item}) for item in range(len(worker.source))]
    records = [record for one in built for record in one.records]
    assert len(records) == len(samples)
    for record in records:
        image = Path(record["images"][0])
        own = [one for one in samples if one.image == image and one.prompt.text in record["query"]]
        sample = max(own, key=lambda one: len(one.prompt.text))
        groups = groups_of(record["response"])
        expected = {f"roi{n}" for n in range(len(sample.targets))} if reasoning else {sample.prompt.text.lower()}
        assert {label for label, _ in groups} == expected
        union = Image.fromarray(sample.target_mask.numpy()).convert("L").resize((64, 64), Image.NEAREST)
        cells = np.any([cells for _, cells in groups], axis=0)
        assert (cells != (np.array(union) > 0)).mean() < 0.001


def test_labels_follow_their_masks_when_instances_are_ordered() -> None:
    system = Text4Seg(Llava(sizes=SIZES), codec_of("text4segpp"), side=32, instance_order="left_to_right")
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, :, 20:30], masks[1, :, 2:8] = True, True
    named = Query("all", (), (0, 1), labels=("cat", "dog"), group="all")
    for query, expected in ((named, ["dog", "cat"]), (Query("which?", (), (0, 1)), ["roi0", "roi1"])):
        _, answer = system.written(query, masks, None)
        groups = groups_of(answer)
        assert [label for label, _ in groups] == expected and groups[0][1][:, 4].all() and groups[1][1][:, 40].all()
