"""Masks of annotated boxes, for data sets that have boxes only."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from maskselect.backends.checkpoints import find_checkpoint
from maskselect.proposers.loading import load_proposer
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import PromptableProposer


class ProposerBoxes:
    """Boxes to masks by a promptable proposer, which each process loads at first use.

    Args:
        config_or_name: see `proposers.loading.load_proposer`.
        device: auto, cpu or cuda; a config names its own.

    Attributes:
        name: identifies the proposer and its weights; builds are compared by it.

    Raises:
        FileNotFoundError: there is no such file.
    """

    def __init__(self, config_or_name: str = "sam", device: str = "auto") -> None:
        path = Path(config_or_name)
        if path.suffix not in (".yaml", ".yml", ".json"):
            path = find_checkpoint(config_or_name)
        if not path.is_file():
            raise FileNotFoundError(f"proposer config {path} does not exist")
        self.config_or_name, self.device = config_or_name, device
        self.name = f"{path.stem} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
        self._loaded: PromptableProposer | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The masks inside boxes, in their order, with the proposer's scores. Some may be empty.

        Args:
            image: (H, W, 3) uint8.
            boxes_xyxy: (K, 4), pixels.

        Raises:
            ValueError: the proposer takes no boxes.
        """
        if self._loaded is None:
            proposer = load_proposer(self.config_or_name, self.device)
            if not isinstance(proposer, PromptableProposer):
                raise ValueError(f"proposer {self.config_or_name} takes no boxes; expected one such as SAM")
            self._loaded = proposer
        return self._loaded.segment_boxes(image, boxes_xyxy)
