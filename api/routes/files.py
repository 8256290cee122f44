"""OpenAI's files: what batches read and write."""

import re
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from api import openapi
from api.dependencies import JobsCaller, parts_of
from api.job_answers import json_answer
from api.schemas.file_read import render_file
from api.upload import Upload
from core.errors import NotFound

router = APIRouter(tags=["files"], default_response_class=Response)

_ID: Final = re.compile(r"file_[0-9A-Za-z]{1,60}", re.ASCII)
_MOST: Final = 10_000


async def _checked(file_id: Annotated[str, Path(examples=["file_01C7zJ4Vt3mYQ2w8Kx5bRn"])]) -> str:
    if not _ID.fullmatch(file_id):
        raise NotFound("There is no such file.")
    return file_id


FileId = Annotated[str, Depends(_checked)]
After = Annotated[
    str | None,
    Query(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$", description="The last id."),
]


@router.post(
    "/v1/files",
    summary="Upload the input of a batch",
    operation_id="create_file",
    responses={
        200: openapi.answer("The file.", "FileRead"),
        **openapi.openai_problems(400, 413, 422),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["purpose", "file"],
                        "properties": {
                            "purpose": {"type": "string", "enum": ["batch"]},
                            "file": {"type": "string", "format": "binary"},
                        },
                    }
                }
            },
        }
    },
)
async def create_file(request: Request, caller: JobsCaller) -> Response:
    parts = parts_of(request)
    length = request.headers.get("content-length", "")
    row = await parts.files.receive(
        caller.tenant_id,
        Upload(request, largest=parts.settings.storage.largest_file),
        announced=int(length[:20]) if length.isascii() and length.isdigit() else None,
        now=parts.clock.now(),
    )
    return json_answer(render_file(row))


@router.get(
    "/v1/files",
    summary="List files",
    operation_id="list_files",
    responses={200: openapi.answer("A page.", "FilePage"), **openapi.openai_problems(422)},
)
async def list_files(
    request: Request,
    caller: JobsCaller,
    *,
    purpose: Literal["batch", "batch_output"] | None = None,
    after: After = None,
    order: Literal["asc", "desc"] = "desc",
    limit: Annotated[int, Query(ge=1, le=_MOST)] = _MOST,
) -> Response:
    rows, has_more = await parts_of(request).files.page(
        caller.tenant_id, purpose=purpose, after=after, ascending=order == "asc", limit=limit
    )
    return json_answer(
        {
            "object": "list",
            "data": [render_file(row) for row in rows],
            "first_id": rows[0].id if rows else None,
            "last_id": rows[-1].id if rows else None,
            "has_more": has_more,
        }
    )


@router.get(
    "/v1/files/{file_id}",
    summary="Read what is known of a file",
    operation_id="read_file",
    responses={200: openapi.answer("The file.", "FileRead"), **openapi.openai_problems(404)},
)
async def read_file(request: Request, caller: JobsCaller, file_id: FileId) -> Response:
    return json_answer(render_file(await parts_of(request).files.read(caller.tenant_id, file_id)))


@router.get(
    "/v1/files/{file_id}/content",
    summary="Download a file",
    operation_id="read_file_content",
    responses={
        200: {
            **openapi.answer("The bytes as they came."),
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        **openapi.openai_problems(404),
    },
)
async def read_file_content(request: Request, caller: JobsCaller, file_id: FileId) -> Response:
    row, pieces = await parts_of(request).files.content(caller.tenant_id, file_id)
    headers = {"Content-Length": str(row.bytes)}
    return StreamingResponse(pieces, headers=headers, media_type="application/octet-stream")


@router.delete(
    "/v1/files/{file_id}",
    summary="Delete a file",
    operation_id="delete_file",
    responses={200: openapi.answer("Deleted.", "FileDeleted"), **openapi.openai_problems(404, 409)},
)
async def delete_file(request: Request, caller: JobsCaller, file_id: FileId) -> Response:
    await parts_of(request).files.delete(caller.tenant_id, file_id)
    return json_answer({"id": file_id, "object": "file", "deleted": True})
