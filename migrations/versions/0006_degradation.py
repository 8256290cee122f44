"""Degradation: labels on jobs and results, pins, and the audit of levels"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from models.dialect import UtcDateTime

# Byte order, whatever the locale: ids sort by time only so.
ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # None in all three means what code that does not know them means: what was asked, and no estimate.
    op.add_column("jobs", sa.Column("degradation", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("jobs", sa.Column("estimated_start_at", UtcDateTime(), nullable=True))
    op.add_column("results", sa.Column("degradation", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "degradation_pins",
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("actor", ID, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_degradation_pins")),
    )
    op.create_table(
        "degradation_changes",
        sa.Column("id", ID, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("before", sa.SmallInteger(), nullable=False),
        sa.Column("after", sa.SmallInteger(), nullable=False),
        sa.Column("rule", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(length=256), nullable=False),
        sa.Column("actor", ID, nullable=False),
        sa.Column("reading", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_degradation_changes")),
    )
    op.create_index(op.f("ix_degradation_changes_at"), "degradation_changes", ["at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_degradation_changes_at"), table_name="degradation_changes")
    op.drop_table("degradation_changes")
    op.drop_table("degradation_pins")
    op.drop_column("results", "degradation")
    op.drop_column("jobs", "estimated_start_at")
    op.drop_column("jobs", "degradation")
