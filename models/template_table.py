"""Template answers that operators set; those of the file are nowhere else."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from models.tables import Base


class TemplateRow(Base):
    """`intent` is the template without its name; `actor` the key that set it last."""

    __tablename__ = "templates"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    intent: Mapped[dict[str, Any]] = mapped_column(JSON)
    actor: Mapped[str] = mapped_column(String(64))
    changed_at: Mapped[datetime]
