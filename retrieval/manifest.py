"""What a generation says of itself: a small JSON file, pinned by its SHA-256 in SQL."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Self

from retrieval.errors import CorruptIndex, StoreTooNew

MANIFEST_FILE = "manifest.json"
FORMAT = 1
MAPPED_FILE = "vectors.npy"
METRIC = "inner product of unit vectors"


@dataclass(frozen=True, slots=True)
class FileFact:
    """One file of a generation."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the builder knows: everything of a manifest that is not read off the finished files."""

    backend: str  # "exact", "faiss", "fastscan", "milvus"
    options: str  # in full, as the index states them
    dim: int
    fingerprint: str  # of the encoder
    count: int
    last_key: int  # every live embedding up to this key is in it
    last_tombstone: int  # every tombstone up to this one has been applied
    recall: float = 1.0  # at 10 against exact search, measured before it went live; 1 where nothing is left out


@dataclass(frozen=True, slots=True)
class Manifest:
    """Read back by ``parse`` only after its hash matched, so its content is as it was written."""

    name: str
    facts: Facts
    files: tuple[FileFact, ...]
    created_at: str  # ISO 8601, UTC
    metric: str = METRIC
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @property
    def bytes_of_a_vector(self) -> tuple[float, float]:
        """In memory, and on disk, from where it is mapped as it is read."""
        mapped = sum(file.bytes for file in self.files if file.name == MAPPED_FILE)
        loaded = sum(file.bytes for file in self.files if file.name != MAPPED_FILE)
        count = max(1, self.facts.count)
        return loaded / count, mapped / count

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @classmethod
    def parse(cls, data: bytes, name: str) -> Self:
        """CorruptIndex when it is not a manifest of that generation; StoreTooNew for a later format."""
        try:
            raw = json.loads(data)
            if isinstance(raw["format"], int) and raw["format"] > FORMAT:
                raise StoreTooNew(
                    f"Generation {name} has format {raw['format']}, this Precedent knows {FORMAT}: upgrade Precedent."
                )
            if set(raw) != {field.name for field in fields(cls)}:
                raise ValueError("keys")
            files = tuple(FileFact(**fact) for fact in raw.pop("files"))
            manifest = cls(**{**raw, "facts": Facts(**raw["facts"]), "files": files})
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptIndex(f"The manifest of generation {name} can't be read: rebuild the index.") from error
        if manifest.name != name or manifest.metric != METRIC:
            raise CorruptIndex(
                f"Expected the manifest of generation {name} with metric '{METRIC}', got {manifest.name} with "
                f"'{manifest.metric}': rebuild the index."
            )
        return manifest
