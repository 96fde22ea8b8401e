"""What a Milvus index promises beyond the contract of every index. On Milvus Lite, and on a real server where slow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("milvus_lite", reason="needs the extra 'milvus-lite'")

from retrieval.catalog import Catalog
from retrieval.errors import CorruptIndex, StoreError, UsageError
from retrieval.generations import generations_folder, publishing, sweep
from retrieval.indexes.exact import ExactIndex
from retrieval.indexes.milvus.collection import Collection
from retrieval.indexes.milvus.facts import FACTS_FILE, CollectionFacts
from retrieval.indexes.milvus.filters import expressions
from retrieval.indexes.milvus.index import GATHER_BELOW, MilvusIndex
from retrieval.indexes.milvus.target import Target
from retrieval.indexes.outside import discard
from retrieval.manifest import Manifest
from retrieval.publish import publish, rollback
from retrieval.types import Keys, UnitRows
from tests.milvus_server import MilvusProcess
from tests.processes import REPOSITORY, answer, run
from tests.studies import write_pictures
from tests.vector_cases import DIM, commit_vectors, live_index, open_catalog, unit_rows

LITE, SERVER = "lite", pytest.param("server", marks=pytest.mark.slow)


@pytest.fixture(params=[LITE, SERVER])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == LITE:
        return str(tmp_path / "lite.db")
    server: MilvusProcess = request.getfixturevalue("milvus_server")
    return server.address


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(tmp_path) as catalog:
        yield catalog


def facts_of(home: Path, manifest: Manifest) -> CollectionFacts:
    return CollectionFacts.read(generations_folder(home) / manifest.name)


def collection_of(facts: CollectionFacts) -> Collection:
    return Collection.named(facts.target, facts.collection)


def is_there(facts: CollectionFacts) -> bool:
    return bool(collection_of(facts).client.has_collection(facts.collection))


def batches(keys: Keys, vectors: UnitRows) -> Iterator[tuple[Keys, UnitRows]]:
    for start in range(0, len(keys), 500):
        yield keys[start : start + 500], vectors[start : start + 500]


@pytest.mark.parametrize("plan", ["Flat", "IVF16,nprobe=16"])
def test_a_published_generation_answers_as_an_exact_one(
    catalog: Catalog, tmp_path: Path, address: str, plan: str
) -> None:
    vectors = unit_rows(3000)
    keys = np.array(commit_vectors(catalog, vectors))
    manifest = publish(catalog, tmp_path, f"milvus:{address},{plan}")
    assert manifest.facts.options == f"{address},{plan}"
    directory = generations_folder(tmp_path) / manifest.name
    assert sorted(path.name for path in directory.iterdir()) == ["keys.npy", "manifest.json", "milvus.json"]
    live, exact = live_index(catalog, tmp_path), ExactIndex.create(DIM)
    exact.add(keys, vectors)
    assert (live.generation, live.damaged, live.delta) == (manifest.name, "", 0)
    queries = unit_rows(6, seed=8)
    for allowed in (None, keys[::2], keys[::7], keys[: GATHER_BELOW // 2], keys[:3]):
        found, sims, answered = live.search(queries, 12, allowed)
        want_keys, want_sims = exact.search(queries, 12, allowed)
        assert found.tolist() == want_keys.tolist()
        assert sims.tolist() == want_sims.tolist()
        assert answered.exhaustive
        assert address not in answered.name
    commit_vectors(catalog, unit_rows(5, seed=3), first=3001)
    live.refresh()
    assert live.search(unit_rows(5, seed=3), 1)[0].ravel().tolist() == list(range(3001, 3006))


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_a_filtered_search_has_k_hits_on_an_approximate_index(tmp_path: Path, address: str, share: float) -> None:
    vectors, keys = unit_rows(4000), np.arange(1, 4001)
    index = MilvusIndex.build(tmp_path, batches(keys, vectors), DIM, f"{address},IVF64,nprobe=1")
    try:
        assert not index.exhaustive
        allowed = keys[np.random.default_rng(5).random(len(keys)) < share]
        exact = ExactIndex.create(DIM)
        exact.add(keys, vectors)
        queries = unit_rows(10, seed=8)
        assert index.search(queries, 10, allowed)[0].tolist() == exact.search(queries, 10, allowed)[0].tolist()
        assert (index.search(queries, 10)[0] > 0).all()
    finally:
        discard(tmp_path)


def test_a_row_that_is_sent_twice_is_there_once(address: str, tmp_path: Path) -> None:
    facts = CollectionFacts.new(Target.parse(f"{address},Flat"), DIM, tmp_path)
    collection = Collection.make(facts.target, facts.collection, DIM)
    try:
        keys, vectors = np.arange(1, 301), unit_rows(300)
        collection.upsert(keys, unit_rows(300, seed=4))
        collection.upsert(keys, vectors)
        collection.seal(300)
        assert np.array_equal(collection.rows(keys, DIM), vectors)
        with pytest.raises(StoreError, match=r"Expected 299 vectors .* the server counts 300"):
            collection.settle(299)
    finally:
        collection.drop()
    collection.drop()  # nothing to do


@pytest.mark.parametrize("spoil", ["nan", "dim", "twice"])
def test_what_is_unfit_is_refused_before_it_is_sent_and_leaves_nothing(
    address: str, tmp_path: Path, spoil: str
) -> None:
    vectors, keys = unit_rows(300, dim=DIM + (spoil == "dim")), np.arange(1, 301)
    if spoil == "nan":
        vectors[250, 0] = np.nan
    elif spoil == "twice":
        keys[250] = keys[249]
    given = iter([(np.array([1000]) - 999, unit_rows(1)), (keys[100:] + 1, vectors[100:])])
    with pytest.raises(UsageError, match="Expected"):
        MilvusIndex.build(tmp_path, given, DIM, f"{address},Flat")
    assert not is_there(CollectionFacts.read(tmp_path))


def test_the_alias_names_the_live_collection_and_turns_with_the_flip(
    catalog: Catalog, tmp_path: Path, address: str
) -> None:
    backend = f"milvus:{address},Flat"
    commit_vectors(catalog, unit_rows(60))
    first = facts_of(tmp_path, publish(catalog, tmp_path, backend))
    assert collection_of(first).aliases() == [first.alias]
    live, meanwhile = live_index(catalog, tmp_path), []

    def look(_: int) -> None:
        meanwhile.append((collection_of(first).aliases(), live.search(unit_rows(60)[4:5], 1)[0].tolist()))

    commit_vectors(catalog, unit_rows(20, seed=1), first=61)
    second = facts_of(tmp_path, publish(catalog, tmp_path, backend, progress=look))
    assert meanwhile == [([first.alias], [[5]])]
    assert second.alias == first.alias
    assert second.collection != first.collection
    assert (collection_of(first).aliases(), collection_of(second).aliases()) == ([], [first.alias])
    assert live.search(unit_rows(60)[4:5], 1)[0].tolist() == [[5]]  # before it has seen the flip
    rollback(catalog, tmp_path)
    assert (collection_of(first).aliases(), collection_of(second).aliases()) == ([first.alias], [])
    live.refresh()
    assert (len(live), live.delta, live.damaged) == (80, 20, "")


def test_a_forgotten_generation_takes_its_collection_along(catalog: Catalog, tmp_path: Path, address: str) -> None:
    commit_vectors(catalog, unit_rows(20))
    facts = [facts_of(tmp_path, publish(catalog, tmp_path, f"milvus:{address},Flat")) for _ in range(3)]
    assert [is_there(each) for each in facts] == [False, True, True]
    publish(catalog, tmp_path, "exact", keep_previous=False)
    assert [is_there(each) for each in facts] == [False, False, False]


def test_a_copy_of_the_gallery_does_not_drop_what_the_first_serves(
    catalog: Catalog, tmp_path: Path, address: str
) -> None:
    commit_vectors(catalog, unit_rows(20))
    facts = facts_of(tmp_path, publish(catalog, tmp_path, f"milvus:{address},Flat"))
    copy = tmp_path / "copy" / "generations"
    shutil.copytree(generations_folder(tmp_path), copy)
    with publishing(copy):
        assert len(sweep(copy, set())) == 1
    assert is_there(facts)
    assert live_index(catalog, tmp_path).damaged == ""


def test_what_a_dead_builder_left_is_dropped_by_the_next_sweep(tmp_path: Path, address: str) -> None:
    root = tmp_path / "generations"
    building = root / ".building-0123456789ab"
    building.mkdir(parents=True)
    facts = CollectionFacts.new(Target.parse(f"{address},Flat"), DIM, building)
    facts.write(building)
    Collection.make(facts.target, facts.collection, DIM).upsert(np.arange(1, 6), unit_rows(5))
    with publishing(root):
        assert sweep(root, set()) == [building.name]
    assert not is_there(facts)
    assert not building.exists()


BUILD = """
import sys
import numpy as np
from pathlib import Path
from retrieval.indexes.milvus.index import MilvusIndex
from tests.vector_cases import DIM, unit_rows
MilvusIndex.build(Path(sys.argv[1]), [(np.arange(1, 1501), unit_rows(1500))], DIM, sys.argv[2])
"""


def test_an_index_made_by_another_process_opens_here(tmp_path: Path, address: str) -> None:
    directory = tmp_path / "made"
    directory.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", BUILD, directory, f"{address},Flat"], check=True, env=environment)
    index = MilvusIndex.open(directory)
    try:
        vectors = unit_rows(1500)
        assert np.array_equal(index.vectors(index.keys()), vectors)
        assert index.search(vectors[700:705], 1)[0].ravel().tolist() == [701, 702, 703, 704, 705]
    finally:
        discard(directory)


@pytest.mark.parametrize("damage", ["row", "collection", "facts"])
def test_a_collection_that_is_not_what_was_put_there_is_not_served(
    catalog: Catalog, tmp_path: Path, address: str, damage: str
) -> None:
    commit_vectors(catalog, unit_rows(50))
    manifest = publish(catalog, tmp_path, f"milvus:{address},Flat")
    facts = facts_of(tmp_path, manifest)
    collection = collection_of(facts)
    if damage == "row":
        collection.client.delete(facts.collection, ids=[7])
    elif damage == "collection":
        collection.drop()
    else:
        path = generations_folder(tmp_path) / manifest.name / FACTS_FILE
        path.write_text(path.read_text().replace(facts.collection, "precedent_g_other"))
    live = live_index(catalog, tmp_path)
    assert "rebuild" in live.damaged
    assert (live.generation, live.delta) == ("", 50)
    assert live.search(unit_rows(50)[6:7], 1)[0].tolist() == [[7]]


def test_without_a_server_nothing_is_built_and_the_live_index_stays(catalog: Catalog, tmp_path: Path) -> None:
    commit_vectors(catalog, unit_rows(20))
    first = publish(catalog, tmp_path, "exact")
    with pytest.raises(StoreError, match=r"Milvus at //127\.0\.0\.1:1 is gone or refuses"):
        publish(catalog, tmp_path, "milvus://127.0.0.1:1,Flat")
    assert live_index(catalog, tmp_path).generation == first.name


@pytest.mark.slow
def test_a_server_that_goes_and_comes_back(catalog: Catalog, tmp_path: Path, milvus_server: MilvusProcess) -> None:
    commit_vectors(catalog, unit_rows(30))
    first = publish(catalog, tmp_path, f"milvus:{milvus_server.address},Flat")
    live = live_index(catalog, tmp_path)
    milvus_server.stop()
    try:
        with pytest.raises(StoreError, match="is gone or refuses"):
            live.search(unit_rows(30)[3:4], 1)
        late = live_index(catalog, tmp_path)
        assert "is gone or refuses" in late.damaged
        assert late.search(unit_rows(30)[3:4], 1)[0].tolist() == [[4]]
        publish(catalog, tmp_path, "exact", keep_previous=False)
        root = generations_folder(tmp_path)
        kept = [path.name for path in root.glob(".building-*")]
        assert len(kept) == 1  # it says which collection is still to be dropped
        facts = CollectionFacts.read(root / kept[0])
    finally:
        milvus_server.start()
    assert first.name not in [path.name for path in root.iterdir()]
    assert is_there(facts)
    with publishing(root):
        assert sweep(root, {row.name for row in catalog.generations()}) == kept
    assert not is_there(facts)


@pytest.mark.slow
def test_the_command_rebuilds_into_milvus_and_searches_there(tmp_path: Path) -> None:
    home, lite = tmp_path / "home", tmp_path / "lite.db"
    write_pictures(tmp_path / "in", 5)
    run("index", tmp_path / "in", home=home)
    backend = f"milvus:{lite},Flat"
    assert answer("rebuild", "--index", backend, home=home)["live"]
    assert answer("stats", home=home)["state"]["damaged"] == ""
    found = answer("search", tmp_path / "in" / "000.png", "--k", 2, home=home)
    assert (found["plan"], found["exhaustive"], len(found["hits"])) == ("milvus:Flat", True, 2)
    assert answer("verify", home=home)["ok"]
    lite.rename(tmp_path / "gone.db")
    assert "does not have the collection" in answer("stats", home=home)["state"]["damaged"]
    assert answer("search", tmp_path / "in" / "000.png", "--k", 2, home=home)["plan"] == "exact"
    refused = run("rebuild", "--index", f"milvus:{tmp_path}/lite.txt", home=home, code=2)
    assert "milvus://host:19530" in refused.stderr


@given(
    stored=st.sets(st.integers(1, 400), max_size=200), share=st.floats(0, 1), seed=st.integers(0, 999)
)  # fmt: skip
def test_expressions_select_what_they_should(stored: set[int], share: float, seed: int) -> None:
    keys = np.array(sorted(stored), np.int64)
    selected = keys[np.random.default_rng(seed).random(len(keys)) < share]
    passed: list[int] = []
    for expression in expressions(keys, selected, longest=16):
        assert expression.count(",") < 16
        passed += [key for key in keys.tolist() if not expression or eval(expression, {"key": key})]
    assert sorted(passed) == selected.tolist()


@pytest.mark.parametrize(
    ("options", "full"),
    [
        ("//db.example:19530", "//db.example:19530,IVF1024,nprobe=64"),
        ("//[::1]:19530/ward,tls,Flat", "//[::1]:19530/ward,tls,Flat"),
        ("//h:1,IVF32", "//h:1,IVF32,nprobe=32"),
        ("//h:1,nprobe=2000", "//h:1,IVF1024,nprobe=1024"),
        ("/somewhere/x.db,Flat", "/somewhere/x.db,Flat"),
    ],
)
def test_a_target_states_itself_in_full(options: str, full: str) -> None:
    target = Target.parse(options)
    assert str(target) == full
    assert Target.parse(full) == target


def test_a_target_is_where_it_was_meant() -> None:
    target = Target.parse("//db.example:19530/ward,tls")
    assert (target.uri, target.database) == ("https://db.example:19530", "ward")
    assert (Target.parse("x.db").uri, Target.parse("x.db").database) == (str(Path("x.db").absolute()), "")


@pytest.mark.parametrize("options", ["//name:secret@host:1", "//host:1/a@secret", "secret@x.db"])
def test_credentials_are_refused_and_not_repeated(options: str) -> None:
    with pytest.raises(UsageError, match="PRECEDENT_MILVUS_TOKEN") as refused:
        Target.parse(options)
    assert "secret" not in str(refused.value)


def test_files_of_another_making_are_refused(tmp_path: Path) -> None:
    (tmp_path / FACTS_FILE).write_text(
        '{"options": "x.db", "collection": "theirs", "dim": 4, "owner": "", "alias": ""}'
    )
    with pytest.raises(CorruptIndex, match="rebuild"):
        CollectionFacts.read(tmp_path)
    assert discard(tmp_path)
