"""A search reads one state of the gallery: what is found is on file, and the other way round, whatever others write."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from retrieval.catalog import Catalog
from retrieval.live import LiveIndex
from retrieval.publish import publish, publish_compared
from tests.databases import BINDING, DIM, FINGERPRINT, embedded, unit_rows


def keys_in(live: LiveIndex) -> set[int]:
    """All that a search of the snapshot can find."""
    keys, _ = live.snapshot.score(unit_rows(1))
    return set(keys.tolist())


def add(catalog: Catalog, *names: str) -> list[int]:
    return [outcome.key for outcome in catalog.commit([embedded(name) for name in names], fingerprint=FINGERPRINT)]


def test_what_others_write_is_neither_found_nor_missed_half_way(catalog: Catalog, tmp_path: Path) -> None:
    keys = add(catalog, "a", "b", "c")
    live = LiveIndex(catalog, tmp_path, DIM, FINGERPRINT)
    url = catalog.database.url.render_as_string(hide_password=False)
    with live.agreeing(catalog.one_state) as snapshot, Catalog.open(url) as other:
        other.delete(["a"])
        new = add(other, "d")
        assert set(catalog.select().tolist()) == set(keys) == set(catalog.cases(np.array(keys + new)))
        found, _, _ = snapshot.search(unit_rows(1), 10)
        assert {key for key in found[0].tolist() if key >= 0} == set(keys)
    with live.agreeing(catalog.one_state):
        assert keys_in(live) == set(catalog.select().tolist()) == {*keys[1:], *new}


def test_index_and_catalog_agree_in_every_thread_while_others_write(catalog: Catalog, tmp_path: Path) -> None:
    add(catalog, "a", "b")
    live = LiveIndex(catalog, tmp_path, DIM, FINGERPRINT)
    stop, differing = threading.Event(), list[str]()

    def read() -> None:
        while not stop.is_set():
            with live.agreeing(catalog.one_state) as snapshot:
                keys, _ = snapshot.score(unit_rows(1))
                filed = set(catalog.select().tolist())
                if set(keys.tolist()) != filed:
                    differing.append(f"found {sorted(keys.tolist())}, on file {sorted(filed)}")

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for n in range(40):
        add(catalog, f"new{n}", f"more{n}")
        catalog.delete([f"new{n - 1}"])
        if n % 10 == 5:
            publish(catalog, tmp_path, "exact")
    stop.set()
    for reader in readers:
        reader.join()
    assert not differing, differing[0]


def test_a_rebuild_is_compared_while_cases_come_and_go(catalog: Catalog, tmp_path: Path) -> None:
    add(catalog, *(f"still{n}" for n in range(20)))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            add(catalog, *(f"new{n}" for n in range(20)))
            catalog.delete([f"new{n}" for n in range(20)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(15):
            assert publish_compared(catalog, tmp_path, "exact").live
    finally:
        stop.set()
        writer.join()


def test_a_state_within_another_is_that_one(catalog: Catalog) -> None:
    add(catalog, "a")
    url = catalog.database.url.render_as_string(hide_password=False)
    with catalog.one_state(), Catalog.open(url) as other:
        assert catalog.count() == 1
        add(other, "b")
        with catalog.one_state():
            assert catalog.count() == 1
        assert catalog.count() == 1  # not let go with the inner one
    assert catalog.count() == 2


def test_a_state_that_was_held_is_let_go(catalog: Catalog) -> None:
    add(catalog, "a")
    try:
        with catalog.one_state():
            assert catalog.count() == 1
            raise ValueError
    except ValueError:
        pass
    add(catalog, "b")
    assert catalog.count() == 2 and catalog.binding() == BINDING
