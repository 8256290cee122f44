"""Salts for tenants whose prompts share nothing with others in an engine's prefix cache. Pure."""

import hashlib
import hmac
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Salts:
    """A salt is made from a secret of the server: nobody can ask for another tenant's, or guess it."""

    secret: bytes = b""
    everybody: bool = False  # also those who did not ask for it

    def of(self, tenant: str, *, is_private: bool) -> str | None:
        """None shares: prompts that begin alike are then read once, and how fast tells that they were."""
        if not (is_private or self.everybody):
            return None
        return hmac.new(self.secret, f"prefix cache of {tenant}".encode(), hashlib.sha256).hexdigest()
