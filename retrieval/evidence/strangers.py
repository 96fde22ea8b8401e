"""Drawings of nothing medical as the gallery's encoder sees them, kept in a file below the data directory.

They are encoded once for an encoder and pooling, and known by their fingerprint. A file that is damaged, or of other
drawings, is passed over with a notice in the log, and is written again when they are next encoded.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from retrieval.errors import StoreError
from retrieval.evidence.drawings import OF_A_WAY, WAYS, drawings
from retrieval.storage import storing
from retrieval.types import Image, UnitRows

FOLDER = "strangers"  # below the data directory
FORMAT = 1  # raised when the drawings change
COUNT = OF_A_WAY * len(WAYS)
EARNING = 10 * COUNT  # cases on file that earn it while indexing: a tenth more frames at most
AT_ONCE = 12  # drawings encoded together
_DIGEST = 32  # bytes of a SHA-256, which come first in the file

_log = logging.getLogger(__name__)


class Strangers:
    """Those of one encoder and pooling. Safe to use from several threads: each either sees all of them or none."""

    def __init__(self, home: Path, fingerprint: str, dim: int) -> None:
        name = hashlib.sha256(f"{FORMAT} {fingerprint}".encode()).hexdigest()[:16]
        self._path = home / FOLDER / f"{name}.npy"
        self._dim = dim
        self._rows: UnitRows | None = None

    @property
    def met(self) -> bool:
        """Whether they are in memory; they may be in the file all the same."""
        return self._rows is not None

    def rows(self) -> UnitRows | None:
        """[COUNT, dim], in the space of stored vectors; None when they were never encoded."""
        if self._rows is None:
            self._rows = self._read()
        return self._rows

    def meet(self, encode: Callable[[Sequence[Image]], UnitRows]) -> None:
        """Encode them, unless that was done. ``encode``: unit rows, one per frame.

        Where the disk refuses, the log says so, and this process alone has met them.
        """
        if self.rows() is not None:
            return
        drawn = drawings()
        rows = np.concatenate([encode(drawn[at : at + AT_ONCE]) for at in range(0, COUNT, AT_ONCE)])
        try:
            self._write(rows)
        except StoreError as error:
            _log.warning("%s", error)
        self._rows = rows

    def _read(self) -> UnitRows | None:
        try:
            whole = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError:
            _log.warning("The file %s/%s can't be read; drawings are encoded again.", FOLDER, self._path.name)
            return None
        body = whole[_DIGEST:]
        if hashlib.sha256(body).digest() == whole[:_DIGEST]:
            rows: UnitRows = np.load(io.BytesIO(body), allow_pickle=False)
            if rows.shape == (COUNT, self._dim):
                return rows
        _log.warning("The file %s/%s is damaged; drawings are encoded again.", FOLDER, self._path.name)
        return None

    def _write(self, rows: UnitRows) -> None:
        """Readers see the file whole or not at all."""
        buffer = io.BytesIO()
        np.save(buffer, rows, allow_pickle=False)
        body = buffer.getvalue()
        with storing("The encoded drawings can't be kept"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".", suffix=".npy")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(body).digest() + body)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(self._path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
