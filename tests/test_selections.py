"""What filters select is kept while the catalog stays as it is, and never a moment longer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from retrieval.catalog import Catalog
from retrieval.filters import Filter, parse
from retrieval.heads import Heads
from retrieval.selections import Selections
from retrieval.types import Attributes, Keys
from tests.databases import FINGERPRINT, embedded

CT, MR = parse({"modality": "CT"}), parse({"modality": "MR"})


class Reader:
    """Counts how often it is asked; answers so many keys."""

    def __init__(self, count: int) -> None:
        self.asked = 0
        self.keys = np.arange(1, count + 1, dtype=np.int64)

    def __call__(self, condition: Filter) -> Keys:
        self.asked += 1
        return self.keys.copy()


def test_a_filter_is_read_once_for_each_state() -> None:
    read, kept = Reader(3), Selections()
    for heads in (Heads(3), Heads(3), Heads(4), Heads(4, 1), Heads(4, 1, last_edit=1), Heads(4, 1, last_edit=1)):
        assert kept.of(CT, heads, read).tolist() == [1, 2, 3]
    assert read.asked == 4
    kept.of(CT, Heads(4, 1, generation="g2", last_edit=1), read)
    assert read.asked == 4, "an index that is built anew selects nothing else"
    with pytest.raises(ValueError, match="read-only"):
        kept.of(CT, Heads(4, 1, last_edit=1), read)[0] = 9


def test_those_asked_for_longest_ago_make_room() -> None:
    read, kept = Reader(10), Selections(held_bytes=200)  # two of them
    for condition in (CT, MR, CT, parse({"modality": "US"}), CT):
        kept.of(condition, Heads(), read)
    assert read.asked == 3
    kept.of(MR, Heads(), read)
    assert read.asked == 4
    vast = Reader(1000)
    assert len(kept.of(parse({"modality": "DX"}), Heads(), vast)) == len(
        kept.of(parse({"modality": "DX"}), Heads(), vast)
    )
    assert vast.asked == 2, "what has no room is answered all the same"


def _edit(catalog: Catalog) -> None:
    catalog.update("b", attributes=Attributes(modality="CT"))


def _add(catalog: Catalog) -> None:
    catalog.commit([embedded("c", attributes=Attributes(modality="CT"))], fingerprint=FINGERPRINT)


def _delete(catalog: Catalog) -> None:
    catalog.delete(["a"])


@pytest.mark.parametrize(("write", "cases"), [(_edit, ["a", "b"]), (_add, ["a", "c"]), (_delete, [])])
def test_what_another_process_writes_is_seen(
    catalog: Catalog, write: Callable[[Catalog], None], cases: list[str]
) -> None:
    for name, modality in (("a", "CT"), ("b", "MR")):
        catalog.commit([embedded(name, attributes=Attributes(modality=modality))], fingerprint=FINGERPRINT)
    kept = Selections()

    def selected() -> list[str]:
        with catalog.one_state():
            keys = kept.of(CT, catalog.heads(), catalog.select)
            return [case.case_id for case in catalog.cases(keys).values()]

    assert selected() == ["a"]
    with Catalog.open(catalog.database.url.render_as_string(hide_password=False)) as other:
        write(other)
    assert selected() == cases
