"""Request headers that change what happens, taken apart."""

import re
from typing import Final

from starlette.requests import Request

from core.errors import InvalidField

MAX_WAIT: Final = 60

_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?", re.ASCII | re.IGNORECASE)
_HOST: Final = re.compile(r"[A-Za-z0-9.\-_]{1,255}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?", re.ASCII)
_LONGEST_KEY: Final = 255


def preferred_wait(request: Request) -> int | None:
    """Seconds of `Prefer: wait=N`, at most 60; RFC 7240 says to ignore what is not understood."""
    found = _WAIT.search(request.headers.get("prefer", ""))
    seconds = int(found[1]) if found else 0
    return min(seconds, MAX_WAIT) or None


def idempotency_key(request: Request, *, longest: int = _LONGEST_KEY) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not (1 <= len(key) <= longest and key.isascii() and key.isprintable()):
        raise InvalidField("Idempotency-Key", f"Must be 1 to {longest} printable ASCII characters.")
    return key


def is_repeat(request: Request) -> bool:
    """OpenAI's clients count their retries."""
    count = request.headers.get("x-stainless-retry-count", "")
    return count.isascii() and count.isdigit() and count.strip("0") != ""


def base_url(request: Request, public_url: str) -> str:
    """The prefix of links: the setting, else what the client called us, else nothing."""
    if public_url:
        return public_url.rstrip("/")
    host = request.headers.get("host", "")
    return f"{request.scope['scheme']}://{host}" if _HOST.fullmatch(host) else ""


def matches(request: Request, etag: str) -> bool:
    """If-None-Match, compared weakly."""
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    return "*" in tags or etag.removeprefix("W/") in tags
