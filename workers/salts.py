"""Salts for tenants whose prompts share nothing with others in an engine's prefix cache. Pure."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

EVERYBODY: Final = "*"


@dataclass(frozen=True, slots=True)
class Salts:
    """A salt is made from a secret of the server: nobody can ask for another tenant's, or guess it."""

    secret: bytes = b""
    tenants: frozenset[str] = frozenset()

    def of(self, tenant: str) -> str | None:
        """None shares: prompts that begin alike are then read once, and how fast tells that they were."""
        if not self.tenants & {tenant, EVERYBODY}:
            return None
        return hmac.new(self.secret, f"prefix cache of {tenant}".encode(), hashlib.sha256).hexdigest()
