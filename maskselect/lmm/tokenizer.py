"""The compact language model's byte-level BPE tokenizer; it lower-cases all text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

COMPACT_FILE = Path(__file__).parent / "compact_tokenizer.json"
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>")
"""Ids 0 to 3 of the compact tokenizer."""


class CompactTokenizer:
    """The part of transformers' tokenizer interface that this package uses, on top of the tokenizers library.

    Args:
        tokenizer: the tokenizer.

    Raises:
        ValueError: if one of `SPECIAL_TOKENS` is missing.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.pad_token_id, self.bos_token_id, self.eos_token_id = map(self.convert_tokens_to_ids, SPECIAL_TOKENS[:3])

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """The ids of a text as `input_ids`."""
        return {"input_ids": self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def get_vocab(self) -> dict[str, int]:
        """All tokens with their ids."""
        return dict(self.tokenizer.get_vocab())

    def add_tokens(self, tokens: Sequence[AddedToken], special_tokens: bool = False) -> int:
        """Add new tokens and return their number. special_tokens: decoded text leaves them out."""
        add = self.tokenizer.add_special_tokens if special_tokens else self.tokenizer.add_tokens
        return int(add(list(tokens)))

    def convert_tokens_to_ids(self, token: str) -> int:
        """The id of a token. Raises ValueError for an unknown token."""
        number = self.tokenizer.token_to_id(token)
        if number is None:
            raise ValueError(f"the tokenizer has no token {token!r}")
        return int(number)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Convert ids to text."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))


def load_compact() -> CompactTokenizer:
    """The tokenizer that ships with the compact model.

    Raises:
        FileNotFoundError: if the package's file is missing.
        ValueError: if special tokens have other ids.
    """
    tokenizer = CompactTokenizer(Tokenizer.from_str(_compact_text()))
    _check_special([tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS])
    return tokenizer


def load_compact_in_transformers() -> Any:
    """The same tokenizer for networks of transformers. Raises as `load_compact`."""
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415  slow to import

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_compact_text()), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    _check_special(tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)))
    return tokenizer


def _compact_text() -> str:
    if not COMPACT_FILE.is_file():
        raise FileNotFoundError(f"tokenizer file {COMPACT_FILE} is missing; it is part of the package")
    return COMPACT_FILE.read_text(encoding="utf-8")


def _check_special(ids: list[int]) -> None:
    if ids != list(range(len(SPECIAL_TOKENS))):
        raise ValueError(f"tokenizer {COMPACT_FILE} has special ids {ids}; expected {list(range(len(SPECIAL_TOKENS)))}")
