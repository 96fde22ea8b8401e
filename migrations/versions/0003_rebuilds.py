"""What a rebuild found before it went live, and the encoder that a gallery is being embedded into."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"  # whose ALTER TABLE leaves another statement than is declared
    with op.batch_alter_table("generations", recreate="always" if sqlite else "never") as generations:
        generations.add_column(sa.Column("report_json", TEXT, nullable=True))
    with op.batch_alter_table("gallery") as gallery:
        gallery.add_column(sa.Column("staged_encoder_id", sa.Integer(), nullable=True))
        gallery.create_foreign_key("fk_gallery_staged_encoder_id", "encoders", ["staged_encoder_id"], ["id"])


def downgrade() -> None:
    # The revision before knows one encoder: vectors of others, and generations made of those, mean nothing to it.
    other = "SELECT id FROM encoders WHERE id NOT IN (SELECT encoder_id FROM gallery WHERE encoder_id IS NOT NULL)"
    for table in ("embeddings", "slices", "generations", "adapters"):
        op.execute(f"DELETE FROM {table} WHERE encoder_id IN ({other})")  # noqa: S608 (constants)
    with op.batch_alter_table("gallery") as gallery:
        gallery.drop_constraint("fk_gallery_staged_encoder_id", type_="foreignkey")
        gallery.drop_column("staged_encoder_id")
    op.execute(f"DELETE FROM encoders WHERE id IN ({other})")  # noqa: S608 (a constant)
    with op.batch_alter_table("generations") as generations:
        generations.drop_column("report_json")
