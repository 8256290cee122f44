"""Files and batches: what was uploaded, what became of it, and how far it is."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.tables import ID, Base

_SERIAL = BigInteger().with_variant(Integer(), "sqlite")
_WINDOW = String(16)


class File(Base):
    """What the storage holds under `id`. `status` is uploading until all of it is there, then processed.

    A row comes before its object and goes after it, so nothing is stored that no row knows.
    """

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    purpose: Mapped[str] = mapped_column(String(32))
    filename: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16))
    bytes: Mapped[int] = mapped_column(BigInteger)  # while uploading: what is reserved of the quota
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    batch_id: Mapped[str | None] = mapped_column(ID)  # of which it is the output

    __table_args__ = (
        Index("ix_files_tenant_id_id", "tenant_id", "id"),
        Index(
            "ix_files_expires_at",
            "expires_at",
            postgresql_where=text("expires_at IS NOT NULL"),
            sqlite_where=text("expires_at IS NOT NULL"),
        ),
    )


class Batch(Base):
    """`status` is OpenAI's. `fence` and `leased_until` say who works on it; `loaded` lines are jobs."""

    __tablename__ = "batches"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    status: Mapped[str] = mapped_column(String(16))
    endpoint: Mapped[str] = mapped_column(String(64))
    input_file_id: Mapped[str] = mapped_column(ID)
    output_file_id: Mapped[str | None] = mapped_column(ID)
    error_file_id: Mapped[str | None] = mapped_column(ID)
    retry_of: Mapped[str | None] = mapped_column(ID)
    service_class: Mapped[str] = mapped_column(String(16))
    window: Mapped[str] = mapped_column("completion_window", _WINDOW)
    models: Mapped[list[str]]
    total: Mapped[int] = mapped_column(Integer, default=0)
    completed: Mapped[int] = mapped_column(Integer, default=0)  # as of the last time tallies were added up
    failed: Mapped[int] = mapped_column(Integer, default=0)
    loaded: Mapped[int] = mapped_column(Integer, default=0)
    problems: Mapped[list[dict[str, Any]]] = mapped_column(JSON)  # the first bad lines
    usage: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    details: Mapped[dict[str, Any]] = mapped_column("metadata", JSON)
    degradation: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    webhook: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    in_progress_at: Mapped[datetime | None]
    finalizing_at: Mapped[datetime | None]
    cancelling_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(Integer, default=0)
    leased_until: Mapped[datetime | None]
    key_id: Mapped[str | None] = mapped_column(ID)  # whose usage its lines are
    output_ttl: Mapped[int | None] = mapped_column(Integer)  # seconds

    __table_args__ = (
        Index("ix_batches_tenant_id_id", "tenant_id", "id"),
        Index(
            "ix_batches_open",
            "id",
            postgresql_where=text("finished_at IS NULL"),
            sqlite_where=text("finished_at IS NULL"),
        ),
    )


class BatchTally(Base):
    """Lines that ended, one row a transaction that ended some: a counter that nobody has to wait for."""

    __tablename__ = "batch_tallies"

    id: Mapped[int] = mapped_column(_SERIAL, primary_key=True, autoincrement=True)
    batch_id: Mapped[str] = mapped_column(ID, ForeignKey("batches.id", ondelete="CASCADE"), index=True)
    completed: Mapped[int] = mapped_column(Integer)
    failed: Mapped[int] = mapped_column(Integer)
