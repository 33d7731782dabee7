"""The API of pictures: what it sends equals what the predictor and `predict` give."""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.ops import rle
from maskselect.reports.files import write_answers
from maskselect.structures.references import BoxRef, PointRef
from tests.serving.conftest import client_of
from tests.serving.stub import cells, cells_model, png, score_of, writer_model

PAGE = Path(__file__).resolve().parents[2] / "maskselect" / "serving" / "page"


def add(client: Any, content: bytes) -> dict[str, Any]:
    response = client.post("/api/pictures", content=content)
    assert response.status_code == 200, response.text
    return response.json()


def answer(client: Any, key: str, *prompts: Any, **more: Any) -> list[dict[str, Any]]:
    records = [prompt if isinstance(prompt, dict) else {"text": prompt} for prompt in prompts]
    response = client.post(f"/api/pictures/{key}/answers", json={"prompts": records, **more})
    assert response.status_code == 200, response.text
    return response.json()["answers"]


def selected(record: dict[str, Any], scores: list[float], threshold: float) -> list[int]:
    """The rule of masks.js in other words."""
    kept: list[int] = []
    pairs = {frozenset(pair) for pair in record["duplicates"]}
    for number in sorted(range(len(scores)), key=lambda n: (-scores[n], n)):
        is_enough = np.float32(scores[number]) >= np.float32(threshold)
        if is_enough and record["areas"][number] and not any(frozenset((number, other)) in pairs for other in kept):
            kept.append(number)
    return kept


def test_candidates_are_sent_once_as_run_lengths(client: Any) -> None:
    record = add(client, png())
    assert record["size"] == record["working"] == [96, 128]
    sent = [rle.decode({"size": record["working"], "counts": one}) for one in record["candidates"]["counts"]]
    np.testing.assert_array_equal(np.stack(sent), cells(96, 128).numpy())
    assert record["candidates"]["areas"] == [int(mask.sum()) for mask in sent]
    assert record["candidates"]["duplicates"] == [[16, 17]]
    assert add(client, png())["id"] == record["id"]
    assert client.app.state.server.model.system.reads == 1, "a picture that is known was read again"
    assert "counts" not in json.dumps(answer(client, record["id"], "the red cells"))


def test_answers_equal_those_of_the_predictor(client: Any) -> None:
    key, model = add(client, png())["id"], cells_model()
    mask = cells(96, 128)[3].numpy()
    references = [
        ({"candidate": 3}, mask),
        ({"mask": rle.encode(mask[None])[0]}, mask),
        ({"box": [10, 20, 30, 50]}, BoxRef((10, 20, 30, 50))),
        ({"point": [100, 50]}, PointRef((100, 50))),
    ]
    for wire, python in references:
        got = answer(client, key, {"text": "left of <mask-ref>", "references": [wire]}, "the red cells")
        wanted = model.select_many(png(), ["left of <mask-ref>", "the red cells"], [[python], []])
        for one, group in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(np.float32(one["scores"]), group.candidate_scores)
            np.testing.assert_array_equal(np.float32([m["score"] for m in one["masks"]]), group.scores)
            shown = [cells(96, 128)[m["candidate"]].numpy() for m in one["masks"]]
            np.testing.assert_array_equal(np.stack(shown), group.masks)
        assert (got[0]["references"][0] is None) == ("box" in wire or "point" in wire)


@pytest.mark.parametrize("threshold", [0.0, 0.31, 0.5, 0.77, 1.0])
def test_the_slider_needs_no_server(client: Any, threshold: float) -> None:
    record = add(client, png(3))
    free = answer(client, record["id"], "the red cells")[0]
    asked = answer(client, record["id"], "the red cells", threshold=threshold)[0]
    chosen = selected(record["candidates"], free["scores"], threshold)
    assert chosen == [mask["candidate"] for mask in asked["masks"]] and free["slides"]


def test_a_group_that_other_rules_select_does_not_slide() -> None:
    with client_of(cells_model(best=True)) as client:
        one = answer(client, add(client, png())["id"], "the red cells")[0]
        assert len(one["masks"]) == 1 and not one["slides"]


def test_several_prompts_are_one_call_of_the_model(client: Any) -> None:
    key, system = add(client, png())["id"], client.app.state.server.model.system
    answers = answer(client, key, "a", "b", "c")
    assert system.asked == 1 and [one["prompt"] for one in answers] == ["a", "b", "c"]
    assert len({one["scores"][0] for one in answers}) == 3


def test_large_pictures_come_back_at_their_own_size(client: Any) -> None:
    record = add(client, png(0, 1100, 2200))
    assert record["size"] == [1100, 2200] and record["working"] == [512, 1024]
    one = answer(client, record["id"], {"text": "by <mask-ref>", "references": [{"candidate": 5}]})[0]
    assert one["references"][0]["size"] == [1100, 2200]
    image = Image.open(io.BytesIO(client.get(f"/api/pictures/{record['id']}/image").content))
    assert image.size == (1024, 512)


def test_references_are_shown_as_the_masks_that_the_prompter_finds(client: Any) -> None:
    key = add(client, png())["id"]
    sent = client.post(
        f"/api/pictures/{key}/references", json={"references": [{"box": [8, 4, 20, 30]}, {"point": [100, 50]}]}
    )
    box, point = (rle.decode(one) for one in sent.json()["masks"])
    assert box.sum() == 12 * 26 and box[4:30, 8:20].all()
    np.testing.assert_array_equal(point, cells(96, 128)[11].numpy())


def test_candidates_of_an_answer_come_with_it() -> None:
    with client_of(cells_model(own=True)) as client:
        record = add(client, png())
        assert record["candidates"] is None
        one = answer(client, record["id"], "the red cells")[0]
        assert len(one["own"]["counts"]) == len(one["scores"]) == 18
        assert selected(one["own"], one["scores"], 0.5) == [mask["candidate"] for mask in one["masks"]]


def test_a_system_without_candidates_sends_masks_and_text() -> None:
    with client_of(writer_model()) as client:
        record = add(client, png())
        assert record["candidates"] is None and client.get("/api/model").json()["threshold"] is None
        one = answer(client, record["id"], "cups")[0]
        assert one["scores"] is None and one["text"] == "cells for cups"
        masks = [rle.decode({"size": record["working"], "counts": mask["counts"]}) for mask in one["masks"]]
        np.testing.assert_array_equal(np.stack(masks), cells(96, 128)[[5, 6]].numpy())


FORMATS = {"json": "photo.json", "mask": "photo.mask.png", "overlay": "photo.overlay.png", "svg": "photo.svg"}


@pytest.mark.parametrize("name", FORMATS)
def test_downloads_equal_the_files_of_predict(client: Any, tmp_path: Path, name: str) -> None:
    content = png(1, 1500, 1200)  # twelve hundred: the masks are enlarged
    key = add(client, content)["id"]
    reference = {"candidate": 2}
    one = answer(client, key, {"text": "left of <mask-ref>", "references": [reference]})[0]
    group = {
        "text": one["prompt"],
        "references": [reference],
        "masks": one["masks"],
        "threshold": 0.5,
        "candidates": 18,
    }
    got = client.post(f"/api/pictures/{key}/files?name=photo.png", json={"format": name, "groups": [group]})
    assert got.headers["content-disposition"] == f"attachment; filename*=UTF-8''{FORMATS[name]}"
    model = cells_model()
    mask = np.kron(cells(4, 4)[2].numpy(), np.ones((375, 300), bool))
    wanted = model.select(content, "left of <mask-ref>", [mask])
    write_answers([wanted], tmp_path, Path("photo.png"), "cells", (name,))
    assert got.content == (tmp_path / FORMATS[name]).read_bytes()


@pytest.mark.parametrize("name", ["coco", "coco-polygons", "labelme", "yolo", "masks"])
def test_data_sets_are_zips(client: Any, name: str) -> None:
    content = png()
    key = add(client, content)["id"]
    groups = [
        {"text": one["prompt"], "masks": one["masks"], "threshold": 0.5, "candidates": 18}
        for one in answer(client, key, "reds", "blues")
    ]
    got = client.post(f"/api/pictures/{key}/files?name=photo.png", json={"format": name, "groups": groups})
    archive = zipfile.ZipFile(io.BytesIO(got.content))
    names = archive.namelist()
    if name == "masks":
        assert len([one for one in names if one.startswith("photo.1.masks/")]) == len(groups[0]["masks"])
        return
    pictures = [one for one in names if one.endswith("photo.png")]
    assert len(pictures) == 1 and archive.read(pictures[0]) == content
    if name == "coco":
        written = json.loads(archive.read(next(one for one in names if one.endswith(".json"))))
        assert [one["name"] for one in written["categories"]] == ["reds", "blues"]
        areas = [int(cells(96, 128)[mask["candidate"]].sum()) for group in groups for mask in group["masks"]]
        assert [one["area"] for one in written["annotations"]] == areas


def test_masks_that_a_person_chose_are_downloaded(client: Any) -> None:
    key = add(client, png())["id"]
    group = {
        "text": "selection",
        "masks": [{"candidate": 4, "score": 1}, {"mask": rle.encode(cells(96, 128)[9].numpy()[None])[0], "score": 0.5}],
    }
    got = client.post(f"/api/pictures/{key}/files", json={"format": "mask", "groups": [group]})
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(got.content))) > 0, cells(96, 128)[[4, 9]].any(0).numpy()
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"prompts": []}, "prompts: List should have at least 1 item"),
        ({"prompts": [{"text": "a", "nonsense": 1}]}, "nonsense"),
        ({"prompts": [{"text": "by <mask-ref>"}]}, "mask-ref"),
        ({"prompts": [{"text": "by <mask-ref>", "references": [{"candidate": 99}]}]}, "candidate 99 does not exist"),
        ({"prompts": [{"text": "by <mask-ref>", "references": [{"box": [0, 0, 500, 500]}]}]}, "outside the image"),
        ({"prompts": [{"text": "by <mask-ref>", "references": [{}]}]}, "exactly one"),
        ({"prompts": [{"text": "by <mask-ref>", "references": [{"mask": {"size": [3, 3], "counts": "9"}}]}]}, "[3, 3]"),
        (
            {"prompts": [{"text": "by <mask-ref>", "references": [{"mask": {"size": [96, 128], "counts": "9"}}]}]},
            "runs",
        ),
        ({"prompts": [{"text": "explode"}]}, "refused"),
        ({"prompts": [{"text": "a"}], "threshold": 2}, "threshold"),
        ({"prompts": [{"text": ""}]}, "prompt"),
    ],
)
def test_bad_requests_get_one_sentence(client: Any, content: dict[str, Any], message: str) -> None:
    key = add(client, png())["id"]
    response = client.post(f"/api/pictures/{key}/answers", json=content)
    error = response.json()["error"]
    assert response.status_code == 400 and message in error["message"] and "\n" not in error["message"]
    assert error["request"] == response.headers["x-request-id"]


def test_an_unknown_picture_is_to_be_sent_again(client: Any) -> None:
    response = client.post("/api/pictures/abc/answers", json={"prompts": [{"text": "a"}]})
    assert response.status_code == 404 and response.json()["error"]["code"] == "no_picture"


@pytest.mark.parametrize("content", [b"not a picture", png()[:200]])
def test_what_is_no_picture_is_refused(client: Any, content: bytes) -> None:
    response = client.post("/api/pictures", content=content)
    assert response.status_code == 400 and response.json()["error"]["code"] == "bad_input"


def test_samples_are_generated_scenes_with_prompts(client: Any) -> None:
    record = client.get("/api/samples/0").json()
    assert record["prompts"] and add(client, __import__("base64").b64decode(record["image"]))["size"] == [384, 512]
    assert client.get("/api/samples/50").status_code == 404


def test_the_page_asks_nothing_of_other_hosts(client: Any) -> None:
    for path, name in (
        ("/", "index.html"),
        ("/page.css", "page.css"),
        ("/page.js", "page.js"),
        ("/masks.js", "masks.js"),
    ):
        response = client.get(path)
        assert response.content == (PAGE / name).read_bytes()
        assert client.get(f"{path}?content=evil&kind=text/html").content == response.content
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert set(re.findall(r"https?://[^\s'\"]+", response.text)) <= {"http://www.w3.org/2000/svg"}
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert client.get(path).status_code == 404


def test_scores_differ_between_questions() -> None:
    """Otherwise the tests above could not tell one answer from another."""
    none = torch.zeros(0, 4, 4, dtype=torch.bool)
    picture = np.zeros((4, 4, 3), np.uint8)
    assert len({score_of(f"prompt {n}", none, picture, c) for n in range(50) for c in range(18)}) == 900
