"""CLIP's byte-pair encoding (Radford et al. 2021) with the vocabulary and merges that come with a model.

Text is cleaned as the reference does: ``ftfy``, white space collapsed, lower case.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import inf
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval.encoders.weights import one_line
from retrieval.errors import UsageError

_START, _END, _LAST = "<|startoftext|>", "<|endoftext|>", "</w>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_REMEMBERED = 1 << 14  # words whose tokens are kept
_WORD = 64  # letters of a word that is worth keeping: longer ones are no words, and would fill the memory

Ids = npt.NDArray[np.int64]


class Tokenizer:
    """``ids``: token -> id. ``merges``: pairs of tokens, the first merged first. ``context``: tokens of a text."""

    def __init__(self, ids: Mapping[str, int], merges: Sequence[tuple[str, str]], context: int) -> None:
        import regex
        from open_clip.tokenizer import bytes_to_unicode

        if absent := [token for token in (_START, _END) if token not in ids]:
            raise UsageError(f"The vocabulary lacks {' and '.join(absent)}: fetch vocab.json again.")
        self._ids = ids
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._context = context
        self._letters = bytes_to_unicode()
        self._pattern = regex.compile(_WORDS, regex.IGNORECASE)
        self._longest = context * max(len(token) for token in ids)  # letters of a word that the context could hold
        self._remembered = lru_cache(_REMEMBERED)(self._encode)

    @classmethod
    def read(cls, vocabulary: Path, merges: Path, context: int) -> Tokenizer:
        try:
            ids = json.loads(vocabulary.read_text(encoding="utf-8"))
            lines = merges.read_text(encoding="utf-8").split("\n")
        except (OSError, ValueError) as error:
            raise UsageError(f"The tokenizer in {vocabulary.parent} can't be read ({one_line(error)}).") from error
        if not isinstance(ids, dict) or sorted(ids.values(), key=str) != sorted(range(len(ids)), key=str):
            raise UsageError(f"The file {vocabulary} must number its tokens from 0 without gaps: fetch it again.")
        pairs = [(pair[0], pair[1]) for pair in map(str.split, lines) if len(pair) == 2 and pair[0] != "#version:"]
        return cls(ids, pairs, context)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def end(self) -> int:
        """The id of the end-of-text token, which is the padding too."""
        return self._ids[_END]

    def __call__(self, texts: Sequence[str]) -> Ids:
        """Token ids [n, context], padded with the end-of-text token. A longer text is cut, its end token kept."""
        ids = np.full((len(texts), self._context), self.end, np.int64)
        for row, text in zip(ids, texts, strict=True):
            tokens = (self._ids[_START], *self._tokens(text))[: self._context - 1]
            row[: len(tokens)] = tokens
        return ids

    def _tokens(self, text: str) -> list[int]:
        import ftfy

        tokens: list[int] = []
        for word in self._pattern.findall(" ".join(ftfy.fix_text(text).split()).lower()):
            tokens.extend(self._remembered(word) if len(word) <= _WORD else self._encode(word[: self._longest]))
            if len(tokens) >= self._context:
                break
        return tokens

    def _encode(self, word: str) -> tuple[int, ...]:
        """The tokens of one word: its bytes, the pair of lowest rank merged until no pair is known."""
        if word in (_START, _END):
            return (self._ids[word],)
        letters = [self._letters[byte] for byte in word.encode()]
        parts = [*letters[:-1], letters[-1] + _LAST]
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self._ranks.get(pair, inf))
            if best not in self._ranks:
                break
            parts = _merged(parts, best)
        return tuple(self._ids.get(part, self.end) for part in parts)


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Every occurrence of the pair joined, from the left."""
    joined: list[str] = []
    place = 0
    while place < len(parts):
        found = place + 1 < len(parts) and (parts[place], parts[place + 1]) == pair
        joined.append(pair[0] + pair[1] if found else parts[place])
        place += 2 if found else 1
    return joined
