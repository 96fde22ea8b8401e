"""Where searches happen: the space of the stored vectors themselves, or that of a metric head over them.

SQL holds the encoder's vectors and nothing else. What is compared, in an index, in a delta or slice by slice, is what
a ``Space`` makes of them. Which space is live hangs on the live generation, so that both change in one commit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from retrieval.adapters.head import MetricHead
from retrieval.errors import FingerprintMismatch, UsageError
from retrieval.types import Embedding, Query, UnitRows


@dataclass(frozen=True, slots=True)
class Space:
    """``fingerprint`` and ``dim`` of the vectors that meet in it; ``head`` makes them of stored ones, None leaves
    those.

    The fingerprint covers encoder, pooling and head: vectors of two spaces never meet.
    """

    fingerprint: str
    dim: int
    head: MetricHead | None = None

    def adapted(self, head: MetricHead | None) -> Space:
        """That of a head over this one; itself without. FingerprintMismatch for a head learned on other vectors."""
        if head is None:
            return self
        if self.head is not None or (head.base, head.dim_in) != (self.fingerprint, self.dim):
            fix = "Learn one on this gallery with precedent adapt."
            raise FingerprintMismatch(self.fingerprint, f"an adapter of {head.base} (dim {head.dim_in})", fix)
        return Space(head.fingerprint, head.dim_out, head)

    def place(self, rows: UnitRows) -> UnitRows:
        """Stored unit rows as unit rows of this space, [n, dim]."""
        return rows if self.head is None else self.head.apply(rows)

    def embedding(self, stored: Embedding) -> Embedding:
        """A case in this space: its vector and each of its slices through the head.

        The vector is the head of the pooled vector and not the pool of the mapped slices: heads are learned on pooled
        vectors, and a rebuild reads one row of SQL a case instead of every slice.
        """
        if self.head is None:
            return stored
        return replace(stored, vector=self.place(stored.vector[None, :])[0], slices=self.place(stored.slices))


def placed(query: Query, space: Space) -> Query:
    """A query in the space that is searched. UsageError for a sentence, alone or beside an image, in an adapted one.

    A head is learned on vectors of images; sentences lie apart from these, and what it makes of them means nothing.
    """
    if space.head is None:
        return query
    if query.text is not None or query.text_weight > 0:
        raise UsageError(
            f"This gallery is searched through an adapter ({space.fingerprint}), which was learned on images: a "
            "sentence has no place there. Search by image alone, or go back to the encoder with precedent adapt "
            "--use none."
        )
    return replace(query, embedding=space.embedding(query.embedding))
