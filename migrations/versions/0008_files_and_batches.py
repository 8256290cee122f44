"""Files and batches"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from models.dialect import UtcDateTime

# Byte order, whatever the locale: ids sort by time only so.
ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_IN_BATCH = sa.text("batch_id IS NOT NULL")
_EXPIRING = sa.text("expires_at IS NOT NULL")
_OPEN = sa.text("finished_at IS NULL")
_JSON = sa.JSON()


def upgrade() -> None:
    op.add_column("jobs", sa.Column("batch_line", sa.Integer()))
    op.add_column("payloads", sa.Column("custom_id", sa.Text()))
    op.add_column("outbox", sa.Column("batch_id", ID))
    # An index is no contract: no statement of an older release names the one that goes.
    op.create_index(
        "ix_jobs_batch_id_batch_line",
        "jobs",
        ["batch_id", "batch_line"],
        unique=True,
        postgresql_where=_IN_BATCH,
        sqlite_where=_IN_BATCH,
    )
    op.drop_index("ix_jobs_batch_id", table_name="jobs")
    _create_files()
    _create_batches()
    op.create_table(
        "batch_tallies",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("batch_id", ID, nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name="fk_batch_tallies_batch_id_batches", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_batch_tallies"),
    )
    op.create_index("ix_batch_tallies_batch_id", "batch_tallies", ["batch_id"])


def _create_files() -> None:
    op.create_table(
        "files",
        sa.Column("id", ID, nullable=False),
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("filename", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime()),
        sa.Column("batch_id", ID),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
    )
    op.create_index("ix_files_tenant_id_id", "files", ["tenant_id", "id"])
    op.create_index(
        "ix_files_expires_at", "files", ["expires_at"], postgresql_where=_EXPIRING, sqlite_where=_EXPIRING
    )


def _create_batches() -> None:
    count = {"nullable": False}
    op.create_table(
        "batches",
        sa.Column("id", ID, nullable=False),
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("endpoint", sa.String(64), nullable=False),
        sa.Column("input_file_id", ID, nullable=False),
        sa.Column("output_file_id", ID),
        sa.Column("error_file_id", ID),
        sa.Column("retry_of", ID),
        sa.Column("service_class", sa.String(16), nullable=False),
        sa.Column("completion_window", sa.String(16), nullable=False),
        sa.Column("models", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), **count),
        sa.Column("total", sa.Integer(), **count),
        sa.Column("completed", sa.Integer(), **count),
        sa.Column("failed", sa.Integer(), **count),
        sa.Column("loaded", sa.Integer(), **count),
        sa.Column("problems", _JSON, nullable=False),
        sa.Column("usage", _JSON),
        sa.Column("metadata", _JSON, nullable=False),
        sa.Column("degradation", _JSON),
        sa.Column("webhook", _JSON),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("in_progress_at", UtcDateTime()),
        sa.Column("finalizing_at", UtcDateTime()),
        sa.Column("cancelling_at", UtcDateTime()),
        sa.Column("finished_at", UtcDateTime()),
        sa.Column("fence", sa.Integer(), **count),
        sa.Column("leased_until", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_index("ix_batches_tenant_id_id", "batches", ["tenant_id", "id"])
    op.create_index("ix_batches_open", "batches", ["id"], postgresql_where=_OPEN, sqlite_where=_OPEN)


def downgrade() -> None:
    for table in ("batch_tallies", "batches", "files"):
        op.drop_table(table)
    op.create_index(
        "ix_jobs_batch_id", "jobs", ["batch_id"], postgresql_where=_IN_BATCH, sqlite_where=_IN_BATCH
    )
    op.drop_index("ix_jobs_batch_id_batch_line", table_name="jobs")
    op.drop_column("outbox", "batch_id")
    op.drop_column("payloads", "custom_id")
    op.drop_column("jobs", "batch_line")
