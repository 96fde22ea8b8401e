"""What a reader is. One module per family; registered by one line in ``indexer.readers``.

Readers run only inside the limited worker processes of ``indexer.sandbox``. They may raise anything: the worker turns
it into a ``Rejection``; a ``RejectedInput`` keeps its own stage and reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from indexer.limits import Limits
from indexer.sources import Scan, Source
from retrieval.types import Image

HEAD_BYTES = 2048  # how much of a file ``can_read`` sees


class Reader(Protocol):
    format: str

    def can_read(self, head: bytes, name: str) -> bool:
        """From the first bytes (after gunzip for .gz); ``name`` is a tie-break, never a proof."""
        ...

    def scan(self, source: Source, limits: Limits) -> Scan:
        """The header as a Scan, no pixel decoded, limits on declared sizes already checked."""
        ...

    def read(self, source: Source, frames: Sequence[int] | None, limits: Limits) -> Iterator[tuple[int, Image]]:
        """(0-based frame index, Image) in the order asked; None means all, ascending.

        Volume files are sliced along their stacking axis and every slice is turned so that a radiologist sees it the
        usual way up (axial: patient's right on the image's left, anterior up; coronal: superior up; sagittal:
        superior up, anterior on the left).
        """
        ...
