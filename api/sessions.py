"""The console's session: a signed cookie that names an API key, and the signs that its own page asks."""

import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from api.headers import base_url
from models.repositories.access import KeyRow

# A form and a link cannot set it, and a script of another origin may not: there is no CORS here.
OWN_HEADER: Final = "X-Penstock-Console"
_COOKIE: Final = "penstock_console"
_TOKEN: Final = re.compile(r"([0-9A-Za-z_]{1,64})\.(\d{1,12})\.([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie claims; `signature` is to be compared with the key's row."""

    key_id: str
    expires_at: datetime
    signature: str


def sign(row: KeyRow, expires_at: datetime, pepper: SecretStr) -> str:
    """The cookie's value. It holds nothing secret, and is void once the key's secret is another one."""
    until = int(expires_at.timestamp())
    return f"{row.id}.{until}.{_signature(row, until, pepper)}"


def parse(token: str) -> Session | None:
    found = _TOKEN.fullmatch(token)
    if found is None:
        return None
    return Session(found[1], datetime.fromtimestamp(int(found[2]), UTC), found[3])


def is_signed_by(session: Session, row: KeyRow, pepper: SecretStr) -> bool:
    expected = _signature(row, int(session.expires_at.timestamp()), pepper)
    return hmac.compare_digest(session.signature, expected)


def _signature(row: KeyRow, until: int, pepper: SecretStr) -> str:
    # Of the key's hash too: who guesses the pepper of a careless installation can still sign nothing.
    secret = f"{pepper.get_secret_value()}\x1f{row.secret_hash}".encode()
    return hmac.digest(secret, f"console\x1f{row.id}\x1f{until}".encode(), "sha256").hex()


def is_own(request: Request, public_url: str) -> bool:
    """Whether the console's page asks, and not another site in the same browser."""
    if OWN_HEADER not in request.headers:
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return True
    own = {request.headers.get("host", ""), urlsplit(public_url).netloc}
    return urlsplit(origin).netloc in own - {""}


def token_of(request: Request, public_url: str) -> str | None:
    """The cookie, where it may count."""
    token = request.cookies.get(_COOKIE)
    return token if token and is_own(request, public_url) else None


def remember(response: Response, request: Request, token: str, *, seconds: int, public_url: str) -> None:
    response.set_cookie(
        _COOKIE,
        token,
        max_age=seconds,
        path="/",
        httponly=True,
        samesite="strict",
        secure=base_url(request, public_url).startswith("https:"),
    )


def forget(response: Response, request: Request, public_url: str) -> None:
    remember(response, request, "", seconds=0, public_url=public_url)
