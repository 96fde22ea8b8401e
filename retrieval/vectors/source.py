"""Cases with vectors that come from somewhere else than an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from retrieval.catalog import Binding
from retrieval.types import EmbeddedCase


class CaseSource(Protocol):
    """Checked whole before the first of its cases is taken in."""

    @property
    def binding(self) -> Binding:
        """The encoder the vectors are of."""
        ...

    @property
    def count(self) -> int: ...

    def check(self) -> None:
        """Read all of it; StoreError or UsageError, a sentence naming the file, when something is not as it must be."""
        ...

    def batches(self) -> Iterator[list[EmbeddedCase]]:
        """Its cases in their order, a bounded number at a time."""
        ...
