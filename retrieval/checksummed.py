"""A small file and, beside it, its SHA-256 as ``sha256sum -c`` reads it: manifests of what leaves the store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def checksum_name(name: str) -> str:
    return f"{name}.sha256"


def write_checksummed(folder: Path, name: str, data: bytes, mode: int = 0o666) -> None:
    """Both files, new and fsynced. ``mode``: their permissions, less the umask. FileExistsError when one is there."""
    for path, content in ((folder / name, data), (folder / checksum_name(name), _line(name, data))):
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def read_checksummed(folder: Path, name: str) -> bytes | None:
    """The file's bytes, None when they are not those of the checksum. OSError when one of the two can't be read."""
    data, stated = (folder / name).read_bytes(), (folder / checksum_name(name)).read_bytes()
    return data if stated == _line(name, data) else None


def _line(name: str, data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()
