"""Where what may be returned lies among the lists, and so how many of them a query must go through to meet it.

Without a filter ``probes`` lists hold the 10 nearest, and j lists about the 10 (j / probes)^2 nearest. Where a share s
of the rows of those j lists passes the filter, about s times as many of these may be returned; j is enough when that is
``AMPLE`` times what is wanted. So a filter that holds the query's own neighbourhood costs next to nothing, and one
that lies elsewhere is known to, before anything is missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from retrieval.indexes.codes import Walk
from retrieval.indexes.library import load_faiss
from retrieval.indexes.rows import Passing

AMPLE = 1.5
AT = 10  # neighbours by which probes are measured
_SAMPLE = 64  # rows of a list that stand for it
_WORTH = 2  # going through more than one list in so many costs more than going through all codes


@dataclass(frozen=True, slots=True)
class Spread:
    """``sizes`` [lists]: rows of each; ``sample`` [lists, 64]: positions of some."""

    sizes: npt.NDArray[np.int64]
    sample: npt.NDArray[np.int64]

    @classmethod
    def of(cls, index: Any) -> Self:
        """Of a faiss.IndexIVF."""
        sizes = np.array([index.invlists.list_size(n) for n in range(index.nlist)], np.int64)
        sample = np.zeros((index.nlist, _SAMPLE), np.int64)
        for n in np.flatnonzero(sizes):
            ids = load_faiss().rev_swig_ptr(index.invlists.get_ids(int(n)), int(sizes[n]))
            sample[n] = ids[np.linspace(0, sizes[n] - 1, _SAMPLE, dtype=np.intp)]
        return cls(sizes, sample)

    def probes(self, walk: Walk, unfiltered: npt.NDArray[np.intp], passing: Passing, k: int) -> npt.NDArray[np.intp]:
        """How many lists of its ``walk`` each query must go through to meet k that are ``passing``; 0 where going
        through all codes is cheaper. ``unfiltered`` [queries]: how many it goes through without a filter."""
        near = walk.lists[:, : self.worth]
        rows = self.sizes[near].cumsum(axis=1)
        ours = (self.sizes * passing.mask[self.sample].mean(axis=1))[near].cumsum(axis=1)
        met = AT * (np.arange(1, near.shape[1] + 1) / unfiltered[:, None]) ** 2 * ours / np.maximum(rows, 1)
        enough = met >= AMPLE * k
        return np.where(enough.any(axis=1), enough.argmax(axis=1) + 1, 0)

    @property
    def worth(self) -> int:
        """The most lists that are gone through under a filter."""
        return max(1, len(self.sizes) // _WORTH)
