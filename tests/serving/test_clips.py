"""Clips: frames, prompts with progress, downloads, and clients that go away."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskselect.data.clips import write_video
from maskselect.ops import rle
from maskselect.serving.settings import Settings
from tests.serving.conftest import client_of, live, wait_for
from tests.serving.stub import cells, cells_model

pytest.importorskip("av")


def frames(count: int = 6) -> list[np.ndarray]:
    return [np.full((48, 64, 3), 30 * number + 20, np.uint8) for number in range(count)]


@pytest.fixture
def video(tmp_path: Path) -> bytes:
    write_video(tmp_path / "clip.mp4", frames(), 8)
    return (tmp_path / "clip.mp4").read_bytes()


def add(client: Any, content: bytes) -> dict[str, Any]:
    response = client.post("/api/clips", content=content)
    assert response.status_code == 200, response.text
    return response.json()


def lines(response: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.splitlines()]


def test_frames_can_be_scrubbed(client: Any, video: bytes) -> None:
    record = add(client, video)
    assert (record["frames"], record["fps"], record["size"]) == (6, 8.0, [48, 64])
    for number in (4, 0, 5, 2):  # there and back
        picture = Image.open(io.BytesIO(client.get(f"/api/clips/{record['id']}/frames/{number}").content))
        assert picture.size == (64, 48) and abs(int(np.asarray(picture).mean()) - (30 * number + 20)) < 6
    assert client.get(f"/api/clips/{record['id']}/frames/6").status_code == 404
    assert client.get(f"/api/clips/{record['id']}/frames/x").status_code == 400


def test_an_answer_has_progress_and_objects_over_frames(video: bytes) -> None:
    with client_of(cells_model(delay=0.15)) as client:
        key = add(client, video)["id"]
        got = lines(client.post(f"/api/clips/{key}/answers", json={"prompts": [{"text": "the ball"}]}))
        seen = [line["seen"] for line in got[:-1]]
        assert seen == sorted(seen) and len(set(seen)) > 2 and got[0]["frames"] == 6
        (one,) = got[-1]["answers"]
        (thing,) = one["objects"]
        assert thing["score"] == 0.75 and thing["segmentations"][0] is None
        np.testing.assert_array_equal(rle.decode(thing["segmentations"][3]), cells(48, 64)[5].numpy())


def test_references_have_a_frame(client: Any, video: bytes) -> None:
    key = add(client, video)["id"]
    prompt = {"text": "left of <mask-ref>", "references": [{"box": [1, 1, 20, 20], "frame": 3}]}
    assert "answers" in lines(client.post(f"/api/clips/{key}/answers", json={"prompts": [prompt]}))[-1]
    prompt["references"][0]["frame"] = 9  # type: ignore[index]
    error = lines(client.post(f"/api/clips/{key}/answers", json={"prompts": [prompt]}))[-1]["error"]
    assert error["code"] == "bad_input" and "frame 9" in error["message"]


def test_downloads(client: Any, video: bytes) -> None:
    key = add(client, video)["id"]
    early = client.post(f"/api/clips/{key}/files?name=walk.mp4", json={"format": "json", "answers": ["other"]})
    assert early.status_code == 409
    ids = []
    for text in ("the ball", "the dog"):
        got = lines(client.post(f"/api/clips/{key}/answers", json={"prompts": [{"text": text}]}))
        ids.append(got[-1]["answers"][0]["id"])
    wanted = {"format": "json", "answers": ids[:1]}
    got = client.post(f"/api/clips/{key}/files?name=walk.mp4", json=wanted)
    assert "walk.json" in got.headers["content-disposition"] and got.json()["prompt"] == "the ball"
    both = client.post(f"/api/clips/{key}/files?name=walk.mp4", json={"format": "json", "answers": ids})
    assert zipfile.ZipFile(io.BytesIO(both.content)).namelist() == ["walk.1.json", "walk.2.json"]
    masks = client.post(f"/api/clips/{key}/files", json=wanted | {"format": "mask"})
    assert len(zipfile.ZipFile(io.BytesIO(masks.content)).namelist()) == 6
    overlay = client.post(f"/api/clips/{key}/files", json=wanted | {"format": "overlay"})
    assert overlay.headers["content-type"] == "video/mp4" and overlay.content[4:8] == b"ftyp"


def test_what_is_no_video_or_too_long_is_refused(client: Any, video: bytes) -> None:
    refused = client.post("/api/clips", content=b"nothing").json()["error"]
    assert refused["code"] == "bad_input" and "/proc" not in refused["message"] and "the file" in refused["message"]
    with client_of(cells_model(), Settings(frames=5)) as short:
        refused = short.post("/api/clips", content=video).json()["error"]
        assert refused["code"] == "too_large" and "6 frames" in refused["message"]


def test_a_prompt_stops_when_its_client_goes_away(tmp_path: Path) -> None:
    import httpx2

    write_video(tmp_path / "long.mp4", frames(8) * 10, 8)
    video = (tmp_path / "long.mp4").read_bytes()
    with live(cells_model(delay=0.3)) as (address, server), httpx2.Client(base_url=address, timeout=600) as client:
        key = add(client, video)["id"]
        with client.stream("POST", f"/api/clips/{key}/answers", json={"prompts": [{"text": "the ball"}]}) as response:
            next(response.iter_lines())
        picture = client.post("/api/pictures", content=_png(), timeout=600)
        assert picture.status_code == 200
        wait_for(lambda: len(server.worker) == 0)
        assert not server.clips.get(key).groups, "the clip was answered to its end"


def test_time_limit_of_a_clip(video: bytes) -> None:
    with client_of(cells_model(delay=0.3), Settings(clip_seconds=0.4)) as client:
        key = add(client, video)["id"]
        error = lines(client.post(f"/api/clips/{key}/answers", json={"prompts": [{"text": "the ball"}]}))[-1]["error"]
        assert error["code"] == "too_slow"


def _png() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, "PNG")
    return content.getvalue()
