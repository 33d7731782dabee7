"""`Mask2FormerProposer`: the objects that a segmentation decoder of our own training finds (arXiv 2112.01527).

It has one set of learned queries, each with a mask and a score. Published Mask2Former models are read by
`proposers/queries.py`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskselect.backends import needs
from maskselect.backends.building import beside, build
from maskselect.backends.cache_keys import cache_key
from maskselect.backends.checkpoints import find_checkpoint, load_strictly, read_card, read_tensors
from maskselect.backends.config_tree import arguments_of
from maskselect.backends.devices import pick_device
from maskselect.backends.weightless import reads_weights
from maskselect.ops.images import cornered_image, size_of
from maskselect.ops.masks import mean_inside, not_empty, unpadded_logits
from maskselect.ops.overlap import mask_nms
from maskselect.structures.features import finest_first
from maskselect.structures.masks import MaskSet
from maskselect.structures.needs import Arguments, Need

SYSTEM = "mask2former"
"""`system` in the cards of checkpoints of `ObjectMasksTask`."""

INSTRUCTSEG = "instructseg"
"""`system` in the cards of InstructSeg's checkpoints."""

_DECODER = "maskselect.decoders.mask2former.ObjectDecoder"
_PARTS = ("pixel_decoder", "mask_decoder")


class Mask2FormerProposer:
    """A `Proposer` by learned queries.

    Args:
        checkpoint: shipped name or path of a checkpoint of `ObjectMasksTask`; or one of InstructSeg with
            `object_weight`, whose decoder finds all objects without a prompt.
        score_thresh: least score of a candidate; see `propose`.
        mask_nms_thresh: suppression by mask IoU; None for none.
        max_candidates: greatest number of candidates, by score; None for all.
        device: auto, cpu or cuda.

    Raises:
        FileNotFoundError: the checkpoint, or that of its encoder, does not exist.
        ValueError: the checkpoint is of another kind, or score_thresh is out of range.
    """

    def __init__(
        self,
        checkpoint: str | Path = SYSTEM,
        score_thresh: float = 0.1,
        mask_nms_thresh: float | None = 0.8,
        max_candidates: int | None = None,
        device: str = "cpu",
    ) -> None:
        if not 0 <= score_thresh <= 1:
            raise ValueError(f"score_thresh must be between 0 and 1, got {score_thresh}")
        self.device = pick_device(device)
        self.encoder, self.decoder, self._sizes = _network(find_checkpoint(checkpoint))
        self.encoder.to(self.device)
        self.decoder.to(self.device).eval().requires_grad_(False)
        self.score_thresh, self.mask_nms_thresh = score_thresh, mask_nms_thresh
        self.max_candidates = max_candidates

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The checkpoint."""
        return needs.checkpoint(arguments.get("checkpoint", SYSTEM), "compact Mask2Former")

    def cache_key(self) -> str:
        """The key of encoder and decoder and all settings but the device."""
        names = ("encoder", "decoder", "score_thresh", "mask_nms_thresh", "max_candidates")
        return cache_key("Mask2FormerProposer", sizes=self._sizes, **{name: getattr(self, name) for name in names})

    @torch.inference_mode()
    def propose(self, image: np.ndarray) -> MaskSet:
        """Candidates at the size of the image, (H, W, 3) uint8, by falling score, without empty masks.

        The score, in [0, 1], is the probability that the mask shows an object times the mean probability of its pixels.

        Raises:
            ValueError: the array has another shape or dtype.
        """
        size, side = size_of(image), self.encoder.info.input_size
        picture, inner = cornered_image(image, side)
        maps = finest_first(self.encoder.encode(picture[None].to(self.device).float() / 255))
        predicted = self.decoder(maps, only_last=True)
        probabilities = predicted.scores[-1][0].sigmoid()
        likely = (probabilities >= self.score_thresh).nonzero()[:, 0]
        logits = unpadded_logits(predicted.masks[-1][0][likely], side, inner, size)
        scores = probabilities[likely] * mean_inside(logits)
        masks = logits > 0
        kept = ((scores >= self.score_thresh) & not_empty(masks)).nonzero()[:, 0]
        result = MaskSet(masks[kept].cpu(), scores[kept].cpu(), SYSTEM)
        order = torch.sort(result.scores, descending=True, stable=True).indices
        if self.mask_nms_thresh is not None and len(result) > 1:
            order = mask_nms(result.masks, result.scores, self.mask_nms_thresh)
        return result.keep(order[: self.max_candidates])


def _network(file: Path) -> tuple[Any, Any, list[Any]]:
    """Encoder and decoder of a checkpoint, and the configs of the decoder's parts."""
    card = read_card(file)
    kind = card.get("system")
    if kind not in (SYSTEM, INSTRUCTSEG):
        raise ValueError(f"checkpoint {file} is of system {kind!r}; expected {SYSTEM!r} or {INSTRUCTSEG!r}")
    config: Any = arguments_of(beside(file, card.get("config")))
    parts = arguments_of(config.get("decoder")) if kind == SYSTEM else config
    missing = {*_PARTS, "encoder"} - (parts | config).keys()
    if missing:
        raise ValueError(f"card of checkpoint {file} names no {min(missing)}; was it written by training?")
    sizes = [parts[name] for name in _PARTS]
    encoder: Any = build(config["encoder"])
    decoder: Any = build({"class_path": _DECODER, "init_args": dict(zip(_PARTS, sizes, strict=True))})
    if reads_weights():
        held = decoder.state_dict()
        tensors = {name: tensor for name, tensor in read_tensors(file).items() if kind == SYSTEM or name in held}
        if "object_embed" not in tensors:
            raise ValueError(f"checkpoint {file} has no object_embed; expected InstructSeg trained with object_weight")
        load_strictly(decoder, tensors, str(file))
    return encoder, decoder, sizes
