"""The compact language model's byte-level BPE tokenizer: training, loading, and the check against special tokens."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from maskselect.backends.atomic import atomic_file

COMPACT_FILE = Path(__file__).parent / "compact_tokenizer.json"
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>")
"""Ids 0 to 3 of the compact tokenizer."""


def train_bpe(texts: Iterable[str], vocabulary_size: int, path: Path) -> None:
    """Train a byte-level BPE on `texts` and write it to `path` as a tokenizers JSON file.

    All 256 bytes are in the vocabulary, so any text can be read. It is read in lower case: the compact model is too
    small to learn every word twice.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    with atomic_file(path) as part:
        tokenizer.save(str(part))


def load_compact() -> PreTrainedTokenizerBase:
    """The tokenizer that ships with the compact model.

    Raises FileNotFoundError when the package's file is absent and ValueError when special tokens have moved.
    """
    if not COMPACT_FILE.is_file():
        raise FileNotFoundError(f"tokenizer file {COMPACT_FILE} is missing; it is part of the package")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(COMPACT_FILE), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    if ids != list(range(len(SPECIAL_TOKENS))):
        raise ValueError(f"tokenizer {COMPACT_FILE} has special ids {ids}; expected {list(range(len(SPECIAL_TOKENS)))}")
    return tokenizer
