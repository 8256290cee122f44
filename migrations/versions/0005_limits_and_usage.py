"""Limits of tenants and keys, and what they used"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from models.dialect import UtcDateTime

# Byte order, whatever the locale: ids sort by time only so.
ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("key_id", ID, nullable=True))
    op.create_table(
        "owner_limits",
        sa.Column("owner", ID, nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_owner_limits")),
    )
    op.create_table(
        "usage",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("key_id", ID, nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("service_class", sa.String(length=16), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.Column("degraded", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant_id", "day", "key_id", "model", "service_class", name=op.f("pk_usage")
        ),
    )


def downgrade() -> None:
    op.drop_table("usage")
    op.drop_table("owner_limits")
    op.drop_column("jobs", "key_id")
