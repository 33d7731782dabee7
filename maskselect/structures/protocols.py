"""The protocols that connect the parts. Constructors take these types, never concrete classes of a sibling room."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from maskselect.structures.answer import Answer
from maskselect.structures.chat import ChatIds
from maskselect.structures.clip import Clip
from maskselect.structures.features import FeatureInfo, FeatureMap
from maskselect.structures.generation import Generated, LogitsProcessor
from maskselect.structures.groups import GroupSource, PrepareSettings
from maskselect.structures.masks import MaskSet
from maskselect.structures.sample import Prompt


@runtime_checkable
class Cacheable(Protocol):
    """A part whose results can be cached: proposers, encoders, and whatever else determines frozen features."""

    def cache_key(self) -> str:
        """A digest of its weights and of every setting that changes its results; see `backends.cache_keys`.

        Equal keys mean equal results, in every process and on every machine. Device and speed settings do not count.
        """
        ...


@runtime_checkable
class Proposer(Protocol):
    """Image to candidate masks."""

    def propose(self, image: np.ndarray) -> MaskSet:
        """(H, W, 3) uint8 to a `MaskSet` at the image's size; an empty set when there are no candidates."""
        ...


@runtime_checkable
class Prompter(Protocol):
    """Turns a box or a point into a mask; the predict path uses it for references."""

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The mask inside a box given in pixels: (H, W) bool."""
        ...

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The masks inside boxes (K, 4) given in pixels, in the same order: K masks, some of which may be empty.

        Scores are the network's estimate of the quality of each mask.
        """
        ...

    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The mask under a point given in pixels: (H, W) bool."""
        ...


@runtime_checkable
class PromptableProposer(Proposer, Prompter, Protocol):
    """A proposer that is also a prompter, such as SAM."""


@runtime_checkable
class Encoder(Protocol):
    """Images to feature maps. Frozen."""

    info: FeatureInfo

    def encode(self, images: Tensor) -> list[FeatureMap]:
        """Feature maps of images, one for each of `info.levels`, in that order.

        Args:
            images: (B, 3, H, W) float in [0, 1]. An image that is not square is padded with zeros on the right and
                below, after it is resized and normalised, to a multiple of the coarsest stride.

        Raises:
            ValueError: for images that are not square where `info.any_shape` is False.
        """
        ...


@runtime_checkable
class VisionTower(Protocol):
    """A frozen network whose features become the image tokens of a language model. It is also a torch.nn.Module.

    Attributes:
        channels: E.
        tokens: T, the same for every image.
    """

    channels: int
    tokens: int

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) float in [0, 1] to (B, T, E)."""
        ...


class LanguageModel(Protocol):
    """A vision-language model, as systems and training use it. It is also a torch.nn.Module.

    Shape letters: B rows or images, T image tokens, E features of one, L positions, K keys, D width, V vocabulary.

    Attributes:
        tokenizer: that of transformers, or one with the same methods; its end token ends answers.
        gradient_checkpointing: activations are recomputed in the backward pass, so there can be no cache.
        has_own_files: frozen weights come from files that are read whenever the model is built.
        images_on_grids: the number of tokens of an image depends on its size, and they are placed on a grid.
    """

    tokenizer: Any
    gradient_checkpointing: bool
    has_own_files: bool
    images_on_grids: bool

    @property
    def width(self) -> int:
        """D."""
        ...

    @property
    def vision_width(self) -> int:
        """E."""
        ...

    @property
    def max_positions(self) -> int:
        """Longest sequence that the model supports."""
        ...

    @property
    def most_image_tokens(self) -> int:
        """Upper bound of T."""
        ...

    @property
    def language_model(self) -> nn.Module:
        """The decoder, with its `layers`, without the LM head."""
        ...

    @property
    def output_layer(self) -> nn.Module | None:
        """The LM head; None when it is tied to the embeddings."""
        ...

    @property
    def vision_tower(self) -> nn.Module:
        """The vision tower. It is frozen, except for a projector inside it."""
        ...

    @property
    def projector(self) -> nn.Module:
        """The trainable part of `project_image`."""
        ...

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """The modules that `vision_features` depends on."""
        ...

    @property
    def frozen_elsewhere(self) -> set[str]:
        """Names of frozen tensors that a checkpoint can leave out, because they are read from the model's own files."""
        ...

    def add_token(self, text: str, special: bool = False) -> int:
        """The id of a token, which is added if it is new. A special token is left out of decoded text."""
        ...

    def token_ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens before or after."""
        ...

    def chat(self, with_image: bool) -> ChatIds:
        """The chat template: ids before and after image, candidates, prompt and answer."""
        ...

    def image_grid(self, height: int, width: int) -> tuple[int, int] | None:
        """Rows and columns of the image tokens for an image size in pixels; None when T is fixed and has no grid."""
        ...

    def vision_features(self, images: Tensor) -> Tensor:
        """Output of the frozen vision tower: (B, 3, H, W) float in [0, 1], any shape, to (B, T, E)."""
        ...

    def project_image(self, features: Tensor) -> Tensor:
        """Image tokens: (B, T, E) to (B, T, D) float32."""
        ...

    def embed(self, token_ids: Tensor) -> Tensor:
        """Token embeddings: (..., L) int64 to (..., L, D) float32."""
        ...

    def hidden(
        self,
        embeddings: Tensor,
        visible: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        """Last hidden states, after the final norm: (B, L, D) float32 to the same.

        visible: (B, 1, L, K) bool, True where a query may look at a key (K includes the cache), or None for causal.
        positions: (B, L) int64 position ids, (B, L, 3) where image tokens stand on grids, or None for 0, 1, 2, ….
        cache: result of `new_cache`, with keys and values of earlier positions; extended in place.
        """
        ...

    def layer_states(
        self,
        embeddings: Tensor,
        visible: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Any = None,
    ) -> list[Tensor]:
        """The input of every layer, then the result of `hidden`, (B, L, D) each; arguments as for `hidden`."""
        ...

    def attention(self, device: torch.device, learns: bool) -> AbstractContextManager[None]:
        """Context with the attention kernels for a device. learns: a backward pass follows."""
        ...

    def new_cache(self) -> Any:
        """An empty key-value cache for `hidden`, with `layers` (each has `keys` and `values`) and `update`."""
        ...

    def token_logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits: (..., D) to (..., V)."""
        ...

    def generate(
        self,
        embeddings: Tensor,
        max_new_tokens: int = 48,
        *,
        valid: Tensor | None = None,
        positions: Tensor | None = None,
        process: LogitsProcessor | None = None,
        stop: Collection[int] = (),
        cache: Any = None,
        before: Tensor | None = None,
        add: Callable[[list[list[int]]], Tensor] | None = None,
    ) -> Generated:
        """Greedy decoding of a batch of rows.

        Args:
            embeddings: (B, L, D), padded on the right.
            max_new_tokens: upper bound of the tokens generated per row.
            valid: (B, L) bool, False on padding; None for no padding.
            positions: (B, L), on image grids (B, L, 3), int64; None for 0, 1, 2, …. New tokens continue from the last.
            process: a logits processor, applied before the argmax.
            stop: further tokens that end a row; unlike the end token, they are part of the result.
            cache: keys and values of earlier positions, B rows; extended in place. None starts empty.
            before: (B, K) bool, visible positions of the cache; None for all.
            add: gives for the ids generated so far, one list per row, what is added to the embeddings of the last
                tokens, (B, D).
        """
        ...

    def decode(self, ids: list[int]) -> str:
        """Token ids to text, without special tokens."""
        ...


@runtime_checkable
class System(Protocol):
    """Answers prompts about pictures and clips. It is also a torch.nn.Module.

    The predict path, the evaluator and the reports use these methods only.

    Attributes:
        name: in cards and reports.
        paper: arXiv number of its paper, "" if there is none.
    """

    name: str
    paper: str

    @property
    def uses_threshold(self) -> bool:
        """Whether a score threshold selects the group; then a higher threshold gives a prefix of the same ranking."""
        ...

    @property
    def answers_prompts(self) -> bool:
        """False for a stage of training that cannot answer prompts; then `read` raises ValueError."""
        ...

    def read(self, visual: np.ndarray | Clip, extra: MaskSet | None = None) -> Any:
        """Compute everything that does not depend on the prompt.

        Args:
            visual: (H, W, 3) uint8 picture, or a clip.
            extra: masks of the picture that join the candidates.

        Returns:
            A reading, to be passed to `answer`. A system may defer reading a clip to `answer`, frame by frame.

        Raises:
            ValueError: for `extra` where the system has no candidates, or for a clip.
        """
        ...

    def answer(self, reading: Any, prompts: list[Prompt], threshold: float | None) -> list[Answer]:
        """One answer per prompt, on the CPU.

        Args:
            reading: what `read` returned.
            prompts: with reference masks at the size of the picture, or of the frames of the clip.
            threshold: lowest score of a selected mask; None for a system that uses no threshold.

        Raises:
            ValueError: for a prompt that the system cannot read.
        """
        ...


class Preparer(Protocol):
    """Makes training items from annotated pictures, and batches from items, for one kind of learner."""

    def prepare(self, source: GroupSource, number: int, rng: np.random.Generator, prompts: int) -> Any:
        """One item: a picture of a source, with at most `prompts` prompts.

        Raises:
            UnusableImageError: when the picture cannot be used.
        """
        ...

    def collate(self, items: list[Any]) -> Any:
        """The batch that the `loss` of the learner takes."""
        ...


@runtime_checkable
class ClipPreparer(Preparer, Protocol):
    """A preparer whose sources may be of clips.

    Attributes:
        frames_around: number of frames that an item of a clip has beside its key frame.
    """

    frames_around: int


@runtime_checkable
class StoringPreparer(Preparer, Protocol):
    """A preparer that caches the output of frozen parts, which can then be computed before training."""

    def keep(self, source: GroupSource, number: int) -> bool:
        """Compute and cache the frozen features of an image. Returns False if they were cached before.

        Raises:
            ValueError: without a cache folder.
            UnusableImageError: when the picture cannot be used.
        """
        ...


@runtime_checkable
class Learner(Protocol):
    """A system, proposer, encoder or language model with its objective, which the Lightning module trains.

    It is also a torch.nn.Module.

    Attributes:
        name: in cards, and of the checkpoint file.
        runs_every_part: whether every batch runs the same modules equally often, forward and backward. ZeRO-3
            requires this on all processes.
    """

    name: str

    @property
    def runs_every_part(self) -> bool:
        """See the class."""
        ...

    def blocks(self) -> list[nn.Module]:
        """Repeated modules that run in sequence and can be sharded one by one.

        Raises:
            ValueError: when the learner cannot be sharded as configured, with the reason.
        """
        ...

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by name: "loss" is minimised, all others are logged."""
        ...

    def validate(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by name for a validation batch; they are averaged over batches and logged under "val/"."""
        ...

    def learned_state(self) -> dict[str, Tensor]:
        """Every tensor that a checkpoint holds."""
        ...

    def load_learned(self, tensors: dict[str, Tensor], origin: str | Path) -> None:
        """Load the result of `learned_state`; `origin` names the file in errors.

        Raises:
            ValueError: when a tensor is missing, unknown or of another shape.
        """
        ...


@runtime_checkable
class GroupLearner(Learner, Protocol):
    """A learner whose batches `GroupsData` makes from annotated pictures."""

    def preparer(self, settings: PrepareSettings, training: bool) -> Preparer:
        """The preparer of its batches. training: False for validation."""
        ...
