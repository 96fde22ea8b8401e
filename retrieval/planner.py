"""Pure: from the size of what may be searched to the way it is searched."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# Dropping d known keys from an answer costs d more results to fetch; past this, naming the rest is cheaper.
OVERFETCH = 1024
OVERFETCH_SELECTED = 32  # where those who may be returned are named anyway


@dataclass(frozen=True, slots=True)
class Plan:
    """How a search was, or will be, answered. ``candidates``: vectors considered per query (all of them when exact).

    ``exhaustive``: recall is 1 by construction.
    """

    name: str  # "exact", "faiss:SQfp16", "selected-exact", "faiss:IVF64,SQfp16+exact"
    candidates: int
    exhaustive: bool


@dataclass(frozen=True, slots=True)
class Gathering:
    """Of how many selected rows it pays to score them alone, exactly: ``few``, or that share of all."""

    few: int
    share: float


# Measured on 100,000 x 512, one query: scoring the selected rows where they lie costs 0.2 ms at 1 %, 1.4 ms at 10 %,
# 3.7 ms at 50 %, where reading every row in order costs 7 ms whatever the selection. Sixteen queries at once: 1, 5, 43
# and 31 ms.
PLAIN = Gathering(1000, 0.5)
# A compressed scan that skips what is not selected costs 0.3 ms at 1 % and 2.3 ms at 20 %.
COMPRESSED = Gathering(1000, 0.01)
# All 200,000 short codes are gone through in a millisecond, in which 2,000 rows are read where they lie; codes of 2,000
# that are together in a tenth of that.
CODED = Gathering(1000, 0.0)


class Scan(StrEnum):
    """What to do with the vectors that may be returned."""

    ALL = "all"  # no filter: the index as it is
    GATHER = "gather"  # score the selected rows alone, exactly
    MASK = "mask"  # go through the index, every list of it, skipping what is not selected


def choose_scan(size: int, selected: int | None, gathering: Gathering) -> Scan:
    """``selected``: how many of ``size`` vectors may be returned, None without a filter."""
    if selected is None:
        return Scan.ALL
    return Scan.GATHER if selected <= max(gathering.few, gathering.share * size) else Scan.MASK


def combine(base: Plan | None, delta: Plan | None) -> Plan:
    """The plan of a search over a generation and its delta."""
    if base is None or delta is None:
        return base or delta or Plan("exact", 0, True)
    name = base.name if base.name == delta.name else f"{base.name}+{delta.name}"
    return Plan(name, base.candidates + delta.candidates, base.exhaustive and delta.exhaustive)
