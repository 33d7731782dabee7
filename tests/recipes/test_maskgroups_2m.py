"""MaskGroups-2M from tiny sources in their true forms: what is asked, what must not be used, the same every time."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.data.catalog import find_entry
from maskselect.data.groups import DatasetGroups
from maskselect.data.maskgroups_2m import MaskGroups2MDataset
from maskselect.recipes.maskgroups_2m.build import COMPOSITION, Roots, build_maskgroups_2m, evaluation_images
from maskselect.recipes.maskgroups_2m.sentences import asked
from maskselect.recipes.maskgroups_2m.sources import Rules
from maskselect.structures.masks import MaskSet
from maskselect.structures.sample import MASK_REF, Sample

SIZE = (40, 60)
FAIR, TESTED = 11, 12
"""COCO's numbers of an image that may be used, and of one that RefCOCO tests on."""


def square(x: int, y: int, side: int = 10) -> list[list[int]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def annotation(number: int, image: int, category: int, x: int, y: int, **more: Any) -> dict[str, Any]:
    outline = {"segmentation": square(x, y), "bbox": [x, y, 10, 10], "iscrowd": 0}
    return {"id": number, "image_id": image, "category_id": category} | outline | more


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def image_record(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "height": SIZE[0], "width": SIZE[1]} | more


def coco(root: Path) -> Path:
    """Three cups, one of them across another image's border of training and test; a crowd of dogs beside two dogs."""
    images = [image_record(n, file_name=f"{n:012d}.jpg") for n in (FAIR, TESTED)]
    annotations = [
        annotation(1, FAIR, 47, 0, 0),
        annotation(2, FAIR, 47, 20, 0),
        annotation(3, FAIR, 18, 0, 20),
        annotation(4, FAIR, 18, 20, 20),
        annotation(5, FAIR, 18, 40, 20, iscrowd=1),
        annotation(6, TESTED, 47, 0, 0),
        annotation(7, TESTED, 47, 20, 0),
    ]
    names = [{"id": 47, "name": "cup"}, {"id": 18, "name": "dog"}]
    write(
        root / "annotations/instances_train2017.json",
        {"images": images, "annotations": annotations, "categories": names},
    )
    for image in images:
        picture(root / "train2017" / image["file_name"])
    return root


def lvis(root: Path) -> Path:
    """The same cups as "mug", a third one that COCO lacks, and two plates of which there are more."""
    url = "http://images.cocodataset.org/train2017/%012d.jpg"
    images = [
        image_record(n, coco_url=url % n, neg_category_ids=[], not_exhaustive_category_ids=[3]) for n in (FAIR, TESTED)
    ]
    annotations = [
        annotation(1, FAIR, 2, 0, 0),
        annotation(2, FAIR, 2, 21, 0),  # drawn a pixel beside COCO's
        annotation(3, FAIR, 2, 40, 0),
        annotation(4, FAIR, 3, 0, 30),
        annotation(5, FAIR, 3, 20, 30),
        annotation(6, TESTED, 2, 0, 0),
        annotation(7, TESTED, 2, 20, 0),
    ]
    names = [{"id": 2, "name": "mug"}, {"id": 3, "name": "plate"}]
    write(root / "lvis_v1_train.json", {"images": images, "annotations": annotations, "categories": names})
    for image in images:
        picture(root / "train2017" / f"{image['id']:012d}.jpg")
    return root


def thing(number: int, name: str, x: int, y: int, **more: Any) -> dict[str, Any]:
    return {"object_id": number, "names": [name], "synsets": [], "x": x, "y": y, "w": 10, "h": 10} | more


def genome(root: Path) -> Path:
    """Image 1 is nobody's; image 2 is COCO's that is tested on; image 3 is COCO's that may be used."""
    man, hat, coat = thing(1, "man", 0, 20), thing(2, "hat", 0, 0), thing(3, "coat", 45, 20)
    other, faint = thing(4, "hat", 45, 0), thing(5, "hat", 30, 30)
    again = thing(6, "cap", 0, 1)  # the first hat, drawn once more
    objects = [man, hat, coat, other, faint, again]
    images = (1, 2, 3)
    write(root / "objects.json", [{"image_id": n, "objects": objects} for n in images])
    coco_ids = {1: None, 2: TESTED, 3: FAIR}
    write(
        root / "image_data.json",
        [{"image_id": n, "width": SIZE[1], "height": SIZE[0], "coco_id": coco_ids[n]} for n in images],
    )
    told = [thing(1, "man", 0, 20, attributes=["red"]), thing(4, "hat", 45, 0, attributes=["red"])]
    write(root / "attributes.json", [{"image_id": n, "attributes": told} for n in images])
    relations = [{"predicate": "Wears", "subject": man, "object": end} for end in (hat, coat, faint)]
    write(root / "relationships.json", [{"image_id": n, "relationships": relations} for n in images])
    for n in images:
        picture(root / "VG_100K" / f"{n}.jpg")
    return root


def refer(root: Path) -> Path:
    """RefCOCO: one training image, one image of testA. gRefCOCO: a reference to two and one to none."""
    instances = {
        "images": [image_record(n, file_name=f"COCO_train2014_{n:012d}.jpg") for n in (FAIR, TESTED)],
        "annotations": [annotation(1, FAIR, 47, 0, 0), annotation(2, FAIR, 47, 20, 0), annotation(6, TESTED, 47, 0, 0)],
        "categories": [{"id": 47, "name": "cup"}],
    }

    def ref(number: int, image: int, answer: Any, split: str, *sentences: str) -> dict[str, Any]:
        told = [{"sent_id": 10 * number + k, "sent": text} for k, text in enumerate(sentences)]
        return {"ref_id": number, "image_id": image, "ann_id": answer, "split": split, "sentences": told}

    refs = [ref(1, FAIR, 1, "train", "left cup ", "the cup that stands left"), ref(2, TESTED, 6, "testA", "the cup")]
    grefs = [
        ref(1, FAIR, [1, 2], "train", "both cups"),
        ref(2, FAIR, [-1], "train", "a giraffe"),
        # It is in gRefCOCO's training split, and in RefCOCO's test.
        ref(3, TESTED, [6], "train", "any cup"),
    ]
    write(root / "refcoco/refs(unc).json", refs)
    write(root / "grefcoco/grefs(unc).json", grefs)
    for name in ("refcoco", "grefcoco"):
        write(root / name / "instances.json", instances)
    for image in instances["images"]:
        picture(root / "images/train2014" / image["file_name"])
    return root


class Boxes:
    """Fills boxes; the one at (30, 30) with little confidence."""

    name = "boxes"

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: torch.Tensor) -> MaskSet:
        masks = torch.zeros(len(boxes_xyxy), *image.shape[:2], dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes_xyxy.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        faint = (boxes_xyxy[:, 0] == 30) & (boxes_xyxy[:, 1] == 30)
        return MaskSet(masks, torch.where(faint, 0.2, 0.9), "boxes")


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    sources = tmp_path / "sources"
    made = {"coco": coco(sources / "coco"), "lvis": lvis(sources / "lvis"), "genome": genome(sources / "vg")}
    return Roots(refer(sources / "refer"), **made)


SETS = ("refcoco", "grefcoco")


def build(roots: Roots, output: Path, **more: Any) -> tuple[dict[tuple[str, str, bool], int], Any, list[Sample]]:
    rows, counts = build_maskgroups_2m(roots, output, **({"sets": SETS, "boxes": Boxes()} | more))
    return {row[:3]: row.built for row in rows}, counts, list(MaskGroups2MDataset(output))


def test_composition_and_counts(roots: Roots, tmp_path: Path) -> None:
    made, counts, samples = build(roots, tmp_path / "out")
    # Mugs by LVIS, cups by COCO. Images 1 and 3 of Visual Genome: two hats (the third is too faint), two red things, a
    # hat beside the man and one beside the coat, two sides on which all objects are asked for, the man who wears two
    # things.
    assert made == {
        ("coco", "category", False): 2,
        ("coco", "category", True): 2,
        ("vg", "category", False): 2,
        ("vg", "attribute", False): 2,
        ("vg", "absolute position", False): 4,
        ("vg", "category", True): 2,
        ("vg", "attribute", True): 2,
        ("vg", "relative position", True): 8,
        ("vg", "interaction", True): 2,
        ("refer", "free", False): 4,
    }
    assert sum(made.values()) == len(samples)
    assert counts["Visual Genome: boxes"] == 12 and counts["Visual Genome: masks of low score"] == 2
    assert counts["Visual Genome: objects after merging"] == 8
    assert (counts["COCO and LVIS: objects"], counts["COCO and LVIS: objects after merging"]) == (9, 7)
    report = json.loads((tmp_path / "out" / COMPOSITION).read_text())
    assert report["composition"][0]["paper"] == 166 and report["rules"]["seed"] == 0


def test_coco_and_lvis_are_one(roots: Roots, tmp_path: Path) -> None:
    _, _, samples = build(Roots(roots.refer, roots.coco, roots.lvis), tmp_path / "out")
    plain, referring, cups, _ = [s for s in samples if s.kind == "category"]
    # LVIS knows three mugs, COCO two of them as cups. Dogs have a crowd and plates are not all drawn.
    assert "cup" in cups.prompt.text and cups.targets == (0, 1)
    assert "mug" in plain.prompt.text and plain.targets == (0, 1, 2)
    assert plain.gt_pool[1, 0, 30] and not plain.gt_pool[1, 0, 20]  # LVIS' outline, not COCO's
    assert len(plain.gt_pool) == 7 and referring.reference_ids[0] in (0, 1, 2)
    assert torch.equal(referring.prompt.references[0], referring.gt_pool[referring.reference_ids[0]])
    alone, _, _ = build(Roots(roots.refer, coco=roots.coco), tmp_path / "alone")
    assert alone["coco", "category", False] == 1


def test_sentences(roots: Roots, tmp_path: Path) -> None:
    _, _, samples = build(Roots(roots.refer), tmp_path / "out")
    written = ["left cup", "the cup that stands left", "both cups", "a giraffe"]
    select = ["Select the left cup", "Select the cup that stands left", "Select the both cups", "Select the giraffe"]
    assert [(s.image_id, s.targets, s.kind) for s in samples] == [
        (f"coco/{FAIR}", targets, "free") for targets in ((0,), (0,), (0, 1), ())
    ]
    texts = [[s.prompt.text for s in samples]]
    texts += [[asked(text, np.random.default_rng(seed)) for text in written] for seed in range(9)]
    for found in texts:
        assert all(text in pair for text, pair in zip(found, zip(written, select, strict=True), strict=True))
    assert {text for found in texts for text in found} == {*written, *select}


def test_superlatives_are_ours_and_can_be_left_out(roots: Roots, tmp_path: Path) -> None:
    words = ("most ", "closest to")
    for number, on in enumerate((True, False)):
        _, _, samples = build(roots, tmp_path / str(number), rules=Rules(superlatives=on, absolute=99))
        assert any(word in s.prompt.text for s in samples for word in words) == on


def test_images_of_validation_and_test_are_nowhere(roots: Roots, tmp_path: Path) -> None:
    assert evaluation_images(roots.refer, SETS) == {TESTED}
    _, counts, samples = build(roots, tmp_path / "out")
    assert {s.image_id for s in samples} == {f"coco/{FAIR}", "vg/1"}
    assert not any(str(TESTED) in Path(str(s.image)).name or Path(str(s.image)).name == "2.jpg" for s in samples)
    assert counts["images left out, of validation and test"] == 1
    # Without RefCOCO nobody would know of it: then the same image is used by every source.
    _, _, leaking = build(roots, tmp_path / "leaking", sets=("grefcoco",))
    assert {Path(str(s.image)).name for s in leaking if s.image_id == f"coco/{TESTED}"} == {
        f"{TESTED:012d}.jpg",
        f"COCO_train2014_{TESTED:012d}.jpg",
        "2.jpg",
    }


def test_a_set_that_is_not_there_stops_the_build(roots: Roots, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"annotations of refcoco\+"):
        build_maskgroups_2m(roots, tmp_path / "out", boxes=Boxes())
    with pytest.raises(ValueError, match="Visual Genome has boxes only"):
        build_maskgroups_2m(roots, tmp_path / "out", sets=SETS)
    assert not (tmp_path / "out").exists()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def test_the_same_seed_gives_the_same_files(roots: Roots, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build(roots, tmp_path / name, rules=Rules(seed=seed), per_shard=1)
    assert len(files(tmp_path / "a")) == 4
    assert files(tmp_path / "a") == files(tmp_path / "b") != files(tmp_path / "c")


def test_it_goes_on_where_it_stopped(roots: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(roots, tmp_path / "whole", per_shard=1)
    hidden = roots.genome / "VG_100K/3.jpg"
    hidden.rename(tmp_path / "3.jpg")
    with pytest.raises(FileNotFoundError, match=r"3\.jpg"):
        build(roots, tmp_path / "out", per_shard=1)
    done = files(tmp_path / "out")
    assert len(done) == 3 and not (tmp_path / "out" / COMPOSITION).exists()
    (tmp_path / "3.jpg").rename(hidden)
    build(roots, tmp_path / "out", per_shard=1)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_training_reads_it(roots: Roots, tmp_path: Path) -> None:
    build(roots, tmp_path / "out", per_shard=2)
    groups = DatasetGroups("maskgroups-2m", tmp_path / "out")
    assert [groups.image_id(k) for k in range(len(groups))] == [f"maskgroups-2m/coco/{FAIR}", "maskgroups-2m/vg/1"]
    loaded = groups.load(1)
    asked = groups.queries(1, loaded.extra, 99, np.random.default_rng(0))
    assert loaded.image.shape == (*SIZE, 3) and len(asked) == 11
    for query in asked:
        assert query.text.count(MASK_REF) == len(query.references)
        assert all(bool(loaded.masks[place].any()) for place in query.references + query.targets)


def test_the_reader(roots: Roots, tmp_path: Path) -> None:
    build(roots, tmp_path / "out", per_shard=2)
    data = find_entry("maskgroups-2m").open(tmp_path / "out", "train")
    copy = pickle.loads(pickle.dumps(data))
    assert data.image_ids() == [s.image_id for s in data] and len(data) == len(copy)
    assert copy[len(copy) - 1].prompt.text == data[len(data) - 1].prompt.text
    assert Path(str(data[0].image)).is_file()
    (tmp_path / "out/train-00000-of-00002.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(ValueError, match="truncated or not parquet"):
        MaskGroups2MDataset(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no split 'val'"):
        MaskGroups2MDataset(tmp_path / "out", "val")


def test_another_folder_of_the_same_name_is_refused(roots: Roots, tmp_path: Path) -> None:
    elsewhere = tmp_path / "out/images/train2014"
    elsewhere.mkdir(parents=True)
    with pytest.raises(ValueError, match="choose another output folder"):
        build(Roots(roots.refer), tmp_path / "out")
