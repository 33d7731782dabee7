"""The Python call: `maskselect.load("ras").select(image, "mugs left of <mask-ref>", references=[mask])`.

A person's types come in (paths, PIL images, arrays, boxes, points) and a `MaskGroup` at the image's own size comes out.
Inside, everything happens on a working image whose longer side is bounded, so memory does not grow with the picture.

Shape letters: H W the image's own pixels, h w the working image's, N candidates, R references.
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
from maskselect.data.clips import ClipSource, WorkingClip, open_clip
from maskselect.data.images import ImageSource, load_image
from maskselect.lmm.lora import merge_adapters
from maskselect.ops.images import working_image, working_size
from maskselect.ops.masks import resize_nearest
from maskselect.proposers.store import StoredProposer
from maskselect.structures.answer import Answer
from maskselect.structures.arguments import checked_extra, checked_threshold
from maskselect.structures.clip import ClipMasks
from maskselect.structures.masks import MaskSet
from maskselect.structures.packed_masks import PackedMasks
from maskselect.structures.prediction import ClipGroup, MaskGroup
from maskselect.structures.protocols import Prompter, System
from maskselect.structures.references import BoxRef, MaskRef, PointRef, as_references
from maskselect.structures.references import Reference as CheckedReference
from maskselect.structures.sample import Prompt, prompt_text
from maskselect.systems.candidates import CandidateSystem
from maskselect.systems.loading import default_prompter, load_system

Reference = np.ndarray | Tensor | Image.Image | BoxRef | PointRef | MaskRef


@dataclass(frozen=True)
class _Seen:
    """A working image that the system has read. Only copies of it are returned to a caller.

    key: of working image and extra candidates, which decide the reading.
    """

    key: str
    reading: Any


class Model:
    """A loaded system that answers prompts. It remembers the last image it read, so asking again costs only the prompt.

    Threads may share a model: they compute one after another, and each gets the answer to its own call. A forked
    process may use it too, in one thread of computing, unless it is on CUDA. Models can be pickled. Nothing that is
    given is kept or returned, but in copies.

    Args:
        system: the system.
        threshold: score from which a mask is in the group; chosen on validation data and stored in the card. It is None
            for a system that uses none.
        name: what reports call it.
        prompter: turns boxes and points into reference masks; None refuses such references.
        fingerprint: digest of the weights and their card, "" where there are none; results are kept under it.
        trained_on: what the card says of the training data, see `maskselect.backends.training_data.card_data`.
    """

    def __init__(
        self,
        system: System,
        threshold: float | None = 0.5,
        name: str = "model",
        prompter: Prompter | None = None,
        fingerprint: str = "",
        trained_on: dict[str, Any] | None = None,
    ) -> None:
        cast(nn.Module, system).eval()
        self.system = system
        self.prompter = prompter
        self.fingerprint, self.trained_on = fingerprint, trained_on
        self.threshold = threshold if system.uses_threshold else None
        self.name = name
        self._begin()

    def _begin(self) -> None:
        """What belongs to this process alone."""
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._last: _Seen | None = None
        _MODELS.add(self)

    def __getstate__(self) -> bytes:
        with self._lock:
            return packed({name: v for name, v in vars(self).items() if name not in ("_process", "_lock", "_last")})

    def __setstate__(self, state: bytes) -> None:
        vars(self).update(pickle.loads(state))
        self._begin()

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
            FileNotFoundError, ValueError, TypeError: one sentence for an image, prompt or reference that cannot be
                used, such as a box or point under which the prompter finds nothing.
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
            image: as of `select`.
            prompts: texts.
            references: for each prompt its references.
            threshold: overrides the checkpoint's, in [0, 1].
            extra_candidates: (K, H, W) bool, which join the proposed candidates.
            keep_pool: the groups keep the candidates (`MaskGroup.pool`), which takes memory.

        Raises:
            FileNotFoundError, ValueError, TypeError: as `select`; ValueError for extra candidates if the system has no
                candidates.
        """
        cut = self._threshold(threshold)
        texts, asked = _checked(prompts, references)
        extra = None if extra_candidates is None else checked_extra(extra_candidates)
        if not texts:
            return []
        pixels = load_image(image)
        size, working = (pixels.shape[0], pixels.shape[1]), working_image(pixels)
        with self._computing():
            masks = [self._reference_masks(own, size, working) for own in asked]
            questions = [Prompt(text, own) for text, own in zip(texts, masks, strict=True)]
            answers = self._answer(self._see(working, extra), questions, cut)
        rows = zip(questions, answers, strict=True)
        return [self._group(question, answer, cut, pixels, keep_pool) for question, answer in rows]

    def select_video(
        self,
        video: ClipSource,
        prompt: str,
        references: Sequence[Reference] | None = None,
        frames: Sequence[int] | None = None,
        threshold: float | None = None,
    ) -> ClipGroup:
        """The objects of a clip that answer one prompt.

        Args:
            video: video file, folder of frames, list of (H, W, 3) uint8 frames, or a `Clip`.
            prompt: text, in which each `<mask-ref>` stands for a reference.
            references: for each `<mask-ref>` a mask (H, W), a `BoxRef` or a `PointRef`.
            frames: for each reference the number of the frame on which it is given; None is the first frame.
            threshold: overrides the checkpoint's, in [0, 1].

        Raises:
            FileNotFoundError, ValueError, TypeError: one sentence for a clip, prompt or reference that cannot be used.
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
        """One group for each prompt; every frame is read once. See `select_video`."""
        cut = self._threshold(threshold)
        texts, asked = _checked(prompts, references)
        given = [None] * len(texts) if frames is None else list(frames)
        if len(given) != len(texts):
            raise ValueError(f"{len(texts)} prompts need as many lists of frames, got {len(given)}")
        places = [_places(own, refs) for own, refs in zip(given, asked, strict=True)]
        if not texts:
            return []
        clip = open_clip(video)
        working = WorkingClip(clip, working_size(clip.size))
        for number in (number for own in places for number in own):
            if not 0 <= number < len(clip):
                raise ValueError(f"reference on frame {number}: the clip has frames 0 to {len(clip) - 1}")
        with self._computing():
            questions = []
            for text, own, numbers in zip(texts, asked, places, strict=True):
                none = torch.zeros(0, *working.size, dtype=torch.bool)
                masks = [
                    self._reference_mask(r, clip.size, working[n])[None] for r, n in zip(own, numbers, strict=True)
                ]
                questions.append(Prompt(text, torch.cat([none, *masks]), tuple(numbers)))
            with torch.inference_mode():
                answers = self.system.answer(self.system.read(working), questions, cut)
        return [
            ClipGroup(
                clip=clip,
                prompt=question.text,
                objects=cast(ClipMasks, answer.masks).shown_at(clip.size),
                scores=answer.scores.clone().numpy(),
                threshold=cut,
                references=PackedMasks(question.references.numpy(), clip.size),
                reference_frames=question.frames,
                text=answer.text,
                failure=answer.failure,
            )
            for question, answer in zip(questions, answers, strict=True)
        ]

    def _threshold(self, threshold: float | None) -> float | None:
        """Raises ValueError for a threshold that the system does not use."""
        if threshold is None:
            return self.threshold
        if not self.system.uses_threshold:
            raise ValueError(f"model {self.name!r} uses no threshold, got {threshold}; expected none")
        return checked_threshold(threshold)

    def keep_candidates(self, folder: str | Path) -> None:
        """Read candidates of pictures from a folder if they are stored there, and store the others.

        Raises:
            ValueError: for a system that has no candidates.
        """
        if not isinstance(self.system, CandidateSystem):
            raise ValueError(f"model {self.name!r} has no candidates to keep")
        self.system.replace_proposer(StoredProposer(self.system.proposer, folder))

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """One thread at a time: proposers and language models keep state while they compute.

        Raises RuntimeError on CUDA in a process that was forked after this model was made.
        """
        parameters = self.system.parameters() if isinstance(self.system, nn.Module) else iter(())
        if self._process != os.getpid() and any(parameter.is_cuda for parameter in parameters):
            raise RuntimeError(
                "this model is on a CUDA device, which a forked process cannot use; load it in the worker itself, or "
                "start workers by 'spawn'"
            )
        settle_in_fork()
        with self._lock:
            yield

    def _see(self, working: np.ndarray, extra: np.ndarray | None) -> _Seen:
        """What `_look` gives, remembered for the last image."""
        digest = hashlib.sha256(repr(working.shape).encode())
        for array in (working, extra):
            digest.update(b"" if array is None else array.data)
        key, last = digest.hexdigest(), self._last
        if last is None or last.key != key:
            last = self._last = self._look(key, working, extra)
        return last

    @torch.inference_mode()
    def _look(self, key: str, working: np.ndarray, extra: np.ndarray | None) -> _Seen:
        more = None
        if extra is not None and len(extra):
            more = MaskSet(torch.from_numpy(extra), torch.ones(len(extra), dtype=torch.float32), "extra")
        return _Seen(key, self.system.read(working, more))

    @torch.inference_mode()
    def _answer(self, seen: _Seen, prompts: list[Prompt], threshold: float | None) -> list[Answer]:
        return self.system.answer(seen.reading, prompts, threshold)

    def _group(
        self, prompt: Prompt, answer: Answer, threshold: float | None, pixels: np.ndarray, keep_pool: bool
    ) -> MaskGroup:
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
            pool=answer.pool.copy() if keep_pool and answer.pool is not None else None,
        )

    def _reference_masks(
        self, references: list[CheckedReference], size: tuple[int, int], working: np.ndarray
    ) -> Tensor:
        none = torch.zeros(0, *working.shape[:2], dtype=torch.bool)
        return torch.cat([none, *(self._reference_mask(one, size, working)[None] for one in references)])

    def _reference_mask(self, reference: CheckedReference, size: tuple[int, int], working: np.ndarray) -> Tensor:
        """What a reference points to in the working image, (h, w) bool with at least one pixel.

        size: (H, W) of the image in whose pixels it is given.
        """
        reference.check(size)
        if isinstance(reference, MaskRef):
            return resize_nearest(torch.from_numpy(reference.mask)[None], (working.shape[0], working.shape[1]))[0]
        prompter = self.prompter
        if prompter is None:
            raise ValueError("this model has no prompter that turns a box or point into a mask; give a mask instead")
        across, down = working.shape[1] / size[1], working.shape[0] / size[0]
        if isinstance(reference, BoxRef):
            x0, y0, x1, y1 = reference.box_xyxy
            found = prompter.segment_box(working, (x0 * across, y0 * down, x1 * across, y1 * down))
        else:
            x, y = reference.point_xy
            found = prompter.segment_point(working, (x * across, y * down))
        if not found.any():
            raise ValueError(
                f"reference {reference}: nothing is found there; expected it on a thing, or a mask instead"
            )
        return found.bool().cpu()


_MODELS: "weakref.WeakSet[Model]" = weakref.WeakSet()


def _unlock_models() -> None:
    """Another thread of the parent may have held a lock when the process was forked; here nobody would release it."""
    for model in _MODELS:
        model._lock = threading.RLock()


os.register_at_fork(after_in_child=_unlock_models)


def load(name_or_path: str | Path, device: str = "auto") -> Model:
    """Load a model: the name of a shipped checkpoint, a file, a folder, or `hf://org/name`, perhaps with `@revision`.

    device: "auto", "cpu", "cuda" or "cuda:N".

    Raises FileNotFoundError when there is no such checkpoint or the hub does not give it, ValueError when it is
    damaged, holds another kind of thing, or the device is not there.
    """
    if not isinstance(name_or_path, str | Path):
        raise TypeError(f"the model is of type {type(name_or_path).__name__}; expected a name, a path or hf://org/name")
    place = pick_device(device)
    settle_in_fork()
    if str(name_or_path).startswith("hf://"):
        from maskselect.systems.fetching import fetch_checkpoint  # noqa: PLC0415  the hub's client is slow to import

        name_or_path = fetch_checkpoint(str(name_or_path))
    system, card = load_system(name_or_path, place)
    merge_adapters(cast(nn.Module, system))
    if not system.answers_prompts:
        raise ValueError(f"checkpoint {name_or_path} is of stage 1, which captions; expected one of stage 2, as ras is")
    file = checkpoints.find_checkpoint(name_or_path)
    name = str(card.get("name", Path(name_or_path).stem))
    learned: dict[str, Any] = {key: card[key] for key in ("trained_on", "data") if key in card}
    threshold = float(card.get("threshold", 0.5))
    return Model(system, threshold, name, default_prompter(system, str(place)), fingerprint(file), learned)


def fingerprint(file: Path) -> str:
    """Digest of a checkpoint, weights and card: with another threshold it answers otherwise."""
    with file.open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256")
    digest.update(file.with_suffix(".json").read_bytes())
    return digest.hexdigest()


def _checked(
    prompts: Sequence[str], references: Sequence[Sequence[Reference] | None] | None
) -> tuple[list[str], list[list[CheckedReference]]]:
    """Texts, and for each its references. Raises TypeError and ValueError as `Model.select_many` does."""
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Sequence):
        raise TypeError(f"prompts are of type {type(prompts).__name__}; expected a list of str; select takes one")
    texts = [prompt_text(text) for text in prompts]
    if isinstance(references, str | bytes | dict):
        raise TypeError(f"references are of type {type(references).__name__}; expected a list for each prompt")
    asked = [as_references(own) for own in references] if references is not None else [[] for _ in texts]
    if len(asked) != len(texts):
        raise ValueError(f"{len(texts)} prompts need as many lists of references, got {len(asked)}")
    return texts, asked


def _places(frames: Sequence[int] | None, references: Sequence[CheckedReference]) -> list[int]:
    """The frame of each reference. Raises ValueError for another number of frames."""
    numbers = [0] * len(references) if frames is None else [int(number) for number in frames]
    if len(numbers) != len(references):
        raise ValueError(f"{len(references)} reference(s) need as many frames, got {len(numbers)}")
    return numbers
