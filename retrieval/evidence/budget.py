"""Pure: how many tokens a text is, at most, and how many sentences fit."""

from __future__ import annotations

import re
from collections.abc import Callable

_PIECE = re.compile(r"[A-Za-z]+|[^\S\n]+|\n|.", re.DOTALL)


def token_estimate(text: str) -> int:
    """An estimate of tokens that errs on the high side; models differ, so none is exact.

    Three letters of a word are counted as a token, and each digit, each sign and each line feed as one; characters
    beyond ASCII as one for each of their UTF-8 bytes. A space goes with the word after it; further ones count one each.
    Never more than the bytes of the text, which is the most that any byte-level tokenizer can make of it.
    """
    return sum(_cost(piece) for piece in _PIECE.findall(text))


def _cost(piece: str) -> int:
    if piece.isascii() and piece.isalpha():
        return (len(piece) + 2) // 3
    if piece.isspace() and piece != "\n" and piece.isascii():
        return len(piece) - 1
    return len(piece.encode("utf-8", "surrogatepass"))


def most_that_fit(count: int, tokens_with: Callable[[int], int], budget: int) -> int:
    """The most of ``count`` sentences, taken from the front, whose text is within the budget; 0 when none is.

    ``tokens_with(n)``: of the text with the first n. It grows with n, but for the few words that tell what is missing.
    """
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if tokens_with(middle) <= budget else (low, middle - 1)
    while low > 0 and tokens_with(low) > budget:
        low -= 1
    return low
