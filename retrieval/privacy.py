"""Keyed pseudonyms and sealed paths. The key lives in a file of its own, never in the database.

Whoever has the database but not the key can neither test a guessed patient id nor read a source path.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from retrieval.errors import StoreError
from retrieval.storage import sync_directory

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Secret:
    """The store's key: 32 random bytes."""

    key: bytes

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> Secret:
        """Read the key file; with ``create``, make it (mode 0600, fsynced) when it is absent."""
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            if not create:
                raise StoreError(
                    f"The key file {path.name} is missing from the data directory: restore it from your backup; "
                    "without it patient links and source paths can't be read."
                ) from None
            return cls._create(path)
        if len(key) != KEY_BYTES:
            raise StoreError(f"The key file {path.name} has {len(key)} bytes, expected {KEY_BYTES}: restore it.")
        return cls(key)

    @classmethod
    def _create(cls, path: Path) -> Secret:
        key = os.urandom(KEY_BYTES)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # fails if another process was first: then theirs is the key
        except FileExistsError:
            return cls.open(path)
        finally:
            temporary.unlink()
        sync_directory(path.parent)
        return cls(key)

    def _derive(self, purpose: str) -> bytes:
        return hmac.new(self.key, purpose.encode(), hashlib.sha256).digest()

    @property
    def fingerprint(self) -> str:
        """16 hex digits by which two copies of one key are known; they say nothing of it."""
        return self._derive("fingerprint").hex()[:16]

    def patient_key(self, patient_id: str, issuer: str = "") -> str:
        """HMAC-SHA256 over the normalised id, 32 hex digits; "" for an empty id.

        Padding, case and Unicode form do not matter (DICOM PS3.5 6.2: LO values are padded with spaces).
        """
        norm = unicodedata.normalize("NFKC", patient_id.replace("\x00", " ")).strip().casefold()
        if not norm:
            return ""
        where = unicodedata.normalize("NFKC", issuer.replace("\x00", " ")).strip().casefold()
        return hmac.new(self._derive("patient"), f"{where}\x1f{norm}".encode(), hashlib.sha256).hexdigest()[:32]

    def seal(self, plain: bytes) -> bytes:
        """AES-256-GCM: 12-byte nonce, then ciphertext with tag."""
        nonce = os.urandom(12)
        return nonce + AESGCM(self._derive("seal")).encrypt(nonce, plain, None)

    def unseal(self, sealed: bytes) -> bytes:
        """The plain bytes, or a StoreError when they were sealed with another key or altered."""
        try:
            return AESGCM(self._derive("seal")).decrypt(sealed[:12], sealed[12:], None)
        except (InvalidTag, ValueError) as error:
            raise StoreError(
                "A sealed value does not open with this store's key: restore the key it was made with."
            ) from error
