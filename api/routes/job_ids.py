"""The id in a path: what cannot be one is never looked up."""

import re
from typing import Annotated, Final

from fastapi import Depends, Path

from core.errors import NotFound

_ID: Final = re.compile(r"job_[0-9A-Za-z]{1,60}", re.ASCII)


async def _checked(job_id: Annotated[str, Path(examples=["job_01C7zJ4Vt3mYQ2w8Kx5bRn"])]) -> str:
    if not _ID.fullmatch(job_id):
        raise NotFound("There is no such job.")
    return job_id


JobId = Annotated[str, Depends(_checked)]
