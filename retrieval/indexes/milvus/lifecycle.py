"""What becomes of a generation's collection when the generation goes live, or is forgotten."""

from __future__ import annotations

from pathlib import Path

from retrieval.indexes.milvus.collection import Collection
from retrieval.indexes.milvus.facts import CollectionFacts, owner_of


def promote(directory: Path) -> None:
    """Let the gallery's alias name the collection of this directory. StoreError when the server is gone."""
    facts = CollectionFacts.read(directory)
    Collection.named(facts.target, facts.collection).take(facts.alias)


def discard(directory: Path) -> None:
    """Drop the collection, if it was made for this folder of generations. StoreError when the server is gone."""
    facts = CollectionFacts.read(directory)
    if facts.owner == owner_of(directory.parent):
        Collection.named(facts.target, facts.collection).drop()
