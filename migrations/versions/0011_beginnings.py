"""How prompts begin, and tenants that share no beginning with others"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("payloads", sa.Column("trail", sa.Text()))
    op.add_column("outbox", sa.Column("trail", sa.Text()))
    op.add_column(
        "tenants", sa.Column("private_prefixes", sa.Boolean(), nullable=False, server_default=sa.false())
    )


def downgrade() -> None:
    op.drop_column("tenants", "private_prefixes")
    op.drop_column("outbox", "trail")
    op.drop_column("payloads", "trail")
