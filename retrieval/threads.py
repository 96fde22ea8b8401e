"""How idle threads of number-crunching libraries wait: briefly, since decoding and searches want the same cores."""

from __future__ import annotations

import os

# Turns of a loop before a thread sleeps, a few tens of microseconds. By default GNU's OpenMP, which torch and FAISS
# run on, spins for milliseconds, and a bulk index of pictures takes a tenth longer.
_SPINS = "10000"
# The same for OpenBLAS, which NumPy's products run on: two to this power of processor cycles. By default it spins for a
# tenth of a second, and searches that follow one product have a core less.
_CYCLES = "14"


def wait_briefly() -> None:
    """To be called before NumPy, torch or FAISS are imported: libraries read it once. A user's own choice stays."""
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", _CYCLES)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
