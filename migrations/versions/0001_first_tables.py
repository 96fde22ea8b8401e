"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TABLES = (
    "encoders",
    "generations",
    "gallery",
    "cases",
    "frames",
    "embeddings",
    "slices",
    "labels",
    "reports",
    "files",
    "thumbnails",
    "tombstones",
    "jobs",
    "api_keys",
)  # a table after those it refers to


def upgrade() -> None:
    _create_gallery()
    _create_cases()
    _create_case_parts()
    _create_ledgers()
    _create_indexes()
    op.execute("INSERT INTO gallery (id, last_key, last_tombstone) VALUES (1, 0, 0)")


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def _create_gallery() -> None:
    op.create_table(
        "encoders",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("encoder", TEXT, nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("pooling", TEXT, nullable=False),
        sa.Column("card_json", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.CheckConstraint("dim >= 1", name=op.f("ck_encoders_dim")),
        sa.PrimaryKeyConstraint("id", name="pk_encoders"),
        sa.UniqueConstraint("fingerprint", name="uq_encoders_fingerprint"),
    )
    op.create_table(
        "generations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("encoder_id", sa.Integer(), nullable=False),
        sa.Column("backend", TEXT, nullable=False),
        sa.Column("manifest_sha256", TEXT, nullable=False),
        sa.Column("last_key", BIG, nullable=False),
        sa.Column("last_tombstone", BIG, nullable=False),
        sa.Column("size", BIG, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.CheckConstraint("state IN ('published', 'rolled_back')", name=op.f("ck_generations_state")),
        sa.ForeignKeyConstraint(["encoder_id"], ["encoders.id"], name="fk_generations_encoder_id"),
        sa.PrimaryKeyConstraint("id", name="pk_generations"),
        sa.UniqueConstraint("name", name="uq_generations_name"),
    )
    op.create_table(
        "gallery",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("encoder_id", sa.Integer(), nullable=True),
        sa.Column("generation_id", sa.Integer(), nullable=True),
        sa.Column("last_key", BIG, nullable=False),
        sa.Column("last_tombstone", BIG, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_gallery_one_row")),
        sa.ForeignKeyConstraint(["encoder_id"], ["encoders.id"], name="fk_gallery_encoder_id"),
        sa.ForeignKeyConstraint(["generation_id"], ["generations.id"], name="fk_gallery_generation_id"),
        sa.PrimaryKeyConstraint("id", name="pk_gallery"),
    )


def _create_cases() -> None:
    op.create_table(
        "cases",
        sa.Column("key", BIG, autoincrement=False, nullable=False),
        sa.Column("case_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("modality", TEXT, nullable=False),
        sa.Column("body_part", TEXT, nullable=False),
        sa.Column("view", TEXT, nullable=False),
        sa.Column("laterality", TEXT, nullable=False),
        sa.Column("sex", TEXT, nullable=False),
        sa.Column("age", sa.Double(), nullable=True),
        sa.Column("manufacturer", TEXT, nullable=False),
        sa.Column("study_year", sa.Integer(), nullable=True),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("patient_key", TEXT, nullable=False),
        sa.Column("header_patient_key", TEXT, nullable=False),
        sa.Column("study_uid", TEXT, nullable=False),
        sa.Column("series_uid", TEXT, nullable=False),
        sa.Column("content_sha256", TEXT, nullable=False),
        sa.Column("pixel_sha256", TEXT, nullable=False),
        sa.Column("duplicate_of", TEXT, nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("columns", sa.Integer(), nullable=False),
        sa.Column("row_spacing", sa.Double(), nullable=True),
        sa.Column("column_spacing", sa.Double(), nullable=True),
        sa.Column("warnings", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.CheckConstraint("kind IN ('image', 'volume', 'views')", name=op.f("ck_cases_kind")),
        sa.CheckConstraint("key >= 1", name=op.f("ck_cases_key")),
        sa.PrimaryKeyConstraint("key", name="pk_cases"),
        sa.UniqueConstraint("case_id", name="uq_cases_case_id"),
    )


def _create_case_parts() -> None:
    op.create_table(
        "frames",
        sa.Column("key", BIG, nullable=False),
        sa.Column("packed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["key"], ["cases.key"], name="fk_frames_key", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", name="pk_frames"),
    )
    op.create_table(
        "embeddings",
        sa.Column("key", BIG, nullable=False),
        sa.Column("encoder_id", sa.Integer(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["encoder_id"], ["encoders.id"], name="fk_embeddings_encoder_id"),
        sa.ForeignKeyConstraint(["key"], ["cases.key"], name="fk_embeddings_key", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", "encoder_id", name="pk_embeddings"),
    )
    op.create_table(
        "slices",
        sa.Column("key", BIG, nullable=False),
        sa.Column("encoder_id", sa.Integer(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("frames", sa.LargeBinary(), nullable=False),
        sa.Column("vectors", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["encoder_id"], ["encoders.id"], name="fk_slices_encoder_id"),
        sa.ForeignKeyConstraint(["key"], ["cases.key"], name="fk_slices_key", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", "encoder_id", name="pk_slices"),
    )
    op.create_table(
        "labels",
        sa.Column("key", BIG, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["key"], ["cases.key"], name="fk_labels_key", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", "n", name="pk_labels"),
    )
    op.create_table(
        "reports",
        sa.Column("key", BIG, nullable=False),
        sa.Column("text", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["key"], ["cases.key"], name="fk_reports_key", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", name="pk_reports"),
    )
    op.create_table(
        "files",
        sa.Column("key", BIG, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("bytes", BIG, nullable=False),
        sa.Column("sealed_path", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["key"], ["cases.key"], name="fk_files_key", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", "n", name="pk_files"),
    )
    op.create_table(
        "thumbnails",
        sa.Column("key", BIG, nullable=False),
        sa.Column("jpeg", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["key"], ["cases.key"], name="fk_thumbnails_key", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", name="pk_thumbnails"),
    )


def _create_ledgers() -> None:
    op.create_table(
        "tombstones",
        sa.Column("seq", BIG, autoincrement=False, nullable=False),
        sa.Column("key", BIG, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_tombstones"),
        sa.UniqueConstraint("key", name="uq_tombstones_key"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("progress", BIG, nullable=False),
        sa.Column("total", BIG, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.Column("result", TEXT, nullable=False),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'done', 'failed', 'interrupted')", name=op.f("ck_jobs_state")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("revoked_at", TEXT, nullable=True),
        sa.CheckConstraint("scope IN ('read', 'write', 'admin')", name=op.f("ck_api_keys_scope")),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("name", name="uq_api_keys_name"),
        sa.UniqueConstraint("sha256", name="uq_api_keys_sha256"),
    )


def _create_indexes() -> None:
    op.create_index("ix_cases_age", "cases", ["age"])
    op.create_index("ix_cases_content_sha256", "cases", ["content_sha256"])
    op.create_index("ix_cases_patient_key", "cases", ["patient_key"])
    op.create_index("ix_cases_header_patient_key", "cases", ["header_patient_key"])
    op.create_index("ix_cases_pixel_sha256", "cases", ["pixel_sha256"])
    op.create_index("ix_cases_study_uid", "cases", ["study_uid"])
    op.create_index("ix_cases_study_year", "cases", ["study_year"])
    op.create_index("ix_jobs_state", "jobs", ["state"])
    op.create_index("ix_files_sha256", "files", ["sha256"])
    op.create_index("ix_labels_name_number", "labels", ["name", "number"])
    op.create_index("ix_cases_duplicate_of", "cases", ["duplicate_of"])
    op.create_index("ix_cases_modality", "cases", [sa.text("lower(substr(modality, 1, 100))")])
    op.create_index("ix_cases_body_part", "cases", [sa.text("lower(substr(body_part, 1, 100))")])
    op.create_index("ix_cases_source", "cases", [sa.text("lower(substr(source, 1, 100))")])
    op.create_index("ix_labels_name_value", "labels", ["name", sa.text("lower(substr(value, 1, 100))")])
