"""The files of `examples/integrations` with the packages of the other programs, where these are installed."""

import importlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskselect.predictor import Model
from maskselect.structures.prediction import MaskGroup
from tests.systems.skeleton import Halves

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "integrations"
CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image"><Label value="mug"/><Label value="größte"/></BrushLabels></View>"""


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def left(height: int, width: int) -> np.ndarray:
    return np.broadcast_to(np.arange(width) < width // 2, (height, width))


@pytest.mark.parametrize("polygons", [False, True])
def test_cvat_calls_the_function(polygons: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = pytest.importorskip("cvat_sdk.masks")
    function = example("cvat_function")
    monkeypatch.setattr(function.maskselect, "load", lambda name, device: Model(Halves()))
    selection = function.create("mug | größte", model="ras")
    assert [(label.name, label.id) for label in selection.spec.labels] == [("mug", 0), ("größte", 1)]
    context = SimpleNamespace(frame_name="a.png", conf_threshold=0.5, conv_mask_to_poly=polygons)
    shapes = selection.detect(context, Image.new("RGB", (30, 20), "teal"))
    assert [(shape.label_id, shape.frame) for shape in shapes] == [(0, 0), (1, 0)]
    for shape in shapes:
        if polygons:
            assert shape.type.value == "polygon"
            assert sorted(zip(shape.points[::2], shape.points[1::2], strict=True)) == [
                (0, 0),
                (0, 20),
                (15, 0),
                (15, 20),
            ]
        else:
            assert shape.type.value == "mask"
            assert np.array_equal(masks.decode_mask(shape.points, image_width=30, image_height=20), left(20, 30))


def test_label_studio_takes_the_prediction() -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface(CONFIG)
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    image = np.full((20, 30, 3), 90, np.uint8)
    groups = Model(Halves()).select_many(image, ["mug", "größte"])
    made = example("label_studio").prediction(groups, "ras")
    assert interface.validate_prediction(json.loads(json.dumps(made)))
    assert [region["value"]["brushlabels"] for region in made["result"]] == [["mug"], ["größte"]]
    for region in made["result"]:
        pixels = brush.decode_rle(region["value"]["rle"]).reshape(20, 30, 4)
        assert np.array_equal(pixels[..., 3] > 0, left(20, 30))
    assert len({region["id"] for region in made["result"]}) == 2
    wrong = example("label_studio").prediction(groups, "ras", from_name="box")
    assert not interface.validate_prediction(wrong)
    nothing = np.zeros((0, 20, 30), bool)
    none = MaskGroup(image, "mug", nothing, np.zeros(0, np.float32), None, None, nothing)
    assert example("label_studio").prediction([none], "ras") == {"model_version": "ras", "score": 0.0, "result": []}


def test_label_studio_sends_predictions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Uploads have a prefix, and web addresses are quoted."""
    pytest.importorskip("label_studio_sdk")
    module, sent = example("label_studio"), []
    for name in ("größe.png", "b.png"):
        Image.new("RGB", (30, 20), "teal").save(tmp_path / name)
    images = {7: "/data/upload/1/0a1b2c3d-gr%C3%B6%C3%9Fe.png", 8: "https://a.org/x/b.png?token=1"}
    tasks = [SimpleNamespace(id=number, data={"image": image}) for number, image in images.items()]

    def client(base_url: str, api_key: str) -> Any:
        assert (base_url, api_key) == ("http://localhost:8080", "key")
        create = lambda **fields: sent.append(fields)  # noqa: E731
        return SimpleNamespace(
            tasks=SimpleNamespace(list=lambda project: tasks), predictions=SimpleNamespace(create=create)
        )

    monkeypatch.setattr(module, "LabelStudio", client)
    monkeypatch.setattr(module.maskselect, "load", lambda name: Model(Halves()))
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "key")
    monkeypatch.setattr("sys.argv", ["x", "--project", "3", "--images", str(tmp_path), "--prompt", "mug"])
    module.main()
    assert [(one["task"], len(one["result"]), one["model_version"]) for one in sent] == [(7, 1, "ras"), (8, 1, "ras")]


def test_fiftyone_takes_the_detections() -> None:
    """Without its database, which only data sets need."""
    fo = pytest.importorskip("fiftyone", reason="fiftyone is not installed; it brings a gigabyte of packages")
    models = importlib.import_module("fiftyone.core.models")
    module = example("fiftyone_model")
    model = module.Prompts(["mug", "größte"], Model(Halves()))
    assert isinstance(model, models.Model) and model.media_type == "image"
    found = model.predict(np.full((20, 30, 3), 90, np.uint8))
    assert isinstance(found, fo.Detections)
    assert [one.label for one in found.detections] == ["mug", "größte"]
    for one in found.detections:
        assert one.bounding_box == [0, 0, 0.5, 1] and one.confidence == 1
        drawn = one.to_segmentation(frame_size=(30, 20), target=255).mask
        assert np.array_equal(drawn > 0, left(20, 30))
