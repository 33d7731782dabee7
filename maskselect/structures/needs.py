"""`Need`: weights, data or packages that a class needs and this machine lacks. The classmethod `needs` states them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

Kind = Literal["weights", "data", "package", "device", "memory"]
KINDS: tuple[Kind, ...] = ("weights", "data", "package", "device", "memory")
"""In the order of a listing."""

Arguments = Mapping[str, Any]
"""The arguments of a class in a config, without those that are None; nested classes are config trees."""


@dataclass(frozen=True)
class Need:
    """Something that is missing.

    Attributes:
        kind: its kind.
        what: its name and purpose.
        help: how to get it, if possible commands, one per line.
        part: for example the split of a data set. Needs that differ only in it are listed as one.
        fetched: it is downloaded while the run is built, if there is a network.
        resumable: a run that continues from a checkpoint gets it from there.
    """

    kind: Kind
    what: str
    help: str
    part: str = ""
    fetched: bool = False
    resumable: bool = False


@runtime_checkable
class StatesNeeds(Protocol):
    """A class that needs weights, data or packages of its own."""

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """What is missing for an object of the class with these arguments, without building it and without network.

        Raises:
            ValueError: an argument names something that does not exist.
        """
        ...


FRAME_TOKENS, PROMPT_TOKENS, ANSWER_TOKENS, CAPTION_TOKENS = 40, 32, 16, 64
"""Typical tokens of a system sentence with its frame, of a prompt, of an answer, and of a caption."""


@runtime_checkable
class CountsTokens(Protocol):
    """A task with a language model `lmm`, whose memory in training can be estimated."""

    def step_tokens(self, images: int, prompts: int, candidates: int) -> int:
        """Number of tokens of the language model in a training step, with at most `candidates` per image."""
        ...
