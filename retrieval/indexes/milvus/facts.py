"""The small file by which a generation names its collection. It holds no name, no password and no vector."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from retrieval.errors import CorruptIndex, UsageError
from retrieval.indexes.milvus.target import Target

FACTS_FILE = "milvus.json"


@dataclass(frozen=True, slots=True)
class CollectionFacts:
    """``options``: of the ``Target``. ``owner``: the folder of generations it was made in, see ``owner_of``.

    ``alias``: the name under which others find whichever generation of this gallery is live.
    """

    options: str
    collection: str
    dim: int
    owner: str
    alias: str

    @classmethod
    def new(cls, target: Target, dim: int, directory: Path) -> Self:
        """Of a collection that is yet to be made. The alias is that of the generations beside, so that it stays."""
        owner = owner_of(directory.parent)
        alias = next(
            (each.alias for each in _beside(directory) if (each.owner, each.target.address) == (owner, target.address)),
            f"precedent_{secrets.token_hex(6)}",
        )
        return cls(str(target), new_name(), dim, owner, alias)

    @property
    def target(self) -> Target:
        return Target.parse(self.options)

    def write(self, directory: Path) -> None:
        (directory / FACTS_FILE).write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Self:
        """CorruptIndex when there is none or it can't be understood."""
        try:
            facts = cls(**json.loads((directory / FACTS_FILE).read_text()))
            if not isinstance(facts.dim, int) or not facts.collection.startswith(_PREFIX) or not facts.target:
                raise ValueError(facts.collection)
        except (OSError, ValueError, TypeError, AttributeError, UsageError) as error:
            raise CorruptIndex(f"The file {FACTS_FILE} of a Milvus index can't be read: rebuild the index.") from error
        return facts


_PREFIX = "precedent_g_"


def new_name() -> str:
    """Of a collection; never used before, so that no other can be taken for it."""
    return _PREFIX + secrets.token_hex(12)


def owner_of(root: Path) -> str:
    """Tells a folder of generations from its copies: a restored or copied gallery must not drop what the first serves.

    A folder that was moved is another one, too: then a collection is left behind rather than one too many dropped.
    """
    return hashlib.sha256(f"{root.stat().st_ino} {root.resolve()}".encode()).hexdigest()[:16]


def _beside(directory: Path) -> list[CollectionFacts]:
    found = []
    for path in sorted(directory.parent.glob(f"*/{FACTS_FILE}")):
        try:
            found.append(CollectionFacts.read(path.parent))
        except CorruptIndex:
            continue  # told when it is opened
    return found
