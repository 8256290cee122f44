"""Whose usage a batch's lines are, and how long its files are kept"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

# Byte order, whatever the locale: ids sort by time only so.
ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("key_id", ID))
    op.add_column("batches", sa.Column("output_ttl", sa.Integer()))


def downgrade() -> None:
    op.drop_column("batches", "output_ttl")
    op.drop_column("batches", "key_id")
