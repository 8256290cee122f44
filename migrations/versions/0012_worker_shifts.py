"""When workers that have gone were there"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from models.dialect import Json, UtcDateTime

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "worker_shifts",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=False),
        sa.Column("models", Json, nullable=False),
        sa.PrimaryKeyConstraint("name", "started_at", name=op.f("pk_worker_shifts")),
    )


def downgrade() -> None:
    op.drop_table("worker_shifts")
