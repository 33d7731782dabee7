"""The Python call: `maskselect.load("ras").select(image, "mugs left of <mask-ref>", references=[mask])`.

The input is a path, PIL image or array with masks, boxes or points; the output is a `MaskGroup` at the image's own
size. The system runs on a working image whose longer side is bounded, so that memory does not grow with the picture.

Shape letters: H W pixels of the image, h w pixels of the working image, R references.
"""

import hashlib
import os
import pickle
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from maskselect.backends import checkpoints
from maskselect.backends.devices import pick_device
from maskselect.backends.forking import settle_in_fork
from maskselect.backends.pickling import packed
from maskselect.backends.training_data import card_data, threshold_data
from maskselect.data.clips import ClipSource, WorkingClip, open_clip
from maskselect.data.images import ImageSource, load_image
from maskselect.lmm.lora import merge_adapters
from maskselect.ops.images import working_image, working_size
from maskselect.ops.masks import resize_nearest
from maskselect.proposers.store import StoredProposer, proposer_key
from maskselect.structures.answer import Answer
from maskselect.structures.arguments import checked_extra, checked_threshold
from maskselect.structures.clip import Clip, ClipMasks
from maskselect.structures.facts import ModelFacts
from maskselect.structures.masks import MaskSet
from maskselect.structures.packed_masks import PackedMasks
from maskselect.structures.prediction import ClipGroup, MaskGroup
from maskselect.structures.protocols import Prompter, Proposer, System
from maskselect.structures.provenance import trained_on
from maskselect.structures.references import BoxRef, MaskRef, PointRef, as_references
from maskselect.structures.references import Reference as CheckedReference
from maskselect.structures.refiner import Refiner
from maskselect.structures.sample import Prompt, prompt_text
from maskselect.systems import named_models
from maskselect.systems.loading import check_answers_prompts, default_prompter, load_system
from maskselect.systems.proposing import ProposingSystem
from maskselect.systems.refining import check_refiner, load_refiner, refine_answer

Reference = np.ndarray | Tensor | Image.Image | BoxRef | PointRef | MaskRef


@dataclass(frozen=True, eq=False)
class ReadPicture:
    """A picture that a model has read; `Model.answer` takes it for any number of prompts. See `Model.read`.

    Attributes:
        pixels: (H, W, 3) uint8.
        working: (h, w, 3) uint8, the working image.
        reading: the reading of the system.
    """

    pixels: np.ndarray
    working: np.ndarray
    reading: Any

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the picture."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def pool(self) -> MaskSet | None:
        """The candidates of every prompt, (N, h, w); None if there are none, or each prompt has its own."""
        pool: MaskSet | None = getattr(self.reading, "pool", None)
        return pool


class Model:
    """A loaded system that answers prompts. It keeps the reading of the last image for further prompts about it.

    Threads may share a model: their calls run one after another. A forked process may use it, unless it is on CUDA. A
    model can be pickled. Arguments are not kept, and results share no memory with the model.

    Args:
        system: the system.
        threshold: selection threshold, chosen on validation data and stored in the card; ignored if the system uses
            none.
        name: its name in reports.
        prompter: turns boxes and points into reference masks; None refuses such references.
        fingerprint: digest of the weights and their card, "" if there are none; results are stored under it.
        trained_on: the card's fields about the data of training and threshold, see `maskselect.backends.training_data`.
        refiner: refines the masks of every answer; None for none. With a refiner, a fingerprint depends on it, too.
        clip_threshold: that of clips, chosen on validation clips and stored in the card; None for that of pictures.
        parts: for a named model of public weights its parts, as `hf://org/name@commit`; answers and reports state them.
    """

    def __init__(
        self,
        system: System,
        threshold: float | None = 0.5,
        name: str = "model",
        prompter: Prompter | None = None,
        fingerprint: str = "",
        trained_on: dict[str, Any] | None = None,
        refiner: Refiner | None = None,
        parts: Sequence[str] = (),
        clip_threshold: float | None = None,
    ) -> None:
        cast(nn.Module, system).eval()
        self.system = system
        self.prompter = prompter
        self.fingerprint, self.trained_on, self.refiner = fingerprint, trained_on, refiner
        self.parts = tuple(parts)
        self.proposer_name: str | None = None  # of a proposer that is not the checkpoint's
        if refiner is not None and fingerprint:
            self.fingerprint = hashlib.sha256(f"{fingerprint};{refiner.cache_key()}".encode()).hexdigest()
        self.threshold = threshold if system.uses_threshold else None
        self.clip_threshold = self.threshold if clip_threshold is None or self.threshold is None else clip_threshold
        self.name = name
        self._start()

    def _start(self) -> None:
        """Set the attributes that belong to one process."""
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._last: tuple[str, Any] | None = None  # digest of an image and its extra candidates, and their reading
        _MODELS.add(self)

    def __getstate__(self) -> bytes:
        with self._lock:
            return packed({name: v for name, v in vars(self).items() if name not in ("_process", "_lock", "_last")})

    def __setstate__(self, state: bytes) -> None:
        vars(self).update(pickle.loads(state))
        self._start()

    def facts(self) -> ModelFacts:
        """What reports state about this model."""
        proposers = trained_on(self.system.proposer) if isinstance(self.system, ProposingSystem) else ()
        card = self.trained_on or {}
        return ModelFacts(
            self.name,
            self.fingerprint,
            tuple(card_data(card)),
            tuple(proposers),
            self._refiner_name,
            self.parts,
            self.proposer_name,
            self.threshold,
            () if self.threshold is None else tuple(threshold_data(card)),
        )

    def select(
        self,
        image: ImageSource,
        prompt: str,
        references: Sequence[Reference] | None = None,
        threshold: float | None = None,
    ) -> MaskGroup:
        """Select the group of masks that answers one prompt.

        Args:
            image: file, its bytes, an open file, PIL image, or (H, W, 3) uint8.
            prompt: text, in which each `<mask-ref>` stands for a reference.
            references: for each `<mask-ref>` a mask (H, W), a `BoxRef` or a `PointRef`. A mask is bool, 0 and 1, or 0
                and 255.
            threshold: overrides the checkpoint's, in [0, 1].

        Raises:
            FileNotFoundError, ValueError, TypeError: one sentence about an unusable image, prompt or reference, such as
                a box in which the prompter finds nothing.
        """
        prompt_text(prompt)
        return self.select_many(image, [prompt], [as_references(references)], threshold)[0]

    def select_many(
        self,
        image: ImageSource,
        prompts: Sequence[str],
        references: Sequence[Sequence[Reference] | None] | None = None,
        threshold: float | None = None,
        extra_candidates: np.ndarray | None = None,
        keep_pool: bool = False,
    ) -> list[MaskGroup]:
        """Select one group for each prompt; the image is read once.

        Args:
            image: see `select`.
            prompts: texts.
            references: the references of each prompt.
            threshold: overrides the checkpoint's, in [0, 1].
            extra_candidates: (K, H, W) bool, which join the proposals.
            keep_pool: keep the candidates in the groups (`MaskGroup.pool`), which takes memory.

        Raises:
            FileNotFoundError, ValueError, TypeError: see `select`; ValueError also for extra candidates of a system
                without candidates.
        """
        cut = self._threshold(threshold)
        texts, checked = _checked(prompts, references)
        extra = None if extra_candidates is None else checked_extra(extra_candidates)
        if not texts:
            return []
        pixels = load_image(image)
        size, working = (pixels.shape[0], pixels.shape[1]), working_image(pixels)
        with self._computing():
            resolved = [
                Prompt(text, self._reference_masks(refs, size, [working] * len(refs), working.shape[:2]))
                for text, refs in zip(texts, checked, strict=True)
            ]
            answers = self._refined(working, self.system.answer(self._read(working, extra), resolved, cut))
        return [
            _group(one, answer, cut, pixels, keep_pool, self._refiner_name, self.parts)
            for one, answer in zip(resolved, answers, strict=True)
        ]

    def read(self, image: ImageSource) -> ReadPicture:
        """Read a picture for prompts that come later. The caller keeps the result; the model keeps no reference to it.

        Raises:
            FileNotFoundError, ValueError, TypeError: see `select`.
        """
        pixels = load_image(image)
        working = working_image(pixels)
        with self._computing():
            return ReadPicture(pixels, working, self.system.read(working, None))

    def answer(
        self,
        picture: ReadPicture,
        prompts: Sequence[str],
        references: Sequence[Sequence[Reference] | None] | None = None,
        threshold: float | None = None,
    ) -> list[Answer]:
        """The answers of the system at the working size, which `select_many` turns into groups.

        Args:
            picture: result of `read`.
            prompts, references, threshold: see `select_many`.

        Raises:
            ValueError, TypeError: see `select`.
        """
        cut = self._threshold(threshold)
        texts, checked = _checked(prompts, references)
        if not texts:
            return []
        working = picture.working
        with self._computing():
            resolved = [
                Prompt(text, self._reference_masks(refs, picture.size, [working] * len(refs), working.shape[:2]))
                for text, refs in zip(texts, checked, strict=True)
            ]
            return self._refined(working, self.system.answer(picture.reading, resolved, cut))

    def reference_masks(self, picture: ReadPicture, references: Sequence[Reference]) -> Tensor:
        """The masks that references stand for, (R, h, w) bool at the working size. Raises as `select`."""
        working = picture.working
        with self._computing():
            images = [working] * len(references)
            return self._reference_masks(as_references(references), picture.size, images, working.shape[:2])

    def select_video(
        self,
        video: ClipSource,
        prompt: str,
        references: Sequence[Reference] | None = None,
        frames: Sequence[int] | None = None,
        threshold: float | None = None,
    ) -> ClipGroup:
        """Select the objects of a clip that answer one prompt.

        Args:
            video: video file, folder of frames, list of (H, W, 3) uint8 frames, or a `Clip`.
            prompt: text, in which each `<mask-ref>` stands for a reference.
            references: for each `<mask-ref>` a mask (H, W), a `BoxRef` or a `PointRef`.
            frames: the number of the frame on which each reference is given; None is the first frame.
            threshold: overrides the checkpoint's, in [0, 1].

        Raises:
            FileNotFoundError, ValueError, TypeError: one sentence about an unusable clip, prompt or reference.
        """
        return self.select_video_many(video, [prompt], [as_references(references)], [frames], threshold)[0]

    def select_video_many(
        self,
        video: ClipSource,
        prompts: Sequence[str],
        references: Sequence[Sequence[Reference] | None] | None = None,
        frames: Sequence[Sequence[int] | None] | None = None,
        threshold: float | None = None,
    ) -> list[ClipGroup]:
        """Select one group for each prompt; every frame is read once. See `select_video`."""
        cut = self.clip_threshold if threshold is None else self._threshold(threshold)
        texts, checked = _checked(prompts, references)
        frame_lists = [None] * len(texts) if frames is None else list(frames)
        if len(frame_lists) != len(texts):
            raise ValueError(f"{len(texts)} prompts need as many lists of frames, got {len(frame_lists)}")
        numbers = [_frame_numbers(one, refs) for one, refs in zip(frame_lists, checked, strict=True)]
        if not texts:
            return []
        clip = open_clip(video)
        working = WorkingClip(clip, working_size(clip.size))
        for number in (number for one in numbers for number in one):
            if not 0 <= number < len(clip):
                raise ValueError(f"reference on frame {number}: the clip has frames 0 to {len(clip) - 1}")
        with self._computing():
            resolved = []
            for text, refs, places in zip(texts, checked, numbers, strict=True):
                images = [working[place] for place in places]
                resolved.append(
                    Prompt(text, self._reference_masks(refs, clip.size, images, working.size), tuple(places))
                )
            answers = self._refined(working, self.system.answer(self.system.read(working), resolved, cut))
        return [
            ClipGroup(
                clip=clip,
                prompt=one.text,
                objects=cast(ClipMasks, answer.masks).shown_at(clip.size),
                scores=answer.scores.clone().numpy(),
                threshold=cut,
                references=PackedMasks(one.references.numpy(), clip.size),
                reference_frames=one.frames,
                text=answer.text,
                failure=answer.failure,
                repairs=answer.repairs,
                cut=answer.cut,
                refiner=self._refiner_name,
                parts=self.parts,
            )
            for one, answer in zip(resolved, answers, strict=True)
        ]

    def _threshold(self, threshold: float | None) -> float | None:
        """The given threshold, checked, or the model's own."""
        if threshold is None:
            return self.threshold
        if not self.system.uses_threshold:
            raise ValueError(f"model {self.name!r} uses no threshold, got {threshold}; expected none")
        return checked_threshold(threshold)

    def propose_with(self, proposer: Proposer, name: str) -> None:
        """Take the candidates from another proposer.

        Args:
            proposer: the proposer.
            name: for reports.

        Raises:
            ValueError: the system has no candidates.
        """
        if not isinstance(self.system, ProposingSystem):
            raise ValueError(f"model {self.name!r} has no candidates; expected no proposer, got {name}")
        self.system.replace_proposer(proposer)
        self.prompter, self.proposer_name, self._last = self.system.prompter or self.prompter, name, None
        if self.fingerprint:
            key = f"{self.fingerprint};proposer {proposer_key(proposer)}"
            self.fingerprint = hashlib.sha256(key.encode()).hexdigest()

    def keep_candidates(self, folder: str | Path) -> None:
        """Read the candidates of images from a folder if they are stored there, and store the others.

        Raises:
            ValueError: the system has no candidates.
        """
        if not isinstance(self.system, ProposingSystem):
            raise ValueError(f"model {self.name!r} has no candidates to keep")
        self.system.replace_proposer(StoredProposer(self.system.proposer, folder))

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Inference of one thread at a time, because proposers and language models keep state while they compute.

        Raises:
            RuntimeError: the model is on CUDA, and this process was forked after the model was created.
        """
        parameters = self.system.parameters() if isinstance(self.system, nn.Module) else iter(())
        if self._process != os.getpid() and any(parameter.is_cuda for parameter in parameters):
            raise RuntimeError(
                "this model is on a CUDA device, which a forked process cannot use; load it in the worker itself, or "
                "start workers by 'spawn'"
            )
        settle_in_fork()
        with self._lock, torch.inference_mode():
            yield

    def _read(self, working: np.ndarray, extra: np.ndarray | None) -> Any:
        """The reading of a working image and extra candidates; that of the last call is kept."""
        digest = hashlib.sha256(repr(working.shape).encode())
        for array in (working, extra):
            digest.update(b"" if array is None else array.data)
        key, last = digest.hexdigest(), self._last
        if last is None or last[0] != key:
            masks = None
            if extra is not None and len(extra):
                masks = MaskSet(torch.from_numpy(extra), torch.ones(len(extra), dtype=torch.float32), "extra")
            last = self._last = (key, self.system.read(working, masks))
        return last[1]

    def _refined(self, visual: np.ndarray | Clip, answers: list[Answer]) -> list[Answer]:
        """The answers with refined masks, or unchanged without a refiner."""
        if self.refiner is None:
            return answers
        return [refine_answer(self.refiner, visual, answer) for answer in answers]

    @property
    def _refiner_name(self) -> str | None:
        return None if self.refiner is None else self.refiner.name

    def _reference_masks(
        self,
        references: list[CheckedReference],
        size: tuple[int, int],
        images: list[np.ndarray],
        working_size: tuple[int, int],
    ) -> Tensor:
        """The masks (R, h, w) bool of references, each with at least one pixel.

        Args:
            references: R references, in pixels of the image.
            size: (H, W) of the image.
            images: the working image or frame of each reference.
            working_size: (h, w).

        Raises:
            ValueError: there is no prompter for a box or point, or it finds nothing there.
        """
        masks = [torch.zeros(0, *working_size, dtype=torch.bool)]
        across, down = working_size[1] / size[1], working_size[0] / size[0]
        for reference, image in zip(references, images, strict=True):
            reference.check(size)
            if isinstance(reference, MaskRef):
                masks.append(resize_nearest(torch.from_numpy(reference.mask)[None], working_size))
                continue
            if self.prompter is None:
                raise ValueError(
                    "this model has no prompter that turns a box or point into a mask; give a mask instead"
                )
            if isinstance(reference, BoxRef):
                x0, y0, x1, y1 = reference.box_xyxy
                mask = self.prompter.segment_box(image, (x0 * across, y0 * down, x1 * across, y1 * down))
            else:
                x, y = reference.point_xy
                mask = self.prompter.segment_point(image, (x * across, y * down))
            if not mask.any():
                raise ValueError(
                    f"reference {reference}: nothing is found there; expected a place on an object, or a mask instead"
                )
            masks.append(mask.bool().cpu()[None])
        return torch.cat(masks)


_MODELS: "weakref.WeakSet[Model]" = weakref.WeakSet()


def _unlock_models() -> None:
    """Renew the locks in a forked process: another thread of the parent may have held one, and never releases it."""
    for model in _MODELS:
        model._lock = threading.RLock()


os.register_at_fork(after_in_child=_unlock_models)


def load(name_or_path: str | Path, device: str = "auto", refiner: str | Path | Refiner | None = None) -> Model:
    """Load a model.

    Args:
        name_or_path: name of a shipped checkpoint, a file, a folder, or `hf://org/name`, optionally with `@revision`;
            or photos-small, photos-base, photos-fast, or a YAML file of that form, whose public weights are downloaded
            at the first use.
        device: "auto", "cpu", "cuda" or "cuda:N".
        refiner: refines the masks of every answer: "sam", "samrefiner", "crf", "snap", a YAML file, or an object.

    Raises:
        FileNotFoundError: there is no such checkpoint or config of a refiner, or the hub cannot provide the checkpoint.
        ValueError: the checkpoint is damaged or of another kind, the refiner is unknown or its config invalid, or the
            device does not exist.
        TypeError: `name_or_path` is neither str nor Path.
    """
    if not isinstance(name_or_path, str | Path):
        raise TypeError(f"the model is of type {type(name_or_path).__name__}; expected a name, a path or hf://org/name")
    place = pick_device(device)
    if isinstance(refiner, str | Path):
        check_refiner(refiner)
    settle_in_fork()
    if named_models.is_named(name_or_path):
        return _load_named(name_or_path, place, refiner)
    if str(name_or_path).startswith("hf://"):
        from maskselect.systems.fetching import fetch_checkpoint  # noqa: PLC0415  the hub's client is slow to import

        name_or_path = fetch_checkpoint(str(name_or_path))
    check_answers_prompts(checkpoints.read_card(name_or_path), name_or_path)
    system, card = load_system(name_or_path, place)
    merge_adapters(cast(nn.Module, system))
    file = checkpoints.find_checkpoint(name_or_path)
    name = str(card.get("name", Path(name_or_path).stem))
    fields = ("trained_on", "data", "threshold_from", "metrics")
    learned: dict[str, Any] = {key: card[key] for key in fields if key in card}
    threshold, of_clips = float(card.get("threshold", 0.5)), card.get("clip_threshold")
    if isinstance(refiner, str | Path):
        refiner = load_refiner(refiner, str(place), system.proposer if isinstance(system, ProposingSystem) else None)
    prompter, key = default_prompter(system, str(place)), fingerprint(file)
    return Model(system, threshold, name, prompter, key, learned, refiner, clip_threshold=of_clips)


def _load_named(name_or_path: str | Path, place: torch.device, refiner: str | Path | Refiner | None) -> Model:
    """`load` for a named model of public weights."""
    loaded = named_models.load(name_or_path, place)
    system = loaded.system
    if isinstance(refiner, str | Path):
        refiner = load_refiner(refiner, str(place), system.proposer if isinstance(system, ProposingSystem) else None)
    prompter = default_prompter(system, str(place))
    threshold, name = loaded.model.threshold, loaded.model.name
    return Model(system, threshold, name, prompter, loaded.fingerprint, None, refiner, loaded.parts)


def fingerprint(file: Path) -> str:
    """Digest of a checkpoint's weights and card, because another threshold in the card changes the answers."""
    with file.open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256")
    digest.update(file.with_suffix(".json").read_bytes())
    return digest.hexdigest()


def _group(
    prompt: Prompt,
    answer: Answer,
    threshold: float | None,
    pixels: np.ndarray,
    keep_pool: bool,
    refiner: str | None,
    parts: tuple[str, ...],
) -> MaskGroup:
    """An answer at the size of the image."""
    size = (pixels.shape[0], pixels.shape[1])
    return MaskGroup(
        image=pixels,
        prompt=prompt.text,
        masks=PackedMasks(cast(Tensor, answer.masks).cpu().numpy(), size),
        scores=answer.scores.clone().numpy(),
        candidates=None if answer.pool is None else len(answer.pool),
        threshold=threshold,
        references=PackedMasks(prompt.references.cpu().numpy(), size),
        candidate_scores=None if answer.pool_scores is None else answer.pool_scores.clone().numpy(),
        text=answer.text,
        failure=answer.failure,
        repairs=answer.repairs,
        cut=answer.cut,
        labels=answer.labels,
        pool=answer.pool.copy() if keep_pool and answer.pool is not None else None,
        refiner=refiner,
        parts=parts,
    )


def _checked(
    prompts: Sequence[str], references: Sequence[Sequence[Reference] | None] | None
) -> tuple[list[str], list[list[CheckedReference]]]:
    """Texts, and the references of each. Raises TypeError and ValueError as `Model.select_many` does."""
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Sequence):
        raise TypeError(f"prompts are of type {type(prompts).__name__}; expected a list of str; select takes one")
    texts = [prompt_text(text) for text in prompts]
    if isinstance(references, str | bytes | dict):
        raise TypeError(f"references are of type {type(references).__name__}; expected a list for each prompt")
    checked = [as_references(refs) for refs in references] if references is not None else [[] for _ in texts]
    if len(checked) != len(texts):
        raise ValueError(f"{len(texts)} prompts need as many lists of references, got {len(checked)}")
    return texts, checked


def _frame_numbers(frames: Sequence[int] | None, references: Sequence[CheckedReference]) -> list[int]:
    """The frame of each reference. Raises ValueError if their numbers differ."""
    numbers = [0] * len(references) if frames is None else [int(number) for number in frames]
    if len(numbers) != len(references):
        raise ValueError(f"{len(references)} reference(s) need as many frames, got {len(numbers)}")
    return numbers
