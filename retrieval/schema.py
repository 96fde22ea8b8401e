"""The tables. SQL is the truth of a gallery; every index can be rebuilt from here.

Two choices that the rest relies on:

* Keys and tombstone numbers come from the counters in ``gallery``, a row that is only changed under the one writer
  lock (``retrieval.database``). So they become visible in ascending order, and are never used twice.
* Text that is compared without regard to case has the collation "C" on PostgreSQL, so that ``lower`` folds A-Z and
  nothing else there, as it does on SQLite and in ``retrieval.filters.tree.fold``.

``REVISION`` is the Alembic revision these tables are at; a test holds the two together.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
)
from sqlalchemy.types import TypeEngine

REVISION = "0004"
VERSION_TABLE = "precedent_version"  # Alembic's table, under our name: a PostgreSQL database may hold other programs
INDEXED_CHARACTERS = 100  # PostgreSQL refuses index rows over 2,704 bytes, and a label may be long

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _text() -> TypeEngine[str]:
    return Text().with_variant(Text(collation="C"), "postgresql")


def _big() -> TypeEngine[int]:
    return BigInteger().with_variant(Integer, "sqlite")  # only INTEGER is SQLite's own row id


def _key(**options: Any) -> Column[int]:
    return Column("key", _big(), ForeignKey("cases.key", ondelete="CASCADE"), primary_key=True, **options)


def folded(column: ColumnElement[str]) -> ColumnElement[str]:
    """The indexed form of a text column: its first characters, A-Z in lower case."""
    return func.lower(func.substr(column, 1, INDEXED_CHARACTERS))


encoders = Table(
    "encoders",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("fingerprint", _text(), nullable=False, unique=True),
    Column("encoder", _text(), nullable=False),
    Column("dim", Integer, nullable=False),
    Column("pooling", _text(), nullable=False),
    Column("card_json", _text(), nullable=False),
    Column("created_at", _text(), nullable=False),
    CheckConstraint("dim >= 1", name="dim"),
)

# Metric heads learned on the vectors of an encoder; those vectors themselves never change.
adapters = Table(
    "adapters",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", _text(), nullable=False, unique=True),
    Column("sha256", _text(), nullable=False, unique=True),
    Column("encoder_id", Integer, ForeignKey("encoders.id"), nullable=False),
    Column("label", _text(), nullable=False),
    Column("head", LargeBinary, nullable=False),  # safetensors
    Column("report_json", _text(), nullable=False),
    Column("created_at", _text(), nullable=False),
)

generations = Table(
    "generations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", _text(), nullable=False, unique=True),
    Column("encoder_id", Integer, ForeignKey("encoders.id"), nullable=False),
    Column("adapter_id", Integer, ForeignKey("adapters.id"), nullable=True),
    Column("backend", _text(), nullable=False),
    Column("manifest_sha256", _text(), nullable=False),
    Column("last_key", _big(), nullable=False),
    Column("last_tombstone", _big(), nullable=False),
    Column("size", _big(), nullable=False),
    Column("created_at", _text(), nullable=False),
    Column("state", _text(), nullable=False),
    Column("report_json", _text(), nullable=True),  # how it compared with the one before it
    CheckConstraint("state IN ('published', 'rolled_back')", name="state"),
)

# ``staged_encoder_id``: what the cases are being embedded with anew, while searches go on with ``encoder_id``.
# ``last_edit`` counts changes to what is told of cases on file, so that a process knows when to read a filter again.
gallery = Table(
    "gallery",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("encoder_id", Integer, ForeignKey("encoders.id"), nullable=True),
    Column("generation_id", Integer, ForeignKey("generations.id"), nullable=True),
    Column("last_key", _big(), nullable=False),
    Column("last_tombstone", _big(), nullable=False),
    Column("staged_encoder_id", Integer, ForeignKey("encoders.id"), nullable=True),
    Column("last_edit", _big(), nullable=False, server_default="0"),
    CheckConstraint("id = 1", name="one_row"),
)

cases = Table(
    "cases",
    metadata,
    Column("key", _big(), primary_key=True, autoincrement=False),
    Column("case_id", _text(), nullable=False, unique=True),
    Column("kind", _text(), nullable=False),
    Column("modality", _text(), nullable=False),
    Column("body_part", _text(), nullable=False),
    Column("view", _text(), nullable=False),
    Column("laterality", _text(), nullable=False),
    Column("sex", _text(), nullable=False),
    Column("age", Double, nullable=True),
    Column("manufacturer", _text(), nullable=False),
    Column("study_year", Integer, nullable=True),
    Column("source", _text(), nullable=False),
    Column("patient_key", _text(), nullable=False, index=True),
    Column("header_patient_key", _text(), nullable=False, index=True),
    Column("study_uid", _text(), nullable=False, index=True),
    Column("series_uid", _text(), nullable=False),
    Column("content_sha256", _text(), nullable=False, index=True),
    Column("pixel_sha256", _text(), nullable=False, index=True),
    Column("duplicate_of", _text(), nullable=False, index=True),
    Column("rows", Integer, nullable=False),
    Column("columns", Integer, nullable=False),
    Column("row_spacing", Double, nullable=True),
    Column("column_spacing", Double, nullable=True),
    Column("warnings", _text(), nullable=False),
    Column("created_at", _text(), nullable=False),
    CheckConstraint("key >= 1", name="key"),
    CheckConstraint("kind IN ('image', 'volume', 'views')", name="kind"),
)
for _name in ("modality", "body_part", "source"):
    Index(f"ix_cases_{_name}", folded(cases.c[_name]))
Index(None, cases.c.age)
Index(None, cases.c.study_year)

# The frames of a large series are kilobytes: apart from ``cases``, so that a scan of attributes stays narrow.
frames = Table("frames", metadata, _key(), Column("packed", LargeBinary, nullable=False))

embeddings = Table(
    "embeddings",
    metadata,
    _key(),
    Column("encoder_id", Integer, ForeignKey("encoders.id"), primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # float32, little-endian
)

slices = Table(
    "slices",
    metadata,
    _key(),
    Column("encoder_id", Integer, ForeignKey("encoders.id"), primary_key=True),
    Column("length", Integer, nullable=False),
    Column("frames", LargeBinary, nullable=False),  # int32, little-endian
    Column("vectors", LargeBinary, nullable=False),  # float16, little-endian, [length, dim]
)

labels = Table(
    "labels",
    metadata,
    _key(),
    Column("n", Integer, primary_key=True),
    Column("name", _text(), nullable=False),
    Column("value", _text(), nullable=False),
    Column("number", Double, nullable=True),
)
Index("ix_labels_name_value", labels.c.name, folded(labels.c.value))
Index("ix_labels_name_number", labels.c.name, labels.c.number)

reports = Table("reports", metadata, _key(), Column("text", _text(), nullable=False))

files = Table(
    "files",
    metadata,
    _key(),
    Column("n", Integer, primary_key=True),
    Column("sha256", _text(), nullable=False, index=True),
    Column("bytes", _big(), nullable=False),
    Column("sealed_path", LargeBinary, nullable=False),
)

thumbnails = Table("thumbnails", metadata, _key(), Column("jpeg", LargeBinary, nullable=False))

# A deleted case leaves its key and nothing else.
tombstones = Table(
    "tombstones",
    metadata,
    Column("seq", _big(), primary_key=True, autoincrement=False),
    Column("key", _big(), nullable=False, unique=True),
    Column("at", _text(), nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", _text(), nullable=False),
    Column("state", _text(), nullable=False, index=True),
    Column("progress", _big(), nullable=False),
    Column("total", _big(), nullable=False),
    Column("message", _text(), nullable=False),
    Column("owner", _text(), nullable=False),
    Column("created_at", _text(), nullable=False),
    Column("updated_at", _text(), nullable=False),
    Column("result", _text(), nullable=False),
    CheckConstraint("state IN ('queued', 'running', 'done', 'failed', 'interrupted')", name="state"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", _text(), nullable=False, unique=True),
    Column("scope", _text(), nullable=False),
    Column("sha256", _text(), nullable=False, unique=True),
    Column("created_at", _text(), nullable=False),
    Column("revoked_at", _text(), nullable=True),
    CheckConstraint("scope IN ('read', 'write', 'admin')", name="scope"),
)
