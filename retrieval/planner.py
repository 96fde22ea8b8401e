"""Pure: from the size of what may be searched to the way it is searched."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# Measured on 100,000 x 512, one query, one thread: gathering the selected rows costs 0.4 ms at 1 %, 3.6 ms at 10 %,
# 12 ms at 20 %; reading every row in order costs 14 ms whatever the selection.
GATHER_BELOW = 0.2
# A compressed scan that skips what is not selected costs 0.3 ms at 1 % and 2.3 ms at 20 %: gathering pays only for few.
GATHER_BELOW_COMPRESSED = 0.01
FEW = 1000  # so few rows are always gathered

# Beside a graph, which answers in half a millisecond: gathering so many whole rows takes as long.
FEW_BESIDE_A_GRAPH = 500

# Dropping d known keys from an answer costs d more results to fetch; past this, naming the rest is cheaper.
OVERFETCH = 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """How a search was, or will be, answered. ``candidates``: vectors considered per query (all of them when exact).

    ``exhaustive``: recall is 1 by construction.
    """

    name: str  # "exact", "faiss:SQfp16", "selected-exact", "faiss:IVF64,SQfp16+exact"
    candidates: int
    exhaustive: bool


class Scan(StrEnum):
    """What to do with the vectors that may be returned."""

    ALL = "all"  # no filter: the index as it is
    GATHER = "gather"  # copy the few selected rows together and score them exactly
    MASK = "mask"  # go through the index, every list of it, skipping what is not selected


def choose_scan(size: int, selected: int | None, *, compressed: bool) -> Scan:
    """``selected``: how many of ``size`` vectors may be returned, None without a filter."""
    if selected is None:
        return Scan.ALL
    share = GATHER_BELOW_COMPRESSED if compressed else GATHER_BELOW
    return Scan.GATHER if selected <= max(FEW, share * size) else Scan.MASK


class Walk(StrEnum):
    """As ``Scan``, where a graph leads to the nearest. It is not walked under a filter: where what passes lies together
    (one modality) and the query elsewhere, a walk past the rest lost a tenth of the neighbours."""

    GRAPH = "graph"  # no filter: follow links
    GATHER = "gather"
    CODES = "codes"  # go through the codes of what is selected


def choose_walk(selected: int | None) -> Walk:
    """``selected``: how many vectors may be returned, None without a filter."""
    if selected is None:
        return Walk.GRAPH
    return Walk.GATHER if selected <= FEW_BESIDE_A_GRAPH else Walk.CODES


def combine(base: Plan | None, delta: Plan | None) -> Plan:
    """The plan of a search over a generation and its delta."""
    if base is None or delta is None:
        return base or delta or Plan("exact", 0, True)
    name = base.name if base.name == delta.name else f"{base.name}+{delta.name}"
    return Plan(name, base.candidates + delta.candidates, base.exhaustive and delta.exhaustive)
