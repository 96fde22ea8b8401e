"""The catalog: the SQL store, and the truth of a gallery. Opens transactions; what happens in them is next door.

Writing cases is here, reading them in ``case_reads``, what indexes read and publish in ``replays``, opening in
``store``.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from retrieval.catalog import reads, writes
from retrieval.catalog.case_reads import CaseReads
from retrieval.catalog.checks import check
from retrieval.catalog.replays import Replays
from retrieval.catalog.stagings import Stagings
from retrieval.catalog.store import check_fingerprint
from retrieval.catalog.types import (
    AdapterRow,
    Binding,
    GalleryCounts,
    GenerationRow,
    LabelCounts,
    Labelled,
    Outcome,
)
from retrieval.catalog.vectors import need_bound
from retrieval.schema import cases
from retrieval.types import Attributes, Case, CaseFile, EmbeddedCase, Label

__all__ = ["AdapterRow", "Binding", "Catalog", "GalleryCounts", "GenerationRow", "LabelCounts", "Labelled", "Outcome"]


class Catalog(CaseReads, Replays, Stagings):
    """A gallery's database. Safe from several threads and several processes; every process opens its own.

    Each writing method is one transaction: when it returns, what it says is on disk; when it raises, nothing of it
    is. Every method may raise StoreError (the database is gone, busy or damaged) and, when writing, StorageFull.
    """

    def commit(self, cases: Sequence[EmbeddedCase], *, fingerprint: str, replace: bool = False) -> list[Outcome]:
        """Store cases, all in one durable transaction; one outcome per case, in order.

        * A new id is "added"; with the pixels of another case on file it is added with ``duplicate_of`` set.
        * The same id with the same files is "unchanged"; where its labels, report, attributes or patient differ from
          those on file, they are taken over and it is "updated" under the same key.
        * The same id with other files is "updated" under a new key when all files on file are among the new ones (a
          series that grew) or with ``replace``; otherwise it is a "conflict" and nothing of it is stored.

        Raises FingerprintMismatch for another encoder's vectors, UsageError for vectors that are not finite unit rows
        of the right length; then nothing of the batch is stored.
        """
        bound = self._need_bound()
        check_fingerprint(bound.binding, fingerprint)
        for embedded in cases:
            check(embedded, bound.binding.dim)
        if not cases:
            return []
        with self.database.write() as connection:
            now = need_bound(connection)  # another process may have embedded the gallery anew
            check_fingerprint(now.binding, fingerprint)
            return writes.commit_cases(connection, now.encoder_id, cases, replace=replace)

    def update(
        self,
        case_id: str,
        *,
        attributes: Attributes | None = None,
        labels: Sequence[Label] | None = None,
        report: str | None = None,
        patient_key: str | None = None,
    ) -> Case:
        """Replace what is given, under the same key; the case as it is then. NotFoundError when there is none."""
        with self.database.write() as connection:
            return writes.update_case(connection, case_id, attributes, labels, report, patient_key)

    def move_files(self, case_id: str, files: Sequence[CaseFile]) -> None:
        """Note where the files of a case are now: the same files, in the same order. NotFoundError without the case."""
        with self.database.write() as connection:
            writes.move_files(connection, case_id, files)

    def delete(self, case_ids: Sequence[str]) -> list[str]:
        """Remove cases with everything stored of them, but for their keys; returns the ids that existed, in order."""
        wanted = list(dict.fromkeys(case_ids))
        with self.database.write() as connection:
            found: dict[str, int] = {}
            for part in reads.chunks(wanted):
                rows = connection.execute(select(cases.c.case_id, cases.c.key).where(cases.c.case_id.in_(part)))
                found.update((row[0], row[1]) for row in rows)
            writes.delete_keys(connection, sorted(found.values()))
        return [case_id for case_id in wanted if case_id in found]

    def delete_patient(self, patient_key: str) -> int:
        """Remove all cases of one patient; how many there were. "" is no patient and removes nothing."""
        with self.database.write() as connection:
            keys = reads.keys_of_patient(connection, patient_key).tolist()
            writes.delete_keys(connection, keys)
        return len(keys)

    def compact(self) -> None:
        """Give back the space of deleted cases, so that no file of the database holds their bytes. Takes a while."""
        self.database.compact()
