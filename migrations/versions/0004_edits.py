"""A counter of changes to cases on file, by which a process knows that what a filter selected is out of date."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"  # whose ALTER TABLE leaves another statement than is declared
    with op.batch_alter_table("gallery", recreate="always" if sqlite else "never") as gallery:
        gallery.add_column(sa.Column("last_edit", BIG, nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("gallery") as gallery:
        gallery.drop_column("last_edit")
