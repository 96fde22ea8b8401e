"""What an index is made of and searched through: vectors, tombstones, metric heads, generations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from retrieval.adapters.head import MetricHead
from retrieval.adapters.split import Linked
from retrieval.catalog import adapters as catalog_adapters
from retrieval.catalog import generations as catalog_generations
from retrieval.catalog import vectors as catalog_vectors
from retrieval.catalog.store import Store
from retrieval.catalog.types import AdapterRow, GenerationRow
from retrieval.heads import Heads
from retrieval.types import Keys, UnitRows


class Replays(Store):
    """The catalog as indexes see it (``replay.VectorSource``), and which of them is live."""

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
        report_json: str = "",
        fingerprint: str = "",
        dropping: Keys | None = None,
    ) -> None:
        """Make a finished index the live one. Its directory is on disk and fsynced before this is called.

        ``adapter``: hash of the metric head on file that its vectors went through, "" for none. ``report_json``: how
        it compared with what was live before, kept with its row.

        ``fingerprint``: of the vectors it is made of, "" for the gallery's. With that of the encoder being filled up
        the gallery is bound to it in the same commit, and the cases of ``dropping`` without a vector by it are deleted;
        Unfinished while others have none. ConflictError when the gallery was embedded anew meanwhile.
        """
        with self.database.write() as connection:
            catalog_generations.publish(
                connection,
                name,
                manifest_sha256,
                last_key,
                last_tombstone,
                backend,
                count,
                adapter,
                report_json,
                fingerprint,
                dropping,
            )

    def generations(self) -> list[GenerationRow]:
        """All that are kept, oldest first."""
        with self.database.read() as connection:
            return catalog_generations.read_generations(connection)

    def rollback_generation(self) -> GenerationRow:
        """Make the one before live again, with the encoder and adapter it was made with, and return it.

        NotFoundError when there is none; ConflictError when its encoder has no vector of cases that came since.
        """
        with self.database.write() as connection:
            return catalog_generations.rollback(connection)

    def drop_generations(self, names: Sequence[str]) -> None:
        """Forget generations whose directories are about to go; ConflictError for the live one."""
        with self.database.write() as connection:
            catalog_generations.drop(connection, names)
