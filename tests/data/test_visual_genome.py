"""Visual Genome on tiny files in the published form, and on the real sample."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.data.visual_genome import Relation, Thing, VisualGenome, VisualGenomeDataset, box_masks


def thing(number: int, name: str, box: tuple[int, int, int, int], **more: Any) -> dict[str, Any]:
    x, y, w, h = box
    return {"object_id": number, "x": x, "y": y, "w": w, "h": h, "names": [name], "synsets": []} | more


MAN, HAT = thing(10, "man", (0, 0, 4, 8), merged_object_ids=[11, 12]), thing(20, "Hat ", (1, 0, 2, 2))
COAT = thing(30, "coat", (-2, 3, 5, 100))
OBJECTS = [
    {"image_id": 5, "objects": [MAN, HAT, COAT, thing(40, "line", (3, 3, 0, 4)), thing(41, "", (0, 0, 1, 1))]},
    {"image_id": 7, "objects": [thing(50, "hat", (0, 0, 3, 3)), thing(51, "hat", (5, 5, 3, 3))]},
]
ATTRIBUTES = [
    {
        "image_id": 5,
        "attributes": [
            thing(20, "hat", (1, 0, 2, 2), attributes=["Red", "red", "tall "]),
            thing(12, "man", (0, 0, 4, 8), attributes=["tall"]),
            thing(30, "coat", (0, 0, 1, 1)),  # the key may be absent
            thing(99, "nobody", (0, 0, 1, 1), attributes=["green"]),
        ],
    }
]


def relation(subject: dict[str, Any], predicate: str, target: dict[str, Any]) -> dict[str, Any]:
    return {"relationship_id": 1, "predicate": predicate, "synsets": [], "subject": subject, "object": target}


OLD_MAN = {"object_id": 11, "x": 0, "y": 0, "w": 4, "h": 8, "name": "man", "synsets": []}
SHADE = {"object_id": 77, "x": 6, "y": 6, "w": 2, "h": 2, "name": "shade", "synsets": []}
RELATIONS = [
    {
        "image_id": 5,
        "relationships": [
            relation(OLD_MAN, "WEARS", HAT),
            relation(MAN, "wears", HAT),  # the same again, by another number and in another case
            relation(OLD_MAN, "wears", COAT),
            relation(SHADE, "behind", MAN),
            relation(MAN, "is", MAN),
        ],
    },
    {"relationships": [relation(MAN, "cut", HAT)]},
]
IMAGES = [
    {"image_id": 5, "url": "u", "width": 10, "height": 8, "coco_id": 139, "flickr_id": 1},
    {"image_id": 7, "url": "u", "width": 10, "height": 8, "coco_id": None, "flickr_id": 1},
]


def write(root: Path, **change: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    content = {"image_data": IMAGES, "objects": OBJECTS, "attributes": ATTRIBUTES, "relationships": RELATIONS} | change
    for name, records in content.items():
        if records is not None:
            (root / f"{name}.json").write_text(records if isinstance(records, str) else json.dumps(records))
    for folder, name in (("VG_100K", "5"), ("VG_100K_2", "7")):
        (root / folder).mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(root / folder / f"{name}.jpg")
    return root


def test_an_image_with_everything_about_it(tmp_path: Path) -> None:
    genome = VisualGenome(write(tmp_path / "vg").parent)
    assert genome.image_ids() == [5, 7]
    image = genome.describe(5)
    assert (image.size, image.coco_id, genome.coco_id(7)) == ((8, 10), 139, None)
    assert image.things == (
        Thing(10, ("man",), (0, 0, 4, 8), ("tall",)),
        Thing(20, ("hat",), (1, 0, 3, 2), ("red", "tall")),
        Thing(30, ("coat",), (0, 3, 3, 8)),  # cut at the image's edge
        Thing(77, ("shade",), (6, 6, 8, 8)),  # of a relationship alone
    )
    assert image.relations == (Relation(0, "wears", 1), Relation(0, "wears", 2), Relation(3, "behind", 0))
    assert genome.picture(7) == tmp_path / "vg/VG_100K_2/7.jpg"
    masks = box_masks(image)
    assert masks.sum((1, 2)).tolist() == [32, 4, 15, 4] and bool(masks[1, 0, 1])


def test_what_is_asked(tmp_path: Path) -> None:
    data = VisualGenomeDataset(write(tmp_path))
    assert [(s.image_id, s.prompt.text, s.targets, s.kind) for s in data] == [
        ("5", "man", (0,), "category"),
        ("5", "hat", (1,), "category"),
        ("5", "coat", (2,), "category"),
        ("5", "shade", (3,), "category"),
        ("5", "tall man", (0,), "attribute"),
        ("5", "red hat", (1,), "attribute"),
        ("5", "tall hat", (1,), "attribute"),
        ("5", "the man wears the hat", (0,), "interaction"),
        ("5", "the man wears the coat", (0,), "interaction"),
        ("5", "the shade behind the man", (3,), "interaction"),
        ("7", "hat", (0, 1), "category"),
    ]
    assert data[0].image == tmp_path / "VG_100K/5.jpg" and data[10].sample_id == "7:hat"
    assert torch.equal(data[0].gt_pool, box_masks(VisualGenome(tmp_path).describe(5)))


def test_attributes_and_relationships_may_be_absent(tmp_path: Path) -> None:
    data = VisualGenomeDataset(write(tmp_path, attributes=None, relationships=None))
    assert [s.prompt.text for s in data] == ["man", "hat", "coat", "hat"]
    write(tmp_path)  # they are found when they come
    assert len(VisualGenomeDataset(tmp_path)) == 11


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"objects": [{"image_id": 5, "objects": 3}]}, "objects is '3'; expected a list"),
        ({"objects": [{"image_id": 5, "objects": [MAN | {"x": "0"}]}]}, "object 10 has the box ['0', 0, 4, 8]"),
        ({"objects": [{"image_id": 6, "objects": [MAN]}]}, "has no image with the id 6"),
        ({"image_data": [IMAGES[0] | {"width": -1}]}, "height and width (8, -1)"),
        ({"relationships": [{"image_id": 5, "relationships": [{"predicate": "on"}]}]}, "has the end 'None'"),
        ({"relationships": [{"image_id": 5}]}, "relationships is 'None'; expected a list of objects"),
        ({"objects": "[{"}, "truncated or not JSON"),
    ],
)
def test_damage_is_told_in_a_sentence(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError) as caught:
        list(VisualGenomeDataset(write(tmp_path, **change)))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_missing_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"image_data.json in .*visualgenome"):
        VisualGenome(tmp_path)
    with pytest.raises(ValueError, match="no split 'val'; expected all"):
        VisualGenomeDataset(tmp_path, "val")


def test_the_real_sample(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "vg_subset/subset_data"
    for name in ("objects", "relationships"):
        (tmp_path / f"{name}.json").symlink_to(source / f"{name}.json")
    objects = json.loads((source / "objects.json").read_text())
    sizes = [
        {
            "image_id": record["image_id"],
            "width": max(o["x"] + o["w"] for o in record["objects"]),
            "height": max(o["y"] + o["h"] for o in record["objects"]),
            "coco_id": None,
        }
        for record in objects
    ]
    (tmp_path / "image_data.json").write_text(json.dumps(sizes))
    (tmp_path / "VG_100K").mkdir()
    genome = VisualGenome(tmp_path)
    images = [genome.describe(number) for number in genome.image_ids()]
    assert [image.image_id for image in images] == list(range(1, 16))
    own = {o["object_id"] for record in objects for o in record["objects"]}
    found = [thing.object_id for image in images for thing in image.things]
    assert len(own) == 460 and len(own & set(found)) == 460 and len(found) == len(set(found))
    first = images[0]
    names = {first.things[r.subject].names[0] + " " + r.predicate + " " + first.things[r.target].names[0]
             for r in first.relations}  # fmt: skip
    assert {"shade on sidewalk", "man wears shoes"} <= names
