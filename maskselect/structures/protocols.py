"""The protocols through which the parts meet. Constructor types are these, never concrete classes of a sibling room."""

from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from maskselect.structures.chat import ChatIds
from maskselect.structures.features import FeatureInfo, FeatureMap
from maskselect.structures.masks import MaskSet


@runtime_checkable
class Proposer(Protocol):
    """Image to candidate masks."""

    def propose(self, image: np.ndarray) -> MaskSet:
        """(H, W, 3) uint8 to a `MaskSet` at the image's own size; a set of none when nothing is found."""
        ...


@runtime_checkable
class PromptableProposer(Proposer, Protocol):
    """A proposer that can also turn a box or a point into a mask."""

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The mask inside a box given in pixels: (H, W) bool."""
        ...

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The masks inside boxes (K, 4) given in pixels, in their order: K masks, some of which may be empty.

        Scores are the proposer's own estimate of how good each mask is.
        """
        ...

    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The mask under a point given in pixels: (H, W) bool."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Image to feature map. Frozen."""

    info: FeatureInfo

    def encode(self, images: Tensor) -> FeatureMap:
        """(B, 3, H, W) float in [0, 1], already square, any side, to a map on `info.grid`."""
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

    def generate(self, embeddings: Tensor, max_new_tokens: int = 48) -> str:
        """Greedy continuation of (1, L, D) as text, up to the end token."""
        ...


@runtime_checkable
class Head(Protocol):
    """Hidden state of a candidate to its score."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """(..., D) to logits (...)."""
        ...


@runtime_checkable
class CandidateSystem(Protocol):
    """A system that chooses among proposed candidates: what predictor and trainer need to know of it.

    system: its name in cards.  stage: 1 where it trains by captioning, else 2.
    proposer: where candidates come from.
    channels: of pooled features.
    image_tokens: whether the language model sees the image itself.
    duplicates_iou: of two chosen candidates that overlap more only the better one stays; None keeps both.
    A CandidateSystem is a torch.nn.Module as well.
    """

    system: str
    stage: int
    proposer: Proposer
    channels: int
    image_tokens: bool
    duplicates_iou: float | None

    @property
    def visual_parts(self) -> tuple[nn.Module, ...]:
        """Frozen networks that decide what `pool_features` and `image_features` give."""
        ...

    def image_features(self, images: Tensor) -> Tensor:
        """What the language model sees of images: (B, 3, H, W) float in [0, 1], any shape, to (B, T, E)."""
        ...

    def image_grid(self, height: int, width: int) -> Tensor | None:
        """Rows and columns, (2,) int64, of the T tokens of an image of that many pixels; None where T is always the
        same."""
        ...

    def encode(self, image: np.ndarray) -> list[FeatureMap]:
        """What the encoders see of (H, W, 3) uint8, for any number of masks of it."""
        ...

    def pool_features(self, maps: list[FeatureMap], masks: MaskSet | Tensor) -> Tensor:
        """Features of masks of the image that `encode` saw, proposed or given as (N, H, W) bool: (N, C)."""
        ...

    def read(self, image: np.ndarray, candidate_features: Tensor) -> Any:
        """Read an image and its candidates once, for any number of prompts: (H, W, 3) uint8, (N, C)."""
        ...

    def answer(
        self, read: Any, prompts: list[str], references: list[Tensor], threshold: float
    ) -> tuple[Tensor, Tensor]:
        """Scores (P, N) in [0, 1] and the groups (P, N) bool of prompts on what `read` gave, on the CPU.

        references: for each prompt the pooled features of its reference masks, (R, C).
        """
        ...


@runtime_checkable
class Trainable(Protocol):
    """What the one Lightning module trains: a system, a proposer or an encoder with its objective.

    A Trainable is a torch.nn.Module as well.
    """

    def loss(self, batch: object) -> dict[str, Tensor]:
        """Scalars by name, among them "loss", which is minimised; the others are logged."""
        ...

    def validate(self, batch: object) -> dict[str, Tensor]:
        """Scalars by name for a validation batch, averaged over batches and logged under "val/"."""
        ...
