"""The protocols through which the parts meet. Constructor types are these, never concrete classes of a sibling room."""

from collections.abc import Collection
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
    """A part whose results can be kept: proposers, encoders, and whatever else decides frozen features."""

    def cache_key(self) -> str:
        """A digest of its weights and of every declared setting that decides its results; see `backends.cache_keys`.

        Equal keys mean equal results, in every process and on every machine. Where and how fast it runs do not count.
        """
        ...


@runtime_checkable
class Proposer(Protocol):
    """Image to candidate masks."""

    def propose(self, image: np.ndarray) -> MaskSet:
        """(H, W, 3) uint8 to a `MaskSet` at the image's own size; a set of none when nothing is found."""
        ...


@runtime_checkable
class Prompter(Protocol):
    """Turns a box or a point into a mask; the predict path uses it for references."""

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The mask inside a box given in pixels: (H, W) bool."""
        ...

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The masks inside boxes (K, 4) given in pixels, in their order: K masks, some of which may be empty.

        Scores are the network's own estimate of how good each mask is.
        """
        ...

    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The mask under a point given in pixels: (H, W) bool."""
        ...


@runtime_checkable
class PromptableProposer(Proposer, Prompter, Protocol):
    """A proposer that is a prompter as well, as SAM is."""


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


class LanguageModel(Protocol):
    """A language model that sees images: what systems and training need to know of it.

    Shape letters: B rows or images, T image tokens, E features of one, L positions, K keys, D width, V words.

    tokenizer: transformers' own, or one with its names; its end token ends answers.
    gradient_checkpointing: activations are recomputed in the backward pass, which forbids caches.
    has_own_files: what is frozen comes from files that are read whenever it is built.
    images_on_grids: an image becomes as many tokens as its size asks for, which stand on a grid.
    A LanguageModel is a torch.nn.Module as well.
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
        """How many positions it was built for."""
        ...

    @property
    def most_image_tokens(self) -> int:
        """The most that T can be."""
        ...

    @property
    def language_model(self) -> nn.Module:
        """The transformer over the sequence, whose `layers` run one after another, without its output layer."""
        ...

    @property
    def output_layer(self) -> nn.Module | None:
        """What writes words, or None where the token embeddings do that too."""
        ...

    @property
    def vision_tower(self) -> nn.Module:
        """What sees images. It is frozen, but for a projector that may be within."""
        ...

    @property
    def projector(self) -> nn.Module:
        """What `project_image` trains."""
        ...

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """What decides `vision_features`."""
        ...

    @property
    def frozen_elsewhere(self) -> set[str]:
        """Names of frozen tensors that no checkpoint needs to hold, since files of its own give them again."""
        ...

    def add_token(self, text: str, special: bool = False) -> int:
        """The id of a token, added when it is not there yet. special: left out of decoded text."""
        ...

    def token_ids(self, text: str) -> list[int]:
        """Ids of a text without any added special token."""
        ...

    def chat(self, with_image: bool) -> ChatIds:
        """Its template: what stands around image, candidates, prompt and answer."""
        ...

    def image_grid(self, height: int, width: int) -> tuple[int, int] | None:
        """Rows and columns of the tokens of an image of that many pixels; None where all have the same T in a row."""
        ...

    def vision_features(self, images: Tensor) -> Tensor:
        """What its frozen part sees of images: (B, 3, H, W) float in [0, 1], any shape, to (B, T, E)."""
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
        cache: what `new_cache` gave, with keys and values of earlier positions; extended in place.
        """
        ...

    def layer_states(
        self,
        embeddings: Tensor,
        visible: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Any = None,
    ) -> list[Tensor]:
        """What goes into every layer: the arguments of `hidden`, to as many (B, L, D) as there are layers."""
        ...

    def attention(self, device: torch.device, learns: bool) -> AbstractContextManager[None]:
        """The attention kernels that suit a device. learns: there will be a backward pass."""
        ...

    def new_cache(self) -> Any:
        """An empty key-value cache for `hidden`: with `layers`, each of `keys` and `values`, and `update`."""
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
    ) -> Generated:
        """Greedy continuations of rows, side by side.

        Args:
            embeddings: (B, L, D), padded on the right.
            max_new_tokens: most tokens that are written to a row.
            valid: (B, L) bool, False on padding; None for no padding.
            positions: (B, L) or on image grids (B, L, 3) int64; None for 0, 1, 2, …. Written ones go on from the last.
            process: changes the logits before the best token is chosen.
            stop: tokens that end a row beside the end token; unlike that, they are part of the row.
            cache: with earlier positions, B rows; extended in place. None begins with an empty one.
            before: (B, K) bool, which earlier positions of the cache are visible; None for all.
        """
        ...

    def decode(self, ids: list[int]) -> str:
        """Token ids to text, without special tokens."""
        ...


@runtime_checkable
class System(Protocol):
    """Answers prompts about pictures and clips; the predict path, the evaluator and the reports see nothing else.

    A System is a torch.nn.Module as well.

    name: in cards and reports.
    paper: arXiv number of its paper, "" if there is none.
    """

    name: str
    paper: str

    @property
    def uses_threshold(self) -> bool:
        """Whether a score threshold decides the group, so that the group at a higher one begins that at a lower one."""
        ...

    @property
    def answers_prompts(self) -> bool:
        """False for a stage of training that cannot answer yet; then `read` raises ValueError."""
        ...

    def read(self, visual: np.ndarray | Clip, extra: MaskSet | None = None) -> Any:
        """Everything that does not depend on the prompt, kept for the next prompt.

        Args:
            visual: (H, W, 3) uint8 picture, or a clip.
            extra: masks of the picture that join the candidates.

        Returns:
            A reading, for `answer` alone. A clip may be read no earlier than in `answer`, frame by frame.

        Raises:
            ValueError: for `extra` where the system has no candidates, or for a clip.
        """
        ...

    def answer(self, reading: Any, prompts: list[Prompt], threshold: float | None) -> list[Answer]:
        """One answer a prompt, on the CPU.

        Args:
            reading: what `read` returned.
            prompts: their reference masks have the size of the picture or of the clip's frames.
            threshold: score from which a mask is in the group; None where the system uses none.

        Raises:
            ValueError: for a prompt that the system cannot read.
        """
        ...


class Preparer(Protocol):
    """Makes training items of annotated pictures, and batches of items, for one kind of learner."""

    def prepare(self, source: GroupSource, number: int, rng: np.random.Generator, prompts: int) -> Any:
        """One item: a picture of a source with at most so many prompts.

        Raises:
            UnusableImageError: when the picture cannot be used.
        """
        ...

    def collate(self, items: list[Any]) -> Any:
        """The batch of some items, as the learner's `loss` takes it."""
        ...


@runtime_checkable
class StoringPreparer(Preparer, Protocol):
    """A preparer that keeps what frozen parts compute, so that it can be computed before the training."""

    def keep(self, source: GroupSource, number: int) -> bool:
        """Compute and keep what is frozen of an image. Returns False if it was kept already.

        Raises:
            ValueError: where nothing is kept.
            UnusableImageError: when the picture cannot be used.
        """
        ...


@runtime_checkable
class Learner(Protocol):
    """What the one Lightning module trains: a system, a proposer, an encoder or a language model with its objective.

    A Learner is a torch.nn.Module as well.

    name: in cards, and of the checkpoint file.
    runs_every_part: whether every batch runs the same modules, as often, forward and backward. ZeRO-3 asks this of all
        processes.
    """

    name: str

    @property
    def runs_every_part(self) -> bool:
        """See the class."""
        ...

    def blocks(self) -> list[nn.Module]:
        """Modules that are alike and run one after another, which may be sharded one by one.

        Raises:
            ValueError: where the learner cannot be sharded as configured, with the reason.
        """
        ...

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by name, among them "loss", which is minimised; the others are logged."""
        ...

    def validate(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by name for a validation batch, averaged over batches and logged under "val/"."""
        ...

    def learned_state(self) -> dict[str, Tensor]:
        """Every tensor that a checkpoint holds."""
        ...

    def load_learned(self, tensors: dict[str, Tensor], origin: str | Path) -> None:
        """Load what `learned_state` gave; `origin` names the file in errors.

        Raises:
            ValueError: when a tensor is missing, unknown or of another shape.
        """
        ...


@runtime_checkable
class GroupLearner(Learner, Protocol):
    """A learner of pictures with prompts (or captions), which `GroupsData` feeds."""

    def preparer(self, settings: PrepareSettings, training: bool) -> Preparer:
        """What makes its batches. training: False for validation."""
        ...
