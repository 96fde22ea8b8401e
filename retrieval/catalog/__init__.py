"""The catalog: the SQL store, and the truth of a gallery. Opens transactions; what happens in them is next door."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from sqlalchemy import insert, select, update

from retrieval.adapters.head import MetricHead
from retrieval.adapters.split import Linked
from retrieval.catalog import adapters as catalog_adapters
from retrieval.catalog import counts as catalog_counts
from retrieval.catalog import generations as catalog_generations
from retrieval.catalog import reads as catalog_reads
from retrieval.catalog import vectors as catalog_vectors
from retrieval.catalog import writes as catalog_writes
from retrieval.catalog.checks import check
from retrieval.catalog.patients import canonical
from retrieval.catalog.types import (
    AdapterRow,
    Binding,
    GalleryCounts,
    GenerationRow,
    LabelCounts,
    Labelled,
    Outcome,
)
from retrieval.database import Database, now
from retrieval.errors import FingerprintMismatch
from retrieval.filters import Filter
from retrieval.heads import Heads
from retrieval.revisions import prepare
from retrieval.schema import cases, encoders, gallery
from retrieval.types import Attributes, Case, CaseFile, EmbeddedCase, Embedding, GroupBy, Keys, Label, UnitRows

__all__ = ["AdapterRow", "Binding", "Catalog", "GalleryCounts", "GenerationRow", "LabelCounts", "Labelled", "Outcome"]


class Catalog:
    """A gallery's database. Safe from several threads and several processes; every process opens its own.

    Each writing method is one transaction: when it returns, what it says is on disk; when it raises, nothing of it
    is. Every method may raise StoreError (the database is gone, busy or damaged) and, when writing, StorageFull.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._bound: catalog_vectors.Bound | None = None

    @classmethod
    def open(cls, url: str, create: bool = False) -> Catalog:
        """Open the gallery at a SQLite or PostgreSQL URL; an older one is upgraded, with ``create`` a missing one made.

        Raises StoreError when there is none, StoreTooNew when a newer Precedent wrote it, UsageError for another URL.
        """
        database = Database(url)
        try:
            prepare(database, create=create)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # the encoder

    def binding(self) -> Binding | None:
        """The encoder this gallery belongs to, or None while it has none."""
        with self.database.read() as connection:
            bound = catalog_vectors.bound_encoder(connection)
        return bound.binding if bound else None

    def bind(self, binding: Binding) -> None:
        """Tie the gallery to an encoder for good. The first writer wins; FingerprintMismatch for any other after it."""
        with self.database.write() as connection:
            bound = catalog_vectors.bound_encoder(connection)
            if bound is None:
                row = {
                    "fingerprint": binding.fingerprint,
                    "encoder": binding.encoder,
                    "dim": binding.dim,
                    "pooling": binding.pooling,
                    "card_json": binding.card_json,
                    "created_at": now(),
                }
                encoder_id = connection.execute(insert(encoders).returning(encoders.c.id), row).scalar_one()
                connection.execute(update(gallery).values(encoder_id=encoder_id))
                return
        _check_fingerprint(bound.binding, binding.fingerprint)

    def _need_bound(self) -> catalog_vectors.Bound:
        if self._bound is None:
            with self.database.read() as connection:
                self._bound = catalog_vectors.need_bound(connection)
        return self._bound

    # writing

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
        _check_fingerprint(bound.binding, fingerprint)
        for embedded in cases:
            check(embedded, bound.binding.dim)
        if not cases:
            return []
        with self.database.write() as connection:
            return catalog_writes.commit_cases(connection, bound.encoder_id, cases, replace=replace)

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
            return catalog_writes.update_case(connection, case_id, attributes, labels, report, patient_key)

    def move_files(self, case_id: str, files: Sequence[CaseFile]) -> None:
        """Note where the files of a case are now: the same files, in the same order. NotFoundError without the case."""
        with self.database.write() as connection:
            catalog_writes.move_files(connection, case_id, files)

    def delete(self, case_ids: Sequence[str]) -> list[str]:
        """Remove cases with everything stored of them, but for their keys; returns the ids that existed, in order."""
        wanted = list(dict.fromkeys(case_ids))
        with self.database.write() as connection:
            found: dict[str, int] = {}
            for part in catalog_reads.chunks(wanted):
                rows = connection.execute(select(cases.c.case_id, cases.c.key).where(cases.c.case_id.in_(part)))
                found.update((row[0], row[1]) for row in rows)
            catalog_writes.delete_keys(connection, sorted(found.values()))
        return [case_id for case_id in wanted if case_id in found]

    def delete_patient(self, patient_key: str) -> int:
        """Remove all cases of one patient; how many there were. "" is no patient and removes nothing."""
        with self.database.write() as connection:
            keys = catalog_reads.keys_of_patient(connection, patient_key).tolist()
            catalog_writes.delete_keys(connection, keys)
        return len(keys)

    def compact(self) -> None:
        """Give back the space of deleted cases, so that no file of the database holds their bytes. Takes a while."""
        self.database.compact()

    # replay

    def heads(self) -> Heads:
        """Where the catalog stands; one small statement."""
        with self.database.read() as connection:
            return catalog_generations.read_heads(connection)

    def vectors(self, after: int, upto: int | None = None, batch: int = 4096) -> Iterator[tuple[Keys, UnitRows]]:
        """Vectors of the gallery's encoder with after < key <= upto, by ascending key, at most ``batch`` at a time.

        Each batch is a read of its own: a case deleted meanwhile is left out, and its tombstone tells.
        """
        bound = self._need_bound()
        last = self.heads().last_key if upto is None else upto
        while after < last:
            with self.database.read() as connection:
                keys, rows = catalog_vectors.read_vectors(connection, bound, after, last, batch)
            if len(keys):
                yield keys, rows
            if len(keys) < batch:
                return
            after = int(keys[-1])

    def vectors_of(self, keys: Keys) -> tuple[Keys, UnitRows]:
        """(those of the keys that have a vector, in order; their stored vectors [n, dim])."""
        bound = self._need_bound()
        with self.database.read() as connection:
            return catalog_vectors.read_vectors_of(connection, bound, keys)

    def tombstones(self, after: int) -> tuple[Keys, Keys]:
        """(sequence numbers > after, ascending; the key each of them deleted)."""
        with self.database.read() as connection:
            return catalog_vectors.read_tombstones(connection, after)

    def sample(self, n: int) -> UnitRows:
        """At most n stored vectors, as good as drawn at random, the same ones for the same content."""
        bound = self._need_bound()
        with self.database.read() as connection:
            return catalog_vectors.read_sample(connection, bound, n)

    # cases

    def count(self) -> int:
        """Cases on file."""
        with self.database.read() as connection:
            return catalog_counts.total(connection)

    def counts(self) -> GalleryCounts:
        """Cases by kind, modality, body part, source and label, each list bounded."""
        with self.database.read() as connection:
            return catalog_counts.counts(connection)

    def case(self, case_id: str) -> Case:
        """The case of that id; NotFoundError when there is none."""
        with self.database.read() as connection:
            return catalog_reads.read_case(connection, case_id)

    def cases(self, keys: Keys) -> dict[int, Case]:
        """Cases by key, in the order asked; keys that are gone are left out."""
        with self.database.read() as connection:
            return catalog_reads.read_cases(connection, keys)

    def list_cases(self, filter: Filter | None = None, after_key: int = 0, limit: int = 100) -> list[Case]:  # noqa: A002
        """A page of cases by ascending key; the next one begins after the last key of this one."""
        with self.database.read() as connection:
            return catalog_reads.list_cases(connection, filter, after_key, limit)

    def select(self, filter: Filter | None = None) -> Keys:  # noqa: A002
        """Keys of the cases that satisfy the filter, sorted."""
        with self.database.read() as connection:
            return catalog_reads.select_keys(connection, filter)

    def embedding(self, case_id: str) -> tuple[int, Embedding]:
        """(key, embedding) of a case; its slices have been through float16. NotFoundError when there is none."""
        bound = self._need_bound()
        with self.database.read() as connection:
            return catalog_vectors.read_embedding(connection, bound, case_id)

    def slices(self, keys: Keys) -> dict[int, tuple[UnitRows, tuple[int, ...]]]:
        """By key: unit rows [n, dim], and which of the case's frames each of them is."""
        bound = self._need_bound()
        with self.database.read() as connection:
            return catalog_vectors.read_slices(connection, bound, keys)

    def keys_of_patient(self, patient_key: str) -> Keys:
        """Sorted keys of one patient's cases, under whichever of the patient's ids; none for ""."""
        with self.database.read() as connection:
            return catalog_reads.keys_of_patient(connection, patient_key)

    def keys_of_study(self, study_uid: str) -> Keys:
        """Sorted keys of one study's cases; none for ""."""
        with self.database.read() as connection:
            return catalog_reads.keys_of_study(connection, study_uid)

    def patients(self, patient_keys: Sequence[str]) -> list[str]:
        """One pseudonym per patient, in order, where a header and a labels file name the same one differently."""
        with self.database.read() as connection:
            one = canonical(connection, patient_keys)
        return [one[key] for key in patient_keys]

    def groups(self, keys: Keys, by: GroupBy) -> list[str]:
        """The patient key or study UID of each key, in order; "" where it is unknown, and for GroupBy.NONE."""
        with self.database.read() as connection:
            return catalog_reads.groups(connection, keys, by)

    def thumbnail(self, case_id: str) -> bytes:
        """A JPEG; NotFoundError when there is no such case or it has none."""
        with self.database.read() as connection:
            return catalog_reads.thumbnail(connection, case_id)

    def files(self, case_id: str) -> tuple[CaseFile, ...]:
        """The files a case was read from, in order; NotFoundError when there is no such case."""
        with self.database.read() as connection:
            return catalog_reads.files_of(connection, case_id)

    def known_files(self, sha256s: Sequence[str]) -> dict[str, list[str]]:
        """For each hash on file, the ids of the cases that were read from such a file."""
        with self.database.read() as connection:
            return catalog_reads.known_files(connection, sha256s)

    def content_of(self, case_ids: Sequence[str]) -> dict[str, str]:
        """``content_sha256`` of the cases that exist, by id."""
        with self.database.read() as connection:
            return catalog_reads.content_of(connection, case_ids)

    def labelled(self, name: str) -> Labelled:
        """The cases that carry a label, for evaluation: (keys, patient keys, values per case, numbers)."""
        with self.database.read() as connection:
            return catalog_reads.labelled(connection, name)

    # adapters

    def head(self, sha256: str) -> MetricHead:
        """The metric head of that hash. NotFoundError when there is none, StoreError when its bytes are damaged."""
        with self.database.read() as connection:
            return catalog_adapters.head(connection, sha256)

    def adapters(self) -> list[AdapterRow]:
        """All metric heads on file, oldest first."""
        with self.database.read() as connection:
            return catalog_adapters.listed(connection)

    def save_adapter(self, name: str, head: MetricHead, label: str, report_json: str) -> str:
        """Keep a metric head; the name it is on file under, its first one when the very same head is on file already.

        FingerprintMismatch for one of another encoder, ConflictError when the name is another head's.
        """
        bound = self._need_bound()
        with self.database.write() as connection:
            return catalog_adapters.save(connection, bound, name, head, label, report_json)

    def links(self, keys: Keys) -> list[Linked]:
        """For each key what ties its case to others: patient, study, equal pixels. In order."""
        with self.database.read() as connection:
            return catalog_adapters.links(connection, keys)

    # generations

    def publish_generation(
        self,
        name: str,
        manifest_sha256: str,
        last_key: int,
        last_tombstone: int,
        backend: str,
        count: int,
        adapter: str = "",
    ) -> None:
        """Make a finished index the live one. Its directory is on disk and fsynced before this is called.

        ``adapter``: hash of the metric head on file that its vectors went through, "" for none.
        """
        with self.database.write() as connection:
            catalog_generations.publish(
                connection, name, manifest_sha256, last_key, last_tombstone, backend, count, adapter
            )

    def generations(self) -> list[GenerationRow]:
        """All that are kept, oldest first."""
        with self.database.read() as connection:
            return catalog_generations.read_generations(connection)

    def rollback_generation(self) -> GenerationRow:
        """Make the one before live again and return it; NotFoundError when there is none."""
        with self.database.write() as connection:
            return catalog_generations.rollback(connection)

    def drop_generations(self, names: Sequence[str]) -> None:
        """Forget generations whose directories are about to go; ConflictError for the live one."""
        with self.database.write() as connection:
            catalog_generations.drop(connection, names)


def _check_fingerprint(stored: Binding, offered: str) -> None:
    if stored.fingerprint != offered:
        fix = (
            f"Use the encoder it was made with ({stored.encoder}, pooling {stored.pooling}), or index into a new data "
            "directory with the other one."
        )
        raise FingerprintMismatch(stored.fingerprint, offered, fix)
