"""API keys. A token is shown once, when it is made; what is stored is its SHA-256, which opens nothing.

A token carries 256 random bits, so a plain hash of it can't be searched for, and looking it up by that hash tells an
attacker nothing through timing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import insert, select, update

from retrieval.database import Database, now
from retrieval.errors import ConflictError, NotFoundError, UsageError
from retrieval.schema import api_keys

PREFIX = "precedent_"  # so that scanners for leaked secrets can know one
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@ -]{0,63}")


class Scope(StrEnum):
    """What a key may do. Each includes the one before."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def allows(self, needed: Scope) -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key as it is listed: never the token. ``revoked_at`` is "" while it works."""

    name: str
    scope: Scope
    created_at: str
    revoked_at: str = ""


class AccessKeys:
    """The API keys of one gallery."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create_key(self, name: str, scope: str) -> str:
        """Make a key and return its token, which can't be read again. ConflictError when the name was ever used."""
        if NAME.fullmatch(name) is None:
            raise UsageError(
                "Expected a key name of 1 to 64 letters, digits, spaces or . _ @ -, beginning with a letter."
            )
        if scope not in list(Scope):
            raise UsageError(f"Expected a scope of {', '.join(Scope)}, got '{scope[:20]}'.")
        token = PREFIX + secrets.token_urlsafe(32)
        with self._database.write() as connection:
            if connection.scalar(select(api_keys.c.id).where(api_keys.c.name == name)) is not None:
                raise ConflictError(f"There is or was a key named '{name}': choose another name.")
            row = {"name": name, "scope": scope, "sha256": _digest(token), "created_at": now()}
            connection.execute(insert(api_keys), row)
        return token

    def check(self, token: str) -> Scope | None:
        """The scope of a token, or None when it is unknown or revoked."""
        if not token.startswith(PREFIX):
            return None
        with self._database.read() as connection:
            scope = connection.scalar(
                select(api_keys.c.scope).where(api_keys.c.sha256 == _digest(token), api_keys.c.revoked_at.is_(None))
            )
        return None if scope is None else Scope(scope)

    def revoke(self, name: str) -> None:
        """Stop a key from working, for good. NotFoundError when there is none of that name that works."""
        with self._database.write() as connection:
            statement = update(api_keys).where(api_keys.c.name == name, api_keys.c.revoked_at.is_(None))
            if connection.execute(statement.values(revoked_at=now())).rowcount == 0:
                raise NotFoundError("No working key has that name: see precedent keys for those there are.")

    def exist(self) -> bool:
        """Whether a key was ever made, revoked or not."""
        with self._database.read() as connection:
            return connection.scalar(select(api_keys.c.id).limit(1)) is not None

    def list_keys(self) -> list[AccessKey]:
        """All keys ever made, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.id))
            return [AccessKey(row.name, Scope(row.scope), row.created_at, row.revoked_at or "") for row in rows]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
