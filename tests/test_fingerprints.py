"""Vectors of two fingerprints never meet: every way in which they could is refused, both fingerprints named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import insert, select, update
from starlette.testclient import TestClient

from api.app import create_app
from indexer import rebuild
from retrieval import Gallery
from retrieval.adapters.head import MetricHead
from retrieval.catalog import Catalog
from retrieval.encoders import open_encoder
from retrieval.encoders.base import EncoderCard
from retrieval.errors import FingerprintMismatch
from retrieval.generations import generations_folder
from retrieval.live import LiveIndex
from retrieval.manifest import MANIFEST_FILE, METRIC, Manifest
from retrieval.publish import publish, rollback
from retrieval.schema import embeddings, encoders, gallery, generations
from retrieval.settings import Settings
from retrieval.space import Space
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding, Query
from retrieval.verify import verify
from tests.api_client import ADDRESS
from tests.encoder_files import make_open_clip, make_timm
from tests.test_cli import precedent

ROWS = 12


def case(n: int, dim: int) -> EmbeddedCase:
    vector = np.random.default_rng(n).normal(size=dim)
    row = (vector / np.linalg.norm(vector)).astype(np.float32)
    facts = Case(case_id=f"case-{n:04d}", kind=CaseKind.IMAGE, content_sha256=f"c{n}", pixel_sha256=f"p{n}")
    return EmbeddedCase(facts, Embedding(row, row[None], (0,)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``weights/`` of a small network and, in ``home/``, a gallery made with it that has a published generation."""
    root = tmp_path_factory.mktemp("fingerprints")
    make_timm("test_vit", root / "weights.safetensors")
    make_timm("test_vit", root / "others.safetensors", seed=1)
    with Gallery.open(Settings(home=root / "home", encoder=spec(root)), create=True) as opened:
        opened.add([case(n, opened.encoder.card.dim) for n in range(ROWS)])
        rebuild.rebuild(opened)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt. The gallery names weights of the first place, the copy's own lie beside it."""
    return shutil.copytree(made, tmp_path / "copy")


def spec(root: Path, name: str = "weights") -> str:
    return f"timm:test_vit@{root / name}.safetensors"


def stored(root: Path) -> str:
    with Catalog.open(Settings(home=root / "home").url) as catalog:
        binding = catalog.binding()
    assert binding is not None
    return binding.fingerprint


def refused(root: Path, offered: str, **settings: object) -> None:
    """Opening with these settings names what is stored and what was offered."""
    with pytest.raises(FingerprintMismatch) as error:
        Gallery.open(Settings(home=root / "home", **settings))  # type: ignore[arg-type]
    assert stored(root) in str(error.value) and offered in str(error.value)
    assert stored(root) != offered


def fingerprint(named: str, pooling: str = "mean-256") -> str:
    return f"{open_encoder(named).card.fingerprint}-{pooling}"


# --- ten ways, one table ---

Refusal = tuple[str, str, str]  # what was said, what is stored, what was offered


def opened_otherwise(root: Path, offered: str, **settings: object) -> Refusal:
    with pytest.raises(FingerprintMismatch) as error:
        Gallery.open(Settings(home=root / "home", **settings))  # type: ignore[arg-type]
    return str(error.value), stored(root), offered


def _number_type(root: Path) -> Refusal:
    encoder = open_encoder(spec(root))
    card = replace(encoder.card, dtype="float16")
    with pytest.raises(FingerprintMismatch) as error:
        Gallery.open(root / "home", encoder=encoder.with_card(card))  # type: ignore[attr-defined]
    return str(error.value), stored(root), card.fingerprint


def _metric(root: Path) -> Refusal:
    """Stated by the live generation, under right hashes."""
    with Catalog.open(Settings(home=root / "home").url) as catalog:
        live, binding = next(row for row in catalog.generations() if row.state == "live"), catalog.embedded_with()
        path = generations_folder(root / "home") / live.name / MANIFEST_FILE
        other = replace(Manifest.parse(path.read_bytes(), live.name), metric="squared distance")
        path.write_bytes(other.to_bytes())
        with catalog.database.write() as connection:
            connection.execute(update(generations).values(manifest_sha256=other.sha256))
        index = LiveIndex(catalog, root / "home", binding.dim, binding.fingerprint)
        index.refresh()
        assert index.generation == "" and len(index) == ROWS
    return index.damaged, METRIC, "squared distance"


def _adapter(root: Path) -> Refusal:
    """Learned on other vectors; also where it is offered past the catalog."""
    arrays = {"weight": np.eye(4, dtype=np.float32), "bias": np.zeros(4, np.float32)}
    head = MetricHead("linear", "other-1", arrays)
    with pytest.raises(FingerprintMismatch, match=r"own-1.*other-1"):
        Space("own-1", 4).adapted(head)
    assert Space("other-1", 4).adapted(head).fingerprint != "other-1"
    with Catalog.open(Settings(home=root / "home").url) as catalog, pytest.raises(FingerprintMismatch) as error:
        catalog.save_adapter("theirs", head, "finding", "{}")
    return str(error.value), stored(root), "other-1"


def _config(root: Path) -> Refusal:
    folder = make_open_clip(root / "clip")
    named, place = f"open_clip:local-dir:{folder}", root / "clipped"
    with Gallery.open(Settings(home=place / "home", encoder=named), create=True) as opened:
        opened.add([case(0, opened.encoder.card.dim)])
    config = json.loads((folder / "open_clip_config.json").read_text())
    told = ("", "", "")
    for part, field, value in (("preprocess_cfg", "mean", [0.1, 0.2, 0.3]), ("model_cfg", "quick_gelu", True)):
        changed = {**config, part: {**config[part], field: value}}
        (folder / "open_clip_config.json").write_text(json.dumps(changed))
        told = opened_otherwise(place, fingerprint(named))
        assert told[1] in told[0] and told[2] in told[0]
    return told


def _older_manifest(root: Path) -> Refusal:
    """The generation is of an encoder that the gallery no longer is bound to."""
    with Catalog.open(Settings(home=root / "home").url) as catalog:
        binding = catalog.embedded_with()
        with catalog.database.write() as connection:
            connection.execute(update(encoders).values(fingerprint="newer-1"))
        index = LiveIndex(catalog, root / "home", binding.dim, "newer-1")
        index.refresh()
        assert index.generation == ""
    return index.damaged, binding.fingerprint, "newer-1"


def _mixed_rows(root: Path) -> Refusal:
    theirs = fingerprint(spec(root, "others"))
    with Gallery.open(Settings(home=root / "home", encoder=spec(root))) as opened:
        with pytest.raises(FingerprintMismatch) as error:
            opened.catalog.commit([case(99, opened.encoder.card.dim)], fingerprint=theirs)
        assert len(opened) == ROWS
    return str(error.value), stored(root), theirs


TEN: dict[str, Callable[[Path], Refusal]] = {
    "other weights": lambda root: opened_otherwise(
        root, fingerprint(spec(root, "others")), encoder=spec(root, "others")
    ),
    "dim": lambda root: opened_otherwise(root, fingerprint("classical"), encoder="classical"),
    "preprocessing": lambda root: opened_otherwise(
        root, fingerprint(f"{spec(root)}?recipe=ct-lung-v1"), encoder=f"{spec(root)}?recipe=ct-lung-v1"
    ),
    "pooling": lambda root: opened_otherwise(root, fingerprint(spec(root), "max-256"), pooling="max"),
    "metric": _metric,
    "dtype": _number_type,
    "adapter": _adapter,
    "edited config": _config,
    "older manifest": _older_manifest,
    "mixed rows": _mixed_rows,
}


@pytest.mark.parametrize("kind", TEN)
def test_ten_of_ten_are_refused_and_both_named(kind: str, root: Path) -> None:
    told, ours, theirs = TEN[kind](root)
    assert ours != theirs
    assert ours in told and theirs in told


# --- what is opened with the gallery ---


def test_the_same_weights_elsewhere_are_the_same_encoder(root: Path) -> None:
    with Gallery.open(Settings(home=root / "home", encoder=spec(root))) as opened:
        assert len(opened) == ROWS and opened.fingerprint == stored(root)
    with Gallery.open(Settings(home=root / "home", pooling="mean", max_slices=256)) as opened:
        assert opened.fingerprint == stored(root)


def test_other_weights_in_the_same_place(tmp_path: Path) -> None:
    make_timm("test_vit", tmp_path / "weights.safetensors")
    with Gallery.open(Settings(home=tmp_path / "home", encoder=spec(tmp_path)), create=True) as opened:
        opened.add([case(0, opened.encoder.card.dim)])
    make_timm("test_vit", tmp_path / "weights.safetensors", seed=1)
    refused(tmp_path, fingerprint(spec(tmp_path)))
    with pytest.raises(FingerprintMismatch, match="Nothing else was asked for"):
        Gallery.open(Settings(home=tmp_path / "home"))


@pytest.mark.parametrize("recipe", ["ct-lung-v1", "letterbox-v1", "mr-percentiles-v1"])
def test_another_preparation(recipe: str, root: Path) -> None:
    named = f"{spec(root)}?recipe={recipe}"
    refused(root, fingerprint(named), encoder=named)


@pytest.mark.parametrize(
    ("settings", "offered"),
    [
        ({"pooling": "max"}, "max-256"),
        ({"max_slices": 8}, "mean-8"),
        ({"pooling": "mean-8"}, "mean-8"),
        ({"pooling": "std", "max_slices": 9}, "std-9"),
    ],
)
def test_another_pooling(settings: dict[str, object], offered: str, root: Path) -> None:
    refused(root, fingerprint(spec(root), offered), **settings)


@pytest.mark.parametrize(
    "changed",
    [
        lambda card: replace(card, dtype="float16"),
        lambda card: replace(card, version="2"),
        lambda card: replace(card, dim=card.dim),
    ],
    ids=["dtype", "version", "nothing"],
)
def test_another_number_type_or_version(changed: Callable[[EncoderCard], EncoderCard], root: Path) -> None:
    encoder = open_encoder(spec(root))
    card = changed(encoder.card)
    other = encoder.with_card(card)  # type: ignore[attr-defined]
    if card == encoder.card:
        Gallery.open(root / "home", encoder=other).close()
        return
    with pytest.raises(FingerprintMismatch, match=f"{stored(root)}.*{card.fingerprint}"):
        Gallery.open(root / "home", encoder=other)


def test_an_encoder_that_can_not_be_opened_is_not_passed_over(root: Path) -> None:
    refused(root, "timm:no_such_model", encoder="timm:no_such_model")


# --- what meets inside ---


def test_rows_filed_under_another_encoder_are_never_found(root: Path) -> None:
    """As a hand in the database, or a merge of two, would leave them."""
    with Gallery.open(Settings(home=root / "home", encoder=spec(root))) as opened:
        before = opened.catalog.case("case-0003")
        with opened.catalog.database.write() as connection:
            own = connection.execute(
                select(encoders).where(encoders.c.id == select(gallery.c.encoder_id).scalar_subquery())
            )
            row = dict(own.mappings().one())
            other = connection.execute(
                insert(encoders).returning(encoders.c.id), {**row, "id": row["id"] + 1, "fingerprint": "other-1"}
            ).scalar_one()
            connection.execute(update(embeddings).where(embeddings.c.key == before.key).values(encoder_id=other))
        report = verify(opened.catalog, root / "home")
        assert not report.ok
    shutil.rmtree(generations_folder(root / "home"))
    with Gallery.open(Settings(home=root / "home", encoder=spec(root))) as opened:
        _, embedding = opened.catalog.embedding("case-0001")
        found = opened.search(Query(embedding), k=ROWS)
        assert "case-0003" not in {hit.case.case_id for hit in found.hits}
        assert len(found.hits) == ROWS - 1


def test_a_second_encoder_can_not_be_bound(root: Path) -> None:
    with Catalog.open(Settings(home=root / "home").url) as catalog:
        binding = catalog.binding()
        assert binding is not None
        with pytest.raises(FingerprintMismatch, match=f"{binding.fingerprint}.*other-1"):
            catalog.bind(replace(binding, fingerprint="other-1"))


def test_a_generation_of_an_older_encoder_is_neither_served_nor_gone_back_to(root: Path) -> None:
    with Gallery.open(Settings(home=root / "home", encoder=spec(root))) as opened:
        made_with = opened.fingerprint
        publish(opened.catalog, root / "home", "exact")  # there is now one to go back to
        with opened.catalog.database.write() as connection:
            connection.execute(update(encoders).values(fingerprint="newer-1"))
    with (
        Catalog.open(Settings(home=root / "home").url) as catalog,
        pytest.raises(FingerprintMismatch, match=f"newer-1.*{made_with}"),
    ):
        rollback(catalog, root / "home")
    refused(root, fingerprint(spec(root)), encoder=spec(root))


# --- every command and the service ---

COMMANDS = {
    "index": ("index", "PICTURE"),
    "search": ("search", "case-0001"),
    "rebuild": ("rebuild",),
    "verify": ("verify",),
    "stats": ("stats",),
    "evaluate": ("evaluate", "--labels", "LABELS", "--label", "finding"),
    "adapt": ("adapt", "--label", "finding"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_what_the_environment_states(command: str, root: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"path,finding\n{tmp_path / 'picture.png'},nodule\n")
    (tmp_path / "picture.png").write_bytes(b"")
    places = {"PICTURE": tmp_path / "picture.png", "LABELS": tmp_path / "labels.csv"}
    arguments = [places.get(each, each) for each in COMMANDS[command]]
    done = precedent(*arguments, home=root / "home", code=2, PRECEDENT_ENCODER=spec(root, "others"))
    assert stored(root) in done.stderr and fingerprint(spec(root, "others")) in done.stderr
    done = precedent(*arguments, home=root / "home", code=2, PRECEDENT_ENCODER=spec(root), PRECEDENT_POOLING="max")
    assert stored(root) in done.stderr and fingerprint(spec(root), "max-256") in done.stderr


def test_options_are_refused_as_the_environment_is(root: Path, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"")
    for options, offered in (
        (("--encoder", spec(root, "others")), fingerprint(spec(root, "others"))),
        (("--pooling", "median"), fingerprint(spec(root), "median-256")),
    ):
        done = precedent("index", tmp_path / "picture.png", *options, home=root / "home", code=2)
        assert stored(root) in done.stderr and offered in done.stderr


def test_the_service_is_not_ready_and_says_why(root: Path) -> None:
    settings = Settings(home=root / "home", encoder=spec(root, "others"))
    with TestClient(create_app(settings), base_url=ADDRESS) as client:
        for answer in (client.get("/readyz"), client.post("/v1/search", data={"case_id": "case-0001"})):
            assert answer.status_code == 503
            assert stored(root) in answer.json()["detail"]
            assert fingerprint(spec(root, "others")) in answer.json()["detail"]
