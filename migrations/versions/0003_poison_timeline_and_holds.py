"""Poison, the timeline, dead letters and holds"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from models.dialect import UtcDateTime

# Byte order, whatever the locale: ids sort by time only so.
ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_COUNT = {"nullable": False, "server_default": "0"}


def upgrade() -> None:
    # With a constant default PostgreSQL rewrites nothing, and code that does not know them goes on.
    op.add_column("jobs", sa.Column("strikes", sa.SmallInteger(), **_COUNT))
    op.add_column("outbox", sa.Column("attempts", sa.SmallInteger(), **_COUNT))
    op.add_column("outbox", sa.Column("strikes", sa.SmallInteger(), **_COUNT))
    op.create_table(
        "job_changes",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=128), nullable=True),
        sa.Column("reason", ID, nullable=True),
        sa.PrimaryKeyConstraint("job_id", "version", name=op.f("pk_job_changes")),
    )
    op.create_table(
        "dead_letters",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("died_at", UtcDateTime(), nullable=False),
        sa.Column("requeued_as", ID, nullable=True),
        sa.Column("discarded_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_dead_letters_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_dead_letters")),
    )
    op.create_table(
        "model_holds",
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_model_holds")),
    )


def downgrade() -> None:
    op.drop_table("model_holds")
    op.drop_table("dead_letters")
    op.drop_table("job_changes")
    op.drop_column("outbox", "strikes")
    op.drop_column("outbox", "attempts")
    op.drop_column("jobs", "strikes")
