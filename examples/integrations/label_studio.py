"""Predictions for the tasks of a Label Studio project: every prompt is a brush label, every mask a brush region.

    pip install label-studio-sdk
    LABEL_STUDIO_API_KEY=… python examples/integrations/label_studio.py --url http://localhost:8080 --project 1 \
        --images DIR --prompt mug --prompt plate

The project has images, each with a file of the same name in DIR, and a labelling config with brush labels:

    <View><Image name="image" value="$image"/>
      <BrushLabels name="mask" toName="image"><Label value="mug"/><Label value="plate"/></BrushLabels></View>
"""

import argparse
import os
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.converter.brush import mask2rle

import maskselect


def prediction(
    groups: list[maskselect.MaskGroup], model: str, from_name: str = "mask", to_name: str = "image"
) -> dict[str, Any]:
    """The answers to prompts about one image as a prediction.

    Args:
        groups: one for each prompt.
        model: name of the model.
        from_name, to_name: names of the brush labels and of the image in the labelling config.
    """
    regions = []
    for group in groups:
        for number, (mask, name, score) in enumerate(group.labelled()):
            region = {
                "id": f"{name}-{number}",
                "from_name": from_name,
                "to_name": to_name,
                "type": "brushlabels",
                "original_width": group.size[1],
                "original_height": group.size[0],
                "image_rotation": 0,
                "score": score,
                "value": {"format": "rle", "rle": mask2rle(mask * np.uint8(255)), "brushlabels": [name]},
            }
            regions.append(region)
    scores = [region["score"] for region in regions]
    return {"model_version": model, "score": float(np.mean(scores)) if scores else 0.0, "result": regions}


def file_of(image: str, folder: Path) -> Path:
    """The file of a task's image, whose value is a web address or a path. Uploads are named `xxxxxxxx-NAME`."""
    name = PurePosixPath(unquote(urlsplit(image).path)).name
    path = folder / name
    return path if path.is_file() else folder / name.partition("-")[2]


def main() -> None:
    """Answer the prompts about every task."""
    parser = argparse.ArgumentParser(description="Predictions for a Label Studio project.")
    parser.add_argument("--url", default="http://localhost:8080")
    parser.add_argument("--project", type=int, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--prompt", action="append", required=True)
    parser.add_argument("--model", default="ras")
    options = parser.parse_args()

    client = LabelStudio(base_url=options.url, api_key=os.environ["LABEL_STUDIO_API_KEY"])
    model = maskselect.load(options.model)
    for task in client.tasks.list(project=options.project):
        groups = model.select_many(file_of(task.data["image"], options.images), options.prompt)
        client.predictions.create(task=task.id, **prediction(groups, options.model))
        print(f"task {task.id}: {sum(map(len, groups))} mask(s)", flush=True)


if __name__ == "__main__":
    main()
