"""X-AnyLabeling's protocol, as docs/router.md and docs/user_guide.md of X-AnyLabeling-Server describe it."""

import base64
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from maskselect.serving.settings import Settings
from tests.serving.conftest import client_of, live
from tests.serving.stub import cells, cells_model, png, writer_model


def predict(client: Any, image: str | None = None, model: str = "cells", **params: Any) -> dict[str, Any]:
    image = image or f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    response = client.post("/v1/predict", json={"model": model, "image": image, "params": params})
    assert response.status_code == 200
    return response.json()


def drawn(shape: dict[str, Any]) -> np.ndarray:
    corners = [value for point in shape["points"] for value in point]
    return coco.decode(coco.merge(coco.frPyObjects([corners], 96, 128))).astype(bool)


def test_models_state_their_widgets(client: Any) -> None:
    listed = client.get("/v1/models").json()
    assert listed["success"] and list(listed["data"]) == ["cells"]
    record = listed["data"]["cells"]
    widgets = {widget["name"]: widget["value"] for widget in record["widgets"]}
    assert {"edit_text", "button_send", "add_pos_rect", "button_run_rect"} <= widgets.keys() and widgets[
        "edit_conf"
    ] == 0.5
    assert record["batch_processing_mode"] == "text_prompt" and record["display_name"] == "maskselect cells"
    assert client.get("/v1/models/cells/info").json()["data"]["model_id"] == "cells"
    assert client.get("/v1/models/other/info").json()["error"]["code"] == "MODEL_NOT_FOUND"


@pytest.mark.parametrize("head", ["data:image/png;base64,", ""])
def test_a_text_gives_closed_polygons(client: Any, head: str) -> None:
    answer = predict(client, head + base64.b64encode(png()).decode(), text_prompt="the red cells", conf_threshold=0.7)
    group = cells_model().select(png(), "the red cells", threshold=0.7)
    shapes = answer["data"]["shapes"]
    assert answer["success"] and len(shapes) == len(group) > 0
    for shape, mask, score in zip(shapes, group, group.scores, strict=True):
        assert shape["points"][0] == shape["points"][-1] and shape["shape_type"] == "polygon"
        assert shape["label"] == "the red cells" and shape["score"] == pytest.approx(float(score), abs=1e-6)
        np.testing.assert_array_equal(drawn(shape), mask)


def test_several_texts_are_several_labels(client: Any) -> None:
    labels = {shape["label"] for shape in predict(client, text_prompt="reds, blues.reds")["data"]["shapes"]}
    assert labels == {"reds", "blues"}
    assert client.app.state.server.model.system.asked == 1


def test_marks_are_references(client: Any) -> None:
    marks = [{"type": "rectangle", "label": 1, "data": [30, 50, 10, 20]}]
    shapes = predict(client, text_prompt="left of <mask-ref>", marks=marks)["data"]["shapes"]
    mask = np.zeros((96, 128), bool)
    mask[20:50, 10:30] = True
    group = cells_model().select(png(), "left of <mask-ref>", [mask])
    assert [shape["score"] for shape in shapes] == pytest.approx(group.scores.tolist(), abs=1e-6)
    assert {shape["label"] for shape in shapes} == {"left of reference"}


def test_marks_alone_are_objects(client: Any) -> None:
    marks = [{"type": "point", "label": 1, "data": [100, 50]}]
    (shape,) = predict(client, marks=marks)["data"]["shapes"]
    assert shape["label"] == "AUTOLABEL_OBJECT"
    np.testing.assert_array_equal(drawn(shape), cells(96, 128)[11].numpy())
    assert predict(client)["data"]["shapes"] == []


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"model": "other"}, "MODEL_NOT_FOUND"),
        ({"image": "data:image/png;base64,AAAA"}, "INVALID_IMAGE"),
        ({"image": "no base64!"}, "INVALID_IMAGE"),
        ({"text_prompt": "left of <mask-ref>"}, "BAD_INPUT"),
        ({"text_prompt": "a", "marks": [{"type": "circle", "label": 1, "data": [1, 2]}]}, "BAD_INPUT"),
        (
            {"text_prompt": "by <mask-ref>", "marks": [{"type": "rectangle", "label": 0, "data": [1, 2, 3, 4]}]},
            "BAD_INPUT",
        ),
        ({"text_prompt": "by <mask-ref>", "marks": [{"type": "rectangle", "label": 1, "data": [1, 2]}]}, "BAD_INPUT"),
        ({"text_prompt": "explode"}, "BAD_INPUT"),
    ],
)
def test_errors_have_the_form_of_the_protocol(client: Any, given: dict[str, Any], code: str) -> None:
    answer = predict(client, **given)
    assert answer["success"] is False and answer["error"]["code"] == code and answer["error"]["message"]


def test_a_full_queue_is_503() -> None:
    import httpx2

    with live(cells_model(), Settings(port=0)) as (address, server), httpx2.Client(base_url=address) as client:
        server.worker.limit = 0
        body = {"model": "cells", "image": base64.b64encode(png()).decode(), "params": {"text_prompt": "a"}}
        refused = client.post("/v1/predict", json=body)
        assert refused.status_code == 503 and "wait for the model" in refused.json()["detail"]


def test_a_system_without_threshold_ignores_the_clients() -> None:
    with client_of(writer_model()) as client:
        names = {widget["name"] for widget in client.get("/v1/models").json()["data"]["writer"]["widgets"]}
        assert "edit_conf" not in names
        assert len(predict(client, model="writer", text_prompt="cups", conf_threshold=0.3)["data"]["shapes"]) == 2
