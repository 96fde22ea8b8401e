"""Mends what ``verify`` found. SQL is the truth; what it can't say any more is set aside, never guessed."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sqlalchemy import delete, func, insert, select, update

from retrieval.catalog import Catalog
from retrieval.catalog.reads import chunks
from retrieval.catalog.rows import FLOAT32
from retrieval.catalog.vectors import Bound, bound_encoder
from retrieval.encoders.pooling import Pooling, pool
from retrieval.errors import StoreError
from retrieval.generations import BUILDING, NAME, generations_folder, publishing, sweep
from retrieval.indexes.base import VectorIndex
from retrieval.publish import publish
from retrieval.schema import cases, embeddings, gallery, slices, tombstones
from retrieval.space import Space
from retrieval.types import Keys
from retrieval.verify import adapters as verify_adapters
from retrieval.verify import catalog as verify_catalog
from retrieval.verify.index import damaged_previous, foreign_to, open_live, strangers

QUARANTINE = "quarantine"
_VECTORS = {"no-vector", "no-slices", "unfit-vectors", "unfit-slices", "unknown-encoder", "undeleted"}
_INDEX = {"index-missing", "index-extra", "index-wrong", "index-unfindable"}
_REBUILD = _VECTORS | _INDEX | {"generation-damaged", "generation-foreign", "generation-stale", "adapter-damaged"}

_log = logging.getLogger(__name__)


def repair(catalog: Catalog, home: Path, findings: Collection[str]) -> None:
    """Mend the named findings (names of checks): first the database, then the files, then the index from both."""
    root = generations_folder(home)
    with publishing(root):
        _drop_rows(catalog)
        if _VECTORS & set(findings):
            _mend_embeddings(catalog, home)
        _tidy(catalog, home)
    live = next((row for row in catalog.generations() if row.state == "live"), None)
    if live and _REBUILD & set(findings):
        damaged = verify_adapters.damaged_hashes(catalog)
        adapter = (
            "" if live.adapter in damaged else None
        )  # what can't be applied can't be searched: back to the encoder
        publish(catalog, home, live.backend, keep_previous=False, adapter=adapter)
        verify_adapters.drop(catalog, damaged)


def _drop_rows(catalog: Catalog) -> None:
    """Counters catch up; what was deleted, or belongs to nothing, goes."""
    with catalog.database.write() as connection:
        given = [
            connection.scalar(select(func.coalesce(func.max(column), 0))) or 0
            for column in (cases.c.key, tombstones.c.key, gallery.c.last_key)
        ]
        numbers = [
            connection.scalar(select(func.coalesce(func.max(column), 0))) or 0
            for column in (tombstones.c.seq, gallery.c.last_tombstone)
        ]
        connection.execute(update(gallery).values(last_key=max(given), last_tombstone=max(numbers)))
        connection.execute(delete(cases).where(cases.c.key.in_(verify_catalog.undeleted())))
        connection.execute(delete(embeddings).where(verify_catalog.of_unknown_encoder()))
        for table in verify_catalog.PARTS:
            connection.execute(delete(table).where(table.c.key.in_(verify_catalog.dangling(table))))


def _mend_embeddings(catalog: Catalog, home: Path) -> None:
    """A lost vector comes back from the index, if sound, or from the case's slices; else its case is set aside."""
    with catalog.database.read() as connection:
        bound = bound_encoder(connection)
        if bound is None:
            return
        no_slices = {*connection.scalars(verify_catalog.without(slices, bound))}
        no_slices |= {*connection.scalars(verify_catalog.unfit_slices(bound))}
        lost = {*connection.scalars(verify_catalog.without(embeddings, bound))}
    for _, _, bad in verify_catalog.stored_vectors(catalog.database, bound):
        lost |= set(bad.tolist())
    index = _sound_index(catalog, home, bound)
    for key in sorted(lost - no_slices):
        vector = _from_index(index, key) if index else None
        vector = _from_slices(catalog, bound, key) if vector is None else vector
        if vector is None:
            no_slices.add(key)
        else:
            _store(catalog, bound, key, vector)
    _set_aside(catalog, home, np.array(sorted(no_slices), np.int64))


def _sound_index(catalog: Catalog, home: Path, bound: Bound) -> VectorIndex | None:
    opened = open_live(generations_folder(home), catalog.heads())
    stored = Space(bound.binding.fingerprint, bound.binding.dim)
    if opened.manifest is None or foreign_to(stored, opened.manifest):  # adapted ones are not what SQL holds
        return None
    return opened.index


def _from_index(index: VectorIndex, key: int) -> npt.NDArray[np.float32] | None:
    wanted = np.array([key], np.int64)
    return index.vectors(wanted)[0] if np.isin(wanted, index.keys())[0] else None


def _from_slices(catalog: Catalog, bound: Bound, key: int) -> npt.NDArray[np.float32] | None:
    """Pooled anew. The slices have been through float16, so it differs from the lost one by up to about 1e-3."""
    try:
        rows, _ = catalog.slices(np.array([key], np.int64))[key]
    except (KeyError, StoreError):
        return None
    if not verify_catalog.unit(rows).all():
        return None
    return pool(rows, Pooling.parse(bound.binding.pooling))


def _store(catalog: Catalog, bound: Bound, key: int, vector: npt.NDArray[np.float32]) -> None:
    row = {"key": key, "encoder_id": bound.encoder_id}
    with catalog.database.write() as connection:
        connection.execute(
            delete(embeddings).where(embeddings.c.key == key, embeddings.c.encoder_id == bound.encoder_id)
        )
        connection.execute(insert(embeddings), {**row, "vector": vector.astype(FLOAT32).tobytes()})


def _set_aside(catalog: Catalog, home: Path, keys: Keys) -> None:
    """What is known of each case into a file only its owner may read; then it is deleted, so that it can be indexed
    again."""
    for part in chunks(keys.tolist()):
        found = catalog.cases(np.array(part, np.int64))
        for case in found.values():
            _write(_quarantine(home) / f"case-{case.case_id}.json", json.dumps(asdict(case), ensure_ascii=False))
        catalog.delete([case.case_id for case in found.values()])
    if len(keys):
        _log.warning(
            "%d cases without a usable embedding were moved to %s: index their files again.", len(keys), QUARANTINE
        )


def _tidy(catalog: Catalog, home: Path) -> None:
    """Forget generations that can't be rolled back to; move foreign files away."""
    root = generations_folder(home)
    rows = catalog.generations()
    catalog.drop_generations(damaged_previous(root, rows))
    rows = catalog.generations()
    sweep(root, {row.name for row in rows})
    for path in strangers(root, rows):
        if path.is_symlink() or not (NAME.fullmatch(path.name) or BUILDING.fullmatch(path.name)):
            path.rename(_unused(_quarantine(home) / path.name))


def _quarantine(home: Path) -> Path:
    folder = home / QUARANTINE
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _unused(path: Path) -> Path:
    candidate, n = path, 1
    while os.path.lexists(candidate):
        candidate, n = path.with_name(f"{path.name}.{n}"), n + 1
    return candidate


def _write(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
