"""Metric heads over stored vectors, and which of them a generation's vectors went through."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "adapters",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("encoder_id", sa.Integer(), nullable=False),
        sa.Column("label", TEXT, nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.Column("report_json", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["encoder_id"], ["encoders.id"], name="fk_adapters_encoder_id"),
        sa.PrimaryKeyConstraint("id", name="pk_adapters"),
        sa.UniqueConstraint("name", name="uq_adapters_name"),
        sa.UniqueConstraint("sha256", name="uq_adapters_sha256"),
    )
    with op.batch_alter_table("generations") as generations:
        generations.add_column(sa.Column("adapter_id", sa.Integer(), nullable=True))
        generations.create_foreign_key("fk_generations_adapter_id", "adapters", ["adapter_id"], ["id"])


def downgrade() -> None:
    # An index of adapted vectors means nothing to the revision before: its vectors are then read from SQL as they are.
    adapted = "SELECT id FROM generations WHERE adapter_id IS NOT NULL"
    op.execute(f"UPDATE gallery SET generation_id = NULL WHERE generation_id IN ({adapted})")  # noqa: S608 (a constant)
    op.execute("DELETE FROM generations WHERE adapter_id IS NOT NULL")
    with op.batch_alter_table("generations") as generations:
        generations.drop_constraint("fk_generations_adapter_id", type_="foreignkey")
        generations.drop_column("adapter_id")
    op.drop_table("adapters")
