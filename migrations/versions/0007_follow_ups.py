"""A degraded job and the bulk job that gives its full answer later"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

# Byte order, whatever the locale: ids sort by time only so.
ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("follow_up", ID, nullable=True))
    op.add_column("jobs", sa.Column("follow_up_of", ID, nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "follow_up_of")
    op.drop_column("jobs", "follow_up")
