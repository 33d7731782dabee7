"""LLaVA's data on tiny files in the published form."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskselect.data.llava import CaptionGroups, Conversation, LlavaDataset, Turn

CAPTIONS = [
    {
        "id": "004539375",
        "image": "00453/004539375.jpg",
        "conversations": [
            {"from": "human", "value": "Render a clear and concise summary of the photo.\n<image>"},
            {"from": "gpt", "value": "select luxury furniture 3 - inch gel memory foam mattress topper "},
        ],
    },
    {
        "id": "002239345",
        "image": "00223/002239345.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nWrite a terse but informative summary of the picture."},
            {"from": "gpt", "value": "a grey watch with an army style strap"},
        ],
    },
]
TALKS = [
    {"id": "1", "image": "coco/train2017/a.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A bus."},
        {"from": "human", "value": "What colour?"}, {"from": "gpt", "value": "Red."},
    ]},
    {"id": "text", "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]},
    {"id": "1", "image": "vg/VG_100K/b.jpg", "conversations": [
        {"from": "gpt", "value": "Well."},
        {"from": "human", "value": "<image>\nAnd?"}, {"from": "gpt", "value": "Yes."},
    ]},
]  # fmt: skip


def write(root: Path, name: str, records: Any, images: bool = True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(records if isinstance(records, str) else json.dumps(records))
    for record in records if images and isinstance(records, list) else []:
        if "image" in record:
            path = root / record["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 6, 3), 90, np.uint8)).save(path)
    return root


def test_captions(tmp_path: Path) -> None:
    root = write(tmp_path, "blip_laion_cc_sbu_558k.json", CAPTIONS)
    data = LlavaDataset(root)
    assert len(data) == 2 and [data.caption(n) for n in range(2)] == [
        "select luxury furniture 3 - inch gel memory foam mattress topper",
        "a grey watch with an army style strap",
    ]
    turn = Turn("Render a clear and concise summary of the photo.", data.caption(0))
    assert data[0] == Conversation("004539375", root / "00453/004539375.jpg", (turn,))
    assert pickle.loads(pickle.dumps(data))[1] == data[1]


def test_images_may_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    root = write(tmp_path, "blip_laion_cc_sbu_558k.json", CAPTIONS, images=False)
    write(tmp_path / "images", "unused.json", CAPTIONS)
    assert LlavaDataset(root)[0].image == root / "images/00453/004539375.jpg"


def test_conversations_without_images_are_left_out(tmp_path: Path) -> None:
    root = write(tmp_path, "llava_v1_5_mix665k.json", TALKS)
    pictured = LlavaDataset(root, "mix-665k")
    assert [talk.image for talk in pictured] == [root / "coco/train2017/a.jpg", root / "vg/VG_100K/b.jpg"]
    assert pictured[0].turns == (Turn("What is it?", "A bus."), Turn("What colour?", "Red."))
    assert pictured[1].turns == (Turn("And?", "Yes."),)  # the model's first turn answers nothing
    with pytest.raises(ValueError, match="has 2 turns; expected 1"):
        pictured.caption(0)


def test_instructions_name_coco_images_without_a_folder(tmp_path: Path) -> None:
    record = TALKS[0] | {"image": "a.jpg"}
    root = write(tmp_path / "coco/train2017", "x.json", [record]).parents[1]
    write(root, "llava_instruct_150k.json", [record], images=False)
    assert LlavaDataset(root, "instruct-150k")[0].image == root / "coco/train2017/a.jpg"


def test_captions_are_a_source_of_groups(tmp_path: Path) -> None:
    groups = CaptionGroups(write(tmp_path, "blip_laion_cc_sbu_558k.json", CAPTIONS), limit=1)
    loaded = groups.load(0)
    assert len(groups) == 1 and groups.image_id(0) == "llava/00453/004539375.jpg"
    assert loaded.image.shape == (4, 6, 3) and loaded.masks.shape == (0, 4, 6)
    rng = np.random.default_rng(0)
    assert groups.queries(0, {}, 4, rng) == [] and groups.caption(0, {}, rng).startswith("select luxury")


HUMAN, GPT = {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"conversations": None}, "conversations is 'None'; expected a list of turns"),
        ({"conversations": []}, "it has 0 turns; expected questions with their answers"),
        ({"conversations": [HUMAN]}, "it has 1 turns"),
        ({"conversations": [HUMAN, HUMAN]}, "turn 1 is 'human'"),
        ({"conversations": [HUMAN, {"from": "gpt", "value": 3}]}, "turn 1 is 'gpt': '3'"),
        ({"conversations": [HUMAN, GPT], "image": "../secret.jpg"}, "leads out of its folder"),
        ({"conversations": [HUMAN, GPT], "image": None}, "it has no image"),
    ],
)
def test_damaged_records(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    root = write(tmp_path, "chat.json", [CAPTIONS[0] | change], images=False)
    with pytest.raises(ValueError, match=r"record 0 .'004539375'. in .*chat.json: .*") as caught:
        LlavaDataset(root, "pretrain-cc3m")[0]
    assert told in str(caught.value)


def test_missing_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no LLaVA file of pretrain in .*blip_laion_cc_sbu_558k.json.*Data.md"):
        LlavaDataset(tmp_path)
    with pytest.raises(ValueError, match="no set 'x'; expected one of pretrain"):
        LlavaDataset(tmp_path, "x")
    root = write(tmp_path, "chat.json", CAPTIONS, images=False)
    with pytest.raises(FileNotFoundError, match=r"00453/004539375\.jpg"):
        LlavaDataset(root, "pretrain-cc3m")[0]
    (root / "chat.json").write_text("[{")
    with pytest.raises(ValueError, match="truncated or not JSON"):
        LlavaDataset(root, "pretrain-cc3m")
