"""Are the metric heads on file what they were stored as? And which one is the live index to be compared through?"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete

from retrieval.catalog import Catalog
from retrieval.catalog.vectors import Bound
from retrieval.errors import FingerprintMismatch, NotFoundError, StoreError
from retrieval.heads import Heads
from retrieval.replay import live_space as space_of
from retrieval.schema import adapters
from retrieval.space import Space


def live_space(catalog: Catalog, bound: Bound | None, heads: Heads) -> Space | None:
    """Where the live generation lies; None without an encoder, or when its head can't be used."""
    if bound is None:
        return None
    try:
        return space_of(catalog, Space(bound.binding.fingerprint, bound.binding.dim), heads)
    except (StoreError, NotFoundError, FingerprintMismatch):
        return None


def damaged(catalog: Catalog, bound: Bound | None = None) -> list[str]:
    """Names of adapters whose bytes are not those that were stored, or that belong to another encoder."""
    return [name for name, _ in _damaged(catalog, bound)]


def damaged_hashes(catalog: Catalog) -> list[str]:
    """Their hashes."""
    return [sha256 for _, sha256 in _damaged(catalog, None)]


def drop(catalog: Catalog, sha256s: Collection[str]) -> None:
    """Forget adapters that no generation needs any more."""
    needed = {row.adapter for row in catalog.generations()}
    with catalog.database.write() as connection:
        connection.execute(delete(adapters).where(adapters.c.sha256.in_(set(sha256s) - needed)))


def _damaged(catalog: Catalog, bound: Bound | None) -> list[tuple[str, str]]:
    binding = bound.binding if bound else catalog.binding()
    found = []
    for row in catalog.adapters():
        try:
            if binding is not None:
                Space(binding.fingerprint, binding.dim).adapted(catalog.head(row.sha256))
        except (StoreError, FingerprintMismatch):
            found.append((row.name, row.sha256))
    return found
