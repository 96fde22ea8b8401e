"""How idle threads of number-crunching libraries wait: briefly, since decoding and searches want the same cores."""

from __future__ import annotations

import os

# Turns of a loop before a thread sleeps, a few tens of microseconds. By default GNU's OpenMP, which torch and FAISS
# run on, spins for milliseconds, and a bulk index of pictures takes a tenth longer.
_SPINS = "10000"


def wait_briefly() -> None:
    """To be called before torch or FAISS are imported: the library reads it once. A user's own choice stays."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
