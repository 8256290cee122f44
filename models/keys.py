"""API keys: how one is made, taken apart and verified. Of the secret only a keyed hash is kept."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pydantic import SecretStr

from core.errors import ConfigurationMistake
from core.ids import new_id
from models.repositories.access import KeyRow
from models.service_class import ServiceClass

JOBS: Final = "jobs"
ADMIN: Final = "admin"
SCOPES: Final = (JOBS, ADMIN)

# A key id has no hyphen, so the first one ends it; the secret may hold hyphens and underscores.
_CLEAR_TEXT: Final = re.compile(r"sk-([0-9A-Za-z_]{1,64})-([0-9A-Za-z_-]{16,128})", re.ASCII)
_CHOSEN: Final = re.compile(r"[!-~]{8,200}", re.ASCII)
_SECRET_BYTES: Final = 32


def new_key(
    tenant_id: str,
    name: str,
    *,
    pepper: SecretStr,
    created_at: datetime,
    scopes: Sequence[str] = (JOBS,),
    max_class: ServiceClass = ServiceClass.PREMIUM,
    expires_at: datetime | None = None,
    clear_text: str | None = None,
) -> tuple[KeyRow, str]:
    """The row to keep, and the clear text `sk-<id>-<secret>`, which is shown once.

    `clear_text` fixes the key (`PENSTOCK_BOOTSTRAP_KEY`); raises `ConfigurationMistake` when it is not one.
    """
    text = clear_text or f"sk-{new_id('key')}-{secrets.token_urlsafe(_SECRET_BYTES)}"
    parts = parse_key(text)
    if parts is None:
        raise ConfigurationMistake(
            "a key has 8 to 200 printable ASCII characters; best is sk-<id>-<long random secret>"
        )
    key_id, secret = parts
    row = KeyRow(
        id=key_id,
        tenant_id=tenant_id,
        name=name,
        secret_hash=hash_secret(secret, pepper),
        scopes=list(scopes),
        max_class=max_class.value,
        created_at=created_at,
        expires_at=expires_at,
    )
    return row, text


def parse_key(clear_text: str) -> tuple[str, str] | None:
    """The id and the secret, or None where the text is no key.

    A text of another form is a key that somebody chose: its id is derived, and all of it is the secret.
    """
    found = _CLEAR_TEXT.fullmatch(clear_text)
    if found:
        return found[1], found[2]
    if _CHOSEN.fullmatch(clear_text):
        return f"key_{hashlib.sha256(clear_text.encode()).hexdigest()[:22]}", clear_text
    return None


def hash_secret(secret: str, pepper: SecretStr) -> str:
    return hmac.digest(pepper.get_secret_value().encode(), secret.encode(), "sha256").hex()


def is_secret_of(row: KeyRow, secret: str, pepper: SecretStr) -> bool:
    """Takes the same time whatever is wrong with the secret."""
    return hmac.compare_digest(row.secret_hash, hash_secret(secret, pepper))
