"""When workers that have gone were there: what their time cost is asked for after they went."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.tables import Base


class WorkerShift(Base):
    """`models` are the served names of its last heartbeat; `ended_at` is its sign-off, or its last word."""

    __tablename__ = "worker_shifts"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    started_at: Mapped[datetime] = mapped_column(primary_key=True)
    ended_at: Mapped[datetime]
    models: Mapped[list[str]]
