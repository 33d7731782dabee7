"""A model for FiftyOne's `apply_model`: every prompt is a label, every mask of its answer a detection with a mask.

    pip install fiftyone

    import fiftyone as fo
    from fiftyone_model import Prompts

    samples = fo.Dataset.from_images_dir("DIR")
    samples.apply_model(Prompts(["mug", "plate"]), label_field="maskselect")

The app with all answers: `python examples/integrations/fiftyone_model.py --images DIR --prompt mug`.
"""

import argparse

import fiftyone as fo
import fiftyone.core.models as fom
import numpy as np

import maskselect


class Prompts(fom.Model):
    """Answers prompts about the samples of a data set.

    Args:
        prompts: texts; each is the label of its masks.
        model: name or path of a checkpoint, or a loaded model.
        device: auto, cpu, cuda or cuda:N.
    """

    def __init__(self, prompts: list[str], model: str | maskselect.Model = "ras", device: str = "auto") -> None:
        self.prompts = prompts
        self.model = maskselect.load(model, device) if isinstance(model, str) else model

    @property
    def media_type(self) -> str:
        """What FiftyOne gives to `predict`."""
        return "image"

    @property
    def ragged_batches(self) -> bool:
        """Whether images of one batch may have different sizes."""
        return True

    @property
    def transforms(self) -> None:
        """None: the model takes images as they are."""
        return None

    @property
    def preprocess(self) -> bool:
        """Whether `transforms` are applied."""
        return False

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        """Ignore it: there are no transforms."""

    def predict(self, arg: np.ndarray) -> fo.Detections:
        """The masks of one image (H, W, 3) uint8, with boxes in shares of its size."""
        height, width = arg.shape[:2]
        found = []
        for text, group in zip(self.prompts, self.model.select_many(arg, self.prompts), strict=True):
            for mask, score, (x0, y0, x1, y1) in zip(group.masks, group.scores, group.boxes, strict=True):
                box = [float(x0 / width), float(y0 / height), float((x1 - x0) / width), float((y1 - y0) / height)]
                inside = mask[y0:y1, x0:x1]
                found.append(fo.Detection(label=text, bounding_box=box, mask=inside, confidence=float(score)))
        return fo.Detections(detections=found)


def main() -> None:
    """Label a folder of images, and open it."""
    parser = argparse.ArgumentParser(description="Show the answers of a model in FiftyOne.")
    parser.add_argument("--images", required=True)
    parser.add_argument("--prompt", action="append", required=True)
    parser.add_argument("--model", default="ras")
    options = parser.parse_args()
    samples = fo.Dataset.from_images_dir(options.images)
    samples.apply_model(Prompts(options.prompt, options.model), label_field="maskselect")
    fo.launch_app(samples).wait()


if __name__ == "__main__":
    main()
