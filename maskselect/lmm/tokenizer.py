"""The compact language model's byte-level BPE tokenizer: loading, and the check against special tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

COMPACT_FILE = Path(__file__).parent / "compact_tokenizer.json"
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>")
"""Ids 0 to 3 of the compact tokenizer."""


class CompactTokenizer:
    """The part of transformers' tokenizers that this package asks for, over the library under them.

    tokenizer: its tokens.

    Raises ValueError when one of `SPECIAL_TOKENS` is missing.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.pad_token_id, self.bos_token_id, self.eos_token_id = map(self.convert_tokens_to_ids, SPECIAL_TOKENS[:3])

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """The ids of a text as `input_ids`; there are no special tokens to add."""
        return {"input_ids": self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def get_vocab(self) -> dict[str, int]:
        """Every token with its id."""
        return dict(self.tokenizer.get_vocab())

    def add_tokens(self, tokens: Sequence[AddedToken], special_tokens: bool = False) -> int:
        """Add tokens that are not there yet, and return their number. special_tokens: left out of decoded text."""
        add = self.tokenizer.add_special_tokens if special_tokens else self.tokenizer.add_tokens
        return int(add(list(tokens)))

    def convert_tokens_to_ids(self, token: str) -> int:
        """The id of a token. Raises ValueError when there is no such token."""
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no token {token!r}")
        return int(found)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of ids."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))


def load_compact() -> CompactTokenizer:
    """The tokenizer that ships with the compact model.

    Raises FileNotFoundError when the package's file is absent and ValueError when special tokens have moved.
    """
    tokenizer = CompactTokenizer(Tokenizer.from_str(_compact_text()))
    _check_special([tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS])
    return tokenizer


def load_compact_in_transformers() -> Any:
    """The same as a tokenizer of transformers, for its networks. Raises as `load_compact` does."""
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415  slow, and the compact model does without

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
