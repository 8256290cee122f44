"""How a worker is, and the trace that a job belongs to"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from models.dialect import Json

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("stats", Json, nullable=False, server_default="{}"))
    op.add_column("jobs", sa.Column("trace", sa.String(length=64), nullable=True))
    op.add_column("outbox", sa.Column("trace", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("outbox", "trace")
    op.drop_column("jobs", "trace")
    op.drop_column("workers", "stats")
