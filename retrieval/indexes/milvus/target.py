"""Where a Milvus server is and how it is to index: ``//host:port/database,IVF1024,nprobe=64`` or ``PATH.db,Flat``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from retrieval.errors import UsageError

_OPTIONS = re.compile(
    r"(?://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):(?P<port>[1-9]\d{0,4})(?:/(?P<database>[A-Za-z_]\w{0,254}))?"
    r"|(?P<path>[^,@]+\.db))"
    r"(?P<tls>,tls)?(?:,(?:(?P<flat>Flat)|IVF(?P<lists>[1-9]\d{0,4})))?(?:,nprobe=(?P<nprobe>[1-9]\d{0,4}))?"
)
DEFAULT_LISTS = 1024
DEFAULT_NPROBE = 64


@dataclass(frozen=True, slots=True)
class Target:
    """``address``: ``//host:port[/database]`` or the path of a Milvus Lite file. ``lists``: per segment, 0 for Flat.

    There is no graph index to choose: in the middle of the range of selectivities nothing can show that a filtered walk
    of a graph found the best. Flat and IVF can go through every row that passes a filter.
    """

    address: str
    tls: bool = False
    lists: int = DEFAULT_LISTS
    nprobe: int = DEFAULT_NPROBE

    @classmethod
    def parse(cls, options: str) -> Self:
        """UsageError when not understood, and for a name and password: those are not kept with the index."""
        if "@" in options:
            raise UsageError(
                "Expected a Milvus address without a name or password, got one with '@': set PRECEDENT_MILVUS_TOKEN."
            )
        match = _OPTIONS.fullmatch(options)
        if not match or (match["path"] and match["tls"]) or (match["flat"] and match["nprobe"]):
            raise UsageError(
                "Expected a Milvus server as milvus://host:19530 or a Milvus Lite file as milvus:PATH.db, with ',Flat' "
                f"or ',IVF1024,nprobe=64' after it if need be, got 'milvus:{options}'."
            )
        address = str(Path(match["path"]).absolute()) if match["path"] else options.partition(",")[0]
        if match["flat"]:
            return cls(address, bool(match["tls"]), 0, 0)
        lists = int(match["lists"] or DEFAULT_LISTS)
        return cls(address, bool(match["tls"]), lists, min(lists, int(match["nprobe"] or DEFAULT_NPROBE)))

    def __str__(self) -> str:
        return f"{self.address}{',tls' if self.tls else ''},{self.plan}"

    @property
    def plan(self) -> str:
        """How it searches, without saying where."""
        return f"IVF{self.lists},nprobe={self.nprobe}" if self.lists else "Flat"

    @property
    def exhaustive(self) -> bool:
        return self.nprobe == self.lists

    @property
    def uri(self) -> str:
        """As pymilvus wants it; the database is apart."""
        if self.address.startswith("//"):
            return ("https:" if self.tls else "http:") + "//" + self.address[2:].partition("/")[0]
        return self.address

    @property
    def database(self) -> str:
        return self.address[2:].partition("/")[2] if self.address.startswith("//") else ""
