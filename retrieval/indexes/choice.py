"""``auto``: the backend that suits so many vectors and so much memory."""

from __future__ import annotations

import re
from importlib.util import find_spec

from retrieval.errors import UsageError
from retrieval.indexes import split_backend

AUTO = "auto"
CODED_FROM = 10_000  # with fewer vectors all of them are scored, which takes a millisecond
MOST_DIRECTIONS, LEAST_DIRECTIONS, STEP = 512, 64, 32  # that codes keep; by the step a processor likes
SCOPED = 0.5  # of all vectors may be kept once more, with others that a filter lets through
# Bytes of a vector: 4 bits for two directions, twice, and its key and its place in two lists; and where it is kept
# with others, the bits once more, its key, two positions and a mark.
_A_DIRECTION = 0.5 + SCOPED * 0.25
_BESIDE = 24 + SCOPED * 26
_SIZE = re.compile(r"([1-9]\d{0,5}(?:\.\d{1,3})?)\s?([KMGT])i?B?", re.IGNORECASE)


def chosen(backend: str, count: int, dim: int) -> str:
    """``backend`` as it is, or for ``auto`` and ``auto:8G`` what suits ``count`` vectors of ``dim``.

    The size is the most memory the index may take. ``exact`` reads every row and keeps none; ``fastscan`` keeps the
    codes of all, of at most ``MOST_DIRECTIONS`` directions, and again of those that filters let through. UsageError
    where the fewest directions don't fit, or for no size.
    """
    name, options = split_backend(backend)
    if name != AUTO:
        return backend
    memory = memory_of(options) if options else None
    if count < CODED_FROM or find_spec("faiss") is None:
        return "exact"
    most = min(MOST_DIRECTIONS, dim)
    if memory is None or count * bytes_of_codes(most) <= memory:
        return "fastscan"
    fitting = int((memory / count - _BESIDE) / _A_DIRECTION) // STEP * STEP
    if fitting < min(LEAST_DIRECTIONS, most):
        needed = count * bytes_of_codes(min(LEAST_DIRECTIONS, most)) / 2**20
        raise UsageError(
            f"The codes of {count:,} vectors take at least {needed:,.0f} MB, more than the {memory / 2**20:,.0f} MB "
            "allowed: allow more memory, or keep the index on other machines with milvus://host:port."
        )
    return f"fastscan:dims={fitting}"


def bytes_of_codes(directions: int) -> float:
    """Of memory for a vector, at most."""
    return directions * _A_DIRECTION + _BESIDE


def memory_of(text: str) -> int:
    """``8G`` -> bytes; UsageError when it is no size."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"Expected an amount of memory such as 500M or 8G, got '{text}'.")
    return int(float(match[1]) * 1024 ** ("KMGT".index(match[2].upper()) + 1))
