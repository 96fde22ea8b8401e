"""Reading cases: themselves, their files, and which of them belong together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retrieval.catalog import counts as catalog_counts
from retrieval.catalog import reads, vectors
from retrieval.catalog.facts import CaseFacts, read_facts
from retrieval.catalog.patients import canonical
from retrieval.catalog.store import Store
from retrieval.catalog.types import GalleryCounts, Labelled, ValueCounts
from retrieval.filters import Filter
from retrieval.types import Case, CaseFile, Embedding, GroupBy, Keys, Label, UnitRows


class CaseReads(Store):
    """Each method is one read: what it says was true of one moment."""

    def count(self) -> int:
        """Cases on file."""
        with self.database.read() as connection:
            return catalog_counts.total(connection)

    def counts(self) -> GalleryCounts:
        """Cases by kind, modality, body part, source and label, each list bounded."""
        with self.database.read() as connection:
            return catalog_counts.counts(connection)

    def modalities(self) -> ValueCounts:
        """Cases by modality, the most frequent ones; "" is an unknown one."""
        with self.database.read() as connection:
            return catalog_counts.modalities(connection)

    def case(self, case_id: str) -> Case:
        """The case of that id; NotFoundError when there is none."""
        with self.database.read() as connection:
            return reads.read_case(connection, case_id)

    def cases(self, keys: Keys) -> dict[int, Case]:
        """Cases by key, in the order asked; keys that are gone are left out."""
        with self.database.read() as connection:
            return reads.read_cases(connection, keys)

    def facts(self, keys: Keys) -> dict[int, CaseFacts]:
        """By key, what is told of each in short; keys that are gone are left out. Cheap enough for many thousands."""
        with self.database.read() as connection:
            return read_facts(connection, keys)

    def first_key_since(self, since: str) -> int:
        """The least key of a case that was added at that time (ISO 8601, UTC) or later; past all keys without one."""
        with self.database.read() as connection:
            return reads.first_key_since(connection, since)

    def labels_of(self, keys: Keys) -> dict[int, list[Label]]:
        """The labels of each key, in the order they were given; keys without any are left out."""
        with self.database.read() as connection:
            return reads.labels_of(connection, keys.tolist())

    def list_cases(self, filter: Filter | None = None, after_key: int = 0, limit: int = 100) -> list[Case]:  # noqa: A002
        """A page of cases by ascending key; the next one begins after the last key of this one."""
        with self.database.read() as connection:
            return reads.list_cases(connection, filter, after_key, limit)

    def select(self, filter: Filter | None = None) -> Keys:  # noqa: A002
        """Keys of the cases that satisfy the filter, sorted."""
        with self.database.read() as connection:
            return reads.select_keys(connection, filter)

    def embedding(self, case_id: str) -> tuple[int, Embedding]:
        """(key, embedding) of a case; its slices have been through float16. NotFoundError when there is none."""
        bound = self._need_bound()
        with self.database.read() as connection:
            return vectors.read_embedding(connection, bound, case_id)

    def slices(self, keys: Keys) -> dict[int, tuple[UnitRows, tuple[int, ...]]]:
        """By key: unit rows [n, dim], and which of the case's frames each of them is."""
        bound = self._need_bound()
        with self.database.read() as connection:
            return vectors.read_slices(connection, bound, keys)

    def stored_slices(self, keys: Keys) -> dict[int, tuple[npt.NDArray[np.float16], tuple[int, ...]]]:
        """As ``slices``, to the bit as they are stored: float16 [n, dim], of length 1 within what float16 misses."""
        bound = self._need_bound()
        with self.database.read() as connection:
            return vectors.read_stored_slices(connection, bound, keys)

    def keys_of_patient(self, patient_key: str) -> Keys:
        """Sorted keys of one patient's cases, under whichever of the patient's ids; none for ""."""
        with self.database.read() as connection:
            return reads.keys_of_patient(connection, patient_key)

    def keys_of_study(self, study_uid: str) -> Keys:
        """Sorted keys of one study's cases; none for ""."""
        with self.database.read() as connection:
            return reads.keys_of_study(connection, study_uid)

    def patients(self, patient_keys: Sequence[str]) -> list[str]:
        """One pseudonym per patient, in order, where a header and a labels file name the same one differently."""
        with self.database.read() as connection:
            one = canonical(connection, patient_keys)
        return [one[key] for key in patient_keys]

    def groups(self, keys: Keys, by: GroupBy) -> list[str]:
        """The patient key or study UID of each key, in order; "" where it is unknown, and for GroupBy.NONE."""
        with self.database.read() as connection:
            return reads.groups(connection, keys, by)

    def thumbnail(self, case_id: str) -> bytes:
        """A JPEG; NotFoundError when there is no such case or it has none."""
        with self.database.read() as connection:
            return reads.thumbnail(connection, case_id)

    def files(self, case_id: str) -> tuple[CaseFile, ...]:
        """The files a case was read from, in order; NotFoundError when there is no such case."""
        with self.database.read() as connection:
            return reads.files_of(connection, case_id)

    def known_files(self, sha256s: Sequence[str]) -> dict[str, list[str]]:
        """For each hash on file, the ids of the cases that were read from such a file."""
        with self.database.read() as connection:
            return reads.known_files(connection, sha256s)

    def content_of(self, case_ids: Sequence[str]) -> dict[str, str]:
        """``content_sha256`` of the cases that exist, by id."""
        with self.database.read() as connection:
            return reads.content_of(connection, case_ids)

    def labelled(self, name: str) -> Labelled:
        """The cases that carry a label, for evaluation: (keys, patient keys, values per case, numbers)."""
        with self.database.read() as connection:
            return reads.labelled(connection, name)
