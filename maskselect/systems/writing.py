"""Writing answers token by token: exact tokenization, grammars as logits processors, and the probability of tokens.

Shape letters: B rows, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskselect.structures.codec import Grammar
from maskselect.structures.protocols import LanguageModel

_ANCHOR = "a"


class TokenTexts:
    """The text of every token of a language model, so that a text and its tokens can be compared by character.

    Args:
        lmm: with all tokens that answers need.
    """

    def __init__(self, lmm: LanguageModel) -> None:
        tokenizer = lmm.tokenizer
        self.lmm, self.end = lmm, int(tokenizer.eos_token_id)
        # A tokenizer may drop the space before the first token, so each is decoded behind another one.
        anchor = lmm.token_ids(_ANCHOR)
        start = len(tokenizer.decode(anchor))
        special = {tokenizer.pad_token_id, tokenizer.bos_token_id, self.end}
        count = len(tokenizer)
        self.texts = ["" if n in special else tokenizer.decode([*anchor, n])[start:] for n in range(count)]
        self.ids = {text: number for number, text in reversed(list(enumerate(self.texts))) if text}
        self.longest = max(map(len, self.ids))
        self.tree: dict[str, Any] = {}
        for text, number in self.ids.items():
            node = self.tree
            for letter in text:
                node = node.setdefault(letter, {})
            node[""] = number

    def encode(self, text: str) -> list[int]:
        """Ids whose texts join to exactly `text`: those of the tokenizer, else the longest token at each place."""
        ids = self.lmm.token_ids(text)
        if self.decode(ids) == text:
            return ids
        exact, place = [], 0
        while place < len(text):
            ends = range(min(len(text), place + self.longest), place, -1)
            end = next((end for end in ends if text[place:end] in self.ids), None)
            if end is None:  # a letter of several tokens
                return ids
            exact.append(self.ids[text[place:end]])
            place = end
        return exact

    def decode(self, ids: Sequence[int]) -> str:
        """The texts of ids, joined."""
        return "".join(self.texts[number] for number in ids)


class GrammarProcessor:
    """Forbids every token after which no text of the grammar could follow.

    Args:
        grammars: one for each row; None permits every token.
        tokens: of the language model.
    """

    def __init__(self, grammars: Sequence[Grammar | None], tokens: TokenTexts) -> None:
        self.tokens = tokens
        self.rows = [None if grammar is None else _Row(grammar) for grammar in grammars]

    def __call__(self, ids: list[list[int]], logits: Tensor) -> Tensor:
        """Logits (B, V), with -inf for forbidden tokens; see `structures.generation.LogitsProcessor`."""
        masks = torch.zeros(logits.shape, dtype=torch.bool)
        for row, automaton in enumerate(self.rows):
            if automaton is None:
                masks[row] = True
                continue
            for number in ids[row][automaton.read :]:
                automaton.advance(self.tokens.texts[number])
            automaton.read = len(ids[row])
            allowed = automaton.allowed(self.tokens.tree)
            if automaton.complete() or not allowed:
                allowed.append(self.tokens.end)
            masks[row, allowed] = True
        return logits.masked_fill(~masks.to(logits.device), -torch.inf)


class _Row:
    """Where one row is in its grammar: states, each with the part of the next symbol that is written."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar, self.read = grammar, 0
        self.places: list[tuple[Any, str]] = [(grammar.start, "")]

    def _next(self, places: list[tuple[Any, str]], letter: str) -> list[tuple[Any, str]]:
        following = []
        for state, part in places:
            text, longer = part + letter, False
            for number in self.grammar.allowed(state).nonzero()[0].tolist():
                symbol = self.grammar.symbols[number]
                if symbol == text:
                    following.append((self.grammar.advance(state, number), ""))
                longer |= len(symbol) > len(text) and symbol.startswith(text)
            if longer:
                following.append((state, text))
        return following

    def advance(self, text: str) -> None:
        """Read the text of a token."""
        for letter in text:
            self.places = self._next(self.places, letter)

    def allowed(self, tree: dict[str, Any]) -> list[int]:
        """Ids of the tokens that may follow."""
        found, open_nodes = [], [(tree, self.places)]
        while open_nodes:
            node, places = open_nodes.pop()
            for letter, child in node.items():
                if letter == "":
                    found.append(child)
                elif following := self._next(places, letter):
                    open_nodes.append((child, following))
        return found

    def complete(self) -> bool:
        """Whether the text may end here."""
        return any(not part and self.grammar.complete(state) for state, part in self.places)
