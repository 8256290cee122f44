"""The ids of webhooks in a path: what cannot be one is never looked up."""

import re
from typing import Annotated, Final

from fastapi import Depends, Path

from core.errors import NotFound

_ENDPOINT: Final = re.compile(r"whep_[0-9A-Za-z]{1,58}", re.ASCII)
_DELIVERY: Final = re.compile(r"whd_[0-9A-Za-z]{1,59}", re.ASCII)


async def _endpoint(endpoint_id: Annotated[str, Path(examples=["whep_01C7zJ4Vt3mYQ2w8Kx5bRn"])]) -> str:
    if not _ENDPOINT.fullmatch(endpoint_id):
        raise NotFound("There is no such endpoint.")
    return endpoint_id


async def _delivery(delivery_id: Annotated[str, Path(examples=["whd_01C7zJ4Vt3mYQ2w8Kx5bRn"])]) -> str:
    if not _DELIVERY.fullmatch(delivery_id):
        raise NotFound("There is no such delivery.")
    return delivery_id


EndpointId = Annotated[str, Depends(_endpoint)]
DeliveryId = Annotated[str, Depends(_delivery)]
