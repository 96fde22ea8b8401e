"""``precedent verify``: the database agrees with itself, and the index with the database. Streaming, read-only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Select, func, select

from retrieval.catalog import Catalog
from retrieval.catalog.vectors import Bound, bound_encoder
from retrieval.generations import generations_folder, publishing
from retrieval.heads import Heads
from retrieval.schema import embeddings, slices
from retrieval.space import Space
from retrieval.verify import adapters as verify_adapters
from retrieval.verify import catalog as verify_catalog
from retrieval.verify.index import Comparison, Opened, damaged_previous, foreign_to, open_live, stale, strangers
from retrieval.verify.repair import repair as repair_findings


@dataclass(frozen=True, slots=True)
class Check:
    """One promise and how often it is broken; ``sentence`` tells what was found, fit to show to a user."""

    name: str
    count: int
    sentence: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """``checks``: the state now, every check in a fixed order. ``repaired``: what was wrong before a repair."""

    checks: tuple[Check, ...]
    vectors: int  # of the database, each compared with the index
    repaired: tuple[Check, ...] = ()

    @property
    def ok(self) -> bool:
        return not any(check.count for check in self.checks)

    @property
    def findings(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.count)


def verify(catalog: Catalog, home: Path, *, repair: bool = False) -> VerifyReport:
    """Check everything that SQL and the index directory promise; with ``repair``, mend what was found and check again.

    Repair rebuilds from SQL what SQL knows (the index; a pooled vector from its slices) and moves to
    ``HOME/quarantine`` what it does not (cases without a usable embedding, foreign files). ConflictError while
    another process rebuilds the index.
    """
    report = _verified(catalog, home)
    if not repair or report.ok:
        return report
    repair_findings(catalog, home, {check.name for check in report.findings})
    after = _verified(catalog, home)
    return VerifyReport(after.checks, after.vectors, repaired=report.findings)


def _verified(catalog: Catalog, home: Path) -> VerifyReport:
    with publishing(generations_folder(home)):  # nothing is swept away or flipped meanwhile
        with catalog.database.read() as connection:
            bound = bound_encoder(connection)
        heads = catalog.heads()
        opened = open_live(generations_folder(home), heads)
        space = verify_adapters.live_space(catalog, bound, heads)
        checks = [*_catalog_checks(catalog, bound), _adapter_check(catalog, bound)]
        streamed, vectors = _vector_checks(catalog, bound, space, opened)
        return VerifyReport((*checks, *streamed, *_generation_checks(catalog, home, space, heads, opened)), vectors)


def _adapter_check(catalog: Catalog, bound: Bound | None) -> Check:
    damaged = verify_adapters.damaged(catalog, bound) if bound else []
    return Check("adapter-damaged", len(damaged), f"{len(damaged)} adapters can't be used{_listed(damaged)}.")


def _catalog_checks(catalog: Catalog, bound: Bound | None) -> list[Check]:
    with catalog.database.read() as connection:

        def count(*found: Select[tuple[int]]) -> int:
            return sum(connection.scalar(select(func.count()).select_from(one.subquery())) or 0 for one in found)

        late = verify_catalog.late_counters(connection)
        rows = count(*(verify_catalog.dangling(table) for table in verify_catalog.PARTS))
        undeleted = count(verify_catalog.undeleted())
        unknown = count(select(embeddings.c.key).where(verify_catalog.of_unknown_encoder()))
        no_vector = count(verify_catalog.without(embeddings, bound)) if bound else 0
        no_slices = count(verify_catalog.without(slices, bound)) if bound else 0
        unfit = count(verify_catalog.unfit_slices(bound)) if bound else 0
    return [
        Check("counters", late, f"{late} counters are behind the keys or tombstones they gave out."),
        Check("dangling-rows", rows, f"{rows} rows belong to no case."),
        Check("undeleted", undeleted, f"{undeleted} cases are on file although they were deleted."),
        Check("unknown-encoder", unknown, f"{unknown} vectors are filed under an encoder that is not on file."),
        Check("no-vector", no_vector, f"{no_vector} cases have no vector."),
        Check("no-slices", no_slices, f"{no_slices} cases have no slice matrix."),
        Check("unfit-slices", unfit, f"{unfit} slice matrices do not have the length of their shape."),
    ]


def _vector_checks(
    catalog: Catalog, bound: Bound | None, space: Space | None, opened: Opened
) -> tuple[list[Check], int]:
    """One pass over the stored vectors, placed where the index has them; how many there are."""
    compared = None
    if space and opened.manifest and opened.index and not foreign_to(space, opened.manifest):
        compared = Comparison(opened.index, opened.manifest.facts, space)
    vectors = unfit = 0
    for keys, rows, bad in verify_catalog.stored_vectors(catalog.database, bound) if bound else ():
        vectors += len(keys) + len(bad)
        unfit += len(bad)
        if compared:
            compared.take(keys, rows)
            compared.skip(bad)
    missing, wrong, unfindable, extra = compared.counts(catalog) if compared else (0, 0, 0, 0)
    return [
        Check("unfit-vectors", unfit, f"{unfit} vectors have a wrong length, are not finite or not of length 1."),
        Check("index-missing", missing, f"{missing} vectors of the database are not in the index."),
        Check("index-extra", extra, f"{extra} vectors of the index are not, or no longer, in the database."),
        Check("index-wrong", wrong, f"{wrong} vectors of the index are not those of the database."),
        Check("index-unfindable", unfindable, f"{unfindable} stored vectors were not found by searching for them."),
    ], vectors


def _generation_checks(catalog: Catalog, home: Path, space: Space | None, heads: Heads, opened: Opened) -> list[Check]:
    root, rows, manifest = generations_folder(home), catalog.generations(), opened.manifest
    foreign = foreign_to(space, manifest) if space and manifest else ""
    behind = stale(manifest, heads, rows) if manifest else ""
    previous, unknown = damaged_previous(root, rows), strangers(root, rows)
    return [
        Check("generation-damaged", int(bool(opened.damage)), opened.damage or "The live generation is sound."),
        Check(
            "generation-foreign",
            int(bool(foreign)),
            foreign or "The live generation is of the gallery's encoder and adapter.",
        ),
        Check("generation-stale", int(bool(behind)), behind or "The live generation and the database agree."),
        Check(
            "previous-damaged",
            len(previous),
            f"{len(previous)} earlier generations could not be rolled back to{_listed(previous)}.",
        ),
        Check(
            "foreign-files",
            len(unknown),
            f"{len(unknown)} files or folders in generations/ belong to nothing{_listed([p.name for p in unknown])}.",
        ),
    ]


def _listed(names: list[str]) -> str:
    return f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else ""
