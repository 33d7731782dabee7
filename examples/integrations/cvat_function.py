"""An auto-annotation function of CVAT: every prompt is a label, every mask of its answer a mask of CVAT.

    pip install cvat-cli
    cvat-cli task auto-annotate TASK_ID --function-file examples/integrations/cvat_function.py \
        -p "prompts=str:mug|plate" -p model=str:ras

The task needs labels of the same names. `--conf-threshold` is the selection threshold.
"""

import cvat_sdk.auto_annotation as cvataa
import cvat_sdk.models
from cvat_sdk.masks import encode_mask
from PIL import Image

import maskselect


class Selection:
    """Answers prompts about the frames of a task.

    Args:
        prompts: texts; each is the name of a label.
        model: a loaded model.
    """

    def __init__(self, prompts: list[str], model: maskselect.Model) -> None:
        self.prompts, self.model = prompts, model
        labels = [cvataa.label_spec(text, number, type="mask") for number, text in enumerate(prompts)]
        self.spec = cvataa.DetectionFunctionSpec(labels=labels)

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: Image.Image
    ) -> list[cvat_sdk.models.LabeledShapeRequest]:
        """The masks of one frame, or their polygons if CVAT was told to convert masks."""
        threshold = None if self.model.threshold is None else context.conf_threshold
        shapes = []
        for number, group in enumerate(self.model.select_many(image, self.prompts, threshold=threshold)):
            if context.conv_mask_to_poly:
                polygons = [part for record in group.to_coco(polygons=True) for part in record["segmentation"]]
                shapes += [cvataa.polygon(number, part) for part in polygons]
            else:
                shapes += [cvataa.mask(number, encode_mask(mask)) for mask in group]
        return shapes


def create(prompts: str, model: str = "ras", device: str = "auto") -> Selection:
    """The function that CVAT calls.

    Args:
        prompts: texts with | between them.
        model: name or path of a checkpoint.
        device: auto, cpu, cuda or cuda:N.
    """
    return Selection([text.strip() for text in prompts.split("|") if text.strip()], maskselect.load(model, device))
