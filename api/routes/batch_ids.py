"""Ids of batches in paths: one that cannot be is not found, and the database is not asked."""

import re
from typing import Annotated, Final

from fastapi import Depends, Path

from core.errors import NotFound

_ID: Final = re.compile(r"batch_[0-9A-Za-z]{1,60}", re.ASCII)


async def _checked(batch_id: Annotated[str, Path(examples=["batch_01C7zJ4Vt3mYQ2w8Kx5bRn"])]) -> str:
    if not _ID.fullmatch(batch_id):
        raise NotFound("There is no such batch.")
    return batch_id


BatchId = Annotated[str, Depends(_checked)]
