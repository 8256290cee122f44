"""Signing secrets of webhooks: made, sealed for the database, and opened to sign.

A signature needs the secret itself, so a hash will not do. It is sealed with AES-GCM under a key derived
from the pepper, which is not in the database, and bound to its owner, so that rows cannot be exchanged.
"""

import base64
import os
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from core.errors import ConfigurationMistake

_PREFIX: Final = "whsec_"
_BYTES: Final = 32
_NONCE: Final = 12


@dataclass(frozen=True, slots=True)
class SecretRow:
    """Sealed texts; `previous` signs too until its time is over."""

    owner: str
    tenant_id: str
    current: str
    previous: str | None = None
    previous_until: datetime | None = None


def new_secret() -> str:
    """`whsec_` and padded base64 of 32 random bytes."""
    return _PREFIX + base64.b64encode(os.urandom(_BYTES)).decode()


class Vault:
    """Seals and opens secrets with one pepper."""

    def __init__(self, pepper: SecretStr) -> None:
        derived = HKDF(SHA256(), 32, salt=None, info=b"penstock webhook secrets")
        self._cipher = AESGCM(derived.derive(pepper.get_secret_value().encode()))

    def seal(self, secret: str, owner: str) -> str:
        nonce = os.urandom(_NONCE)
        sealed = self._cipher.encrypt(nonce, secret.encode(), owner.encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, sealed: str, owner: str) -> str:
        """Raises `ConfigurationMistake` where the pepper is not the one that sealed it."""
        raw = base64.b64decode(sealed)
        try:
            return self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], owner.encode()).decode()
        except InvalidTag as error:
            raise ConfigurationMistake(
                "a webhook secret was sealed under another PENSTOCK_API__PEPPER; restore it, or rotate the"
                " secret"
            ) from error

    def live(self, row: SecretRow, now: datetime) -> list[str]:
        """The secrets that sign now, the newest first."""
        live = [self.open(row.current, row.owner)]
        if row.previous is not None and row.previous_until is not None and now < row.previous_until:
            live.append(self.open(row.previous, row.owner))
        return live
