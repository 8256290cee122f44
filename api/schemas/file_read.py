"""A file as OpenAI's clients know it."""

from typing import Any, Literal

from api.schemas.job_read import Document
from models.repositories.files import FileRow


class FileRead(Document):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]


class FilePage(Document):
    object: Literal["list"]
    data: list[FileRead]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(Document):
    id: str
    object: Literal["file"]
    deleted: Literal[True]


def render_file(row: FileRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": int(row.created_at.timestamp()),
        "expires_at": int(row.expires_at.timestamp()) if row.expires_at else None,
        "filename": row.filename,
        "purpose": row.purpose,
        "status": row.status,
    }
