"""Who asks: verifies API keys and the console's sessions, and remembers keys for a moment."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from api import sessions
from core.clock import Clock
from core.errors import Forbidden, StoreUnavailable, Unauthenticated
from models.dialect import Database
from models.keys import is_secret_of, parse_key
from models.limits import NO_BOUNDS, Bounds
from models.repositories import access
from models.repositories.access import KeyRow
from models.service_class import ServiceClass

_REMEMBERED: Final = 10_000
# While the database is down a key verified within this time is good; a revocation lags by as much.
_STALE: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Caller:
    """What a verified key may do, and for whom."""

    tenant_id: str
    key_id: str
    scopes: frozenset[str]
    max_class: ServiceClass
    bounds: Bounds = NO_BOUNDS

    def require(self, scope: str) -> None:
        if scope not in self.scopes:
            raise Forbidden(f"This key lacks the scope {scope!r}.")


class KeyRing:
    """One look-up per key and `fresh`, however many requests carry it."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        pepper: SecretStr,
        fresh: timedelta,
        defaults: Bounds = NO_BOUNDS,
    ) -> None:
        self._database = database
        self._clock = clock
        self._pepper = pepper
        self._fresh = fresh.total_seconds()
        self._known: OrderedDict[str, tuple[KeyRow, float]] = OrderedDict()
        self._bounds: dict[str, Bounds] = {}
        self._defaults = defaults
        self._asked: dict[str, asyncio.Task[KeyRow | None]] = {}

    async def verify(self, authorization: str | None) -> Caller:
        """Takes the header as it came. Raises `Unauthenticated`."""
        kind, _, text = (authorization or "").partition(" ")
        parts = parse_key(text.strip()) if kind.lower() == "bearer" else None
        if parts is None:
            raise Unauthenticated("Send an API key: Authorization: Bearer sk-…")
        key_id, secret = parts
        row = await self._find(key_id)
        if row is None or not is_secret_of(row, secret, self._pepper) or self._is_over(row):
            raise Unauthenticated("This API key is unknown, expired or revoked.")
        return self._caller(row)

    async def open_session(self, caller: Caller, expires_at: datetime) -> str:
        """A cookie for the console that stands for the caller's key. Raises `Unauthenticated`."""
        row = await self._find(caller.key_id)
        if row is None:
            raise Unauthenticated("This API key is unknown, expired or revoked.")
        return sessions.sign(row, expires_at, self._pepper)

    async def verify_session(self, token: str) -> Caller:
        """As `verify`, for the console's cookie: a revoked key ends its sessions."""
        session = sessions.parse(token)
        row = None
        if session is not None and session.expires_at > self._clock.now():
            row = await self._find(session.key_id)
        if session is None or row is None or not sessions.is_signed_by(session, row, self._pepper):
            raise Unauthenticated("The session has ended: sign in again.")
        if self._is_over(row):
            raise Unauthenticated("The session has ended: sign in again.")
        return self._caller(row)

    def _caller(self, row: KeyRow) -> Caller:
        scopes, best = frozenset(row.scopes), ServiceClass(row.max_class)
        return Caller(row.tenant_id, row.id, scopes, best, self._bounds.get(row.id, NO_BOUNDS))

    def _is_over(self, row: KeyRow) -> bool:
        return row.expires_at is not None and row.expires_at <= self._clock.now()

    async def _find(self, key_id: str) -> KeyRow | None:
        row, seen_at = self._known.get(key_id, (None, 0.0))
        age = self._clock.monotonic() - seen_at
        if row is not None and age < self._fresh:
            return row
        try:
            return await self._look_up(key_id)
        except StoreUnavailable:
            if row is not None and age < _STALE.total_seconds():
                return row
            raise

    async def _look_up(self, key_id: str) -> KeyRow | None:
        task = self._asked.get(key_id)
        if task is None:
            task = self._asked[key_id] = asyncio.create_task(self._ask(key_id))
            task.add_done_callback(lambda _: self._asked.pop(key_id, None))
        return await asyncio.shield(task)

    async def _ask(self, key_id: str) -> KeyRow | None:
        async with self._database.read() as connection:
            row = await access.find_key(connection, key_id)
            bounds = await self._bounds_of(connection, row)
        self._known.pop(key_id, None)
        self._bounds.pop(key_id, None)
        if row is not None:
            self._known[key_id] = (row, self._clock.monotonic())
            self._bounds[key_id] = bounds
            if len(self._known) > _REMEMBERED:
                forgotten, _ = self._known.popitem(last=False)
                self._bounds.pop(forgotten, None)
        return row

    async def _bounds_of(self, connection: AsyncConnection, row: KeyRow | None) -> Bounds:
        if row is None:
            return NO_BOUNDS
        found = await access.bounds(connection, tenant_id=row.tenant_id, key_id=row.id)
        return Bounds(found.tenant.over(self._defaults.tenant), found.key.over(self._defaults.key))
