"""What tenants do with their endpoints and secrets: checked, sealed, and written in one transaction each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from core.errors import Conflict, NotFound
from core.ids import new_id
from models.dialect import Database
from models.repositories import delivery_log, webhook_endpoints, webhook_events
from models.repositories.delivery_log import Delivery
from models.repositories.webhook_endpoints import EndpointRow
from models.repositories.webhook_events import Target
from models.webhook_secrets import SecretRow, Vault, new_secret
from queues.targets import Targets

_MOST: Final = 50  # endpoints of a tenant: each costs a row for every job that ends
_REMEMBERED: Final = 100_000


@dataclass(frozen=True, slots=True)
class NewSecret:
    """Shown once. `previous_until`: the one before signs too until then."""

    secret: str
    previous_until: datetime | None


class Webhooks:
    """Every method is for one tenant; what is another's is `NotFound`."""

    def __init__(self, database: Database, *, targets: Targets, vault: Vault, overlap: timedelta) -> None:
        self._database = database
        self._targets = targets
        self._vault = vault
        self._overlap = overlap
        self._have_secret: set[str] = set()

    async def admit_job_url(self, tenant_id: str, url: str) -> None:
        """Raises `TargetRefused`. Sees to it that there is a secret to sign with."""
        await self._targets.admit(url, "webhook.url")
        if tenant_id in self._have_secret:
            return
        async with self._database.begin() as connection:
            await webhook_endpoints.keep_secret(
                self._database, connection, self._sealed(tenant_id, tenant_id)
            )
        if len(self._have_secret) >= _REMEMBERED:
            self._have_secret.clear()
        self._have_secret.add(tenant_id)

    async def create(
        self, tenant_id: str, *, url: str, events: Sequence[str], description: str, now: datetime
    ) -> tuple[EndpointRow, str]:
        """The endpoint and its secret. Raises `TargetRefused` and `Conflict`."""
        await self._targets.admit(url, "url")
        endpoint = EndpointRow(new_id("whep"), tenant_id, url, list(events), description, now)
        secret = new_secret()
        async with self._database.begin() as connection:
            if await webhook_endpoints.count(connection, tenant_id) >= _MOST:
                raise Conflict(f"There are {_MOST} endpoints, which is the most; delete one first.")
            await webhook_endpoints.add(connection, endpoint, self._sealed(endpoint.id, tenant_id, secret))
        return endpoint, secret

    async def list(self, tenant_id: str) -> list[EndpointRow]:
        async with self._database.read() as connection:
            return await webhook_endpoints.all_of(connection, tenant_id)

    async def read(self, tenant_id: str, endpoint_id: str) -> EndpointRow:
        async with self._database.read() as connection:
            found = await webhook_endpoints.read(connection, tenant_id, endpoint_id)
        if found is None:
            raise NotFound("There is no such endpoint.")
        return found

    async def change(
        self, tenant_id: str, endpoint_id: str, values: Mapping[str, Any], *, enabled: bool | None
    ) -> EndpointRow:
        """Raises `TargetRefused`."""
        await self.read(tenant_id, endpoint_id)
        if "url" in values:
            await self._targets.admit(values["url"], "url")
        async with self._database.begin() as connection:
            await webhook_endpoints.change(connection, endpoint_id, values, enabled=enabled)
        return await self.read(tenant_id, endpoint_id)

    async def remove(self, tenant_id: str, endpoint_id: str) -> None:
        await self.read(tenant_id, endpoint_id)
        async with self._database.begin() as connection:
            await webhook_endpoints.remove(connection, endpoint_id)

    async def rotate_secret(self, tenant_id: str, endpoint_id: str | None) -> NewSecret:
        """Of an endpoint, or with None the default one, which signs for the URLs of single jobs."""
        if endpoint_id is not None:
            await self.read(tenant_id, endpoint_id)
        secret = new_secret()
        row = self._sealed(endpoint_id or tenant_id, tenant_id, secret)
        async with self._database.begin() as connection:
            until = await webhook_endpoints.rotate_secret(
                self._database, connection, row, overlap=self._overlap
            )
        return NewSecret(secret, until)

    async def test(self, tenant_id: str, endpoint_id: str, *, now: datetime, keep: timedelta) -> Delivery:
        """Sends a `webhook.test`. Raises `Conflict` for a disabled endpoint."""
        endpoint = await self.read(tenant_id, endpoint_id)
        _refuse_disabled(endpoint)
        target = Target(endpoint.url, lane=endpoint.id, endpoint_id=endpoint.id)
        async with self._database.begin() as connection:
            delivery_id = await webhook_events.tell_test(connection, tenant_id, target, at=now, keep=keep)
        return await self.delivery(tenant_id, delivery_id)

    async def delivery(self, tenant_id: str, delivery_id: str) -> Delivery:
        async with self._database.read() as connection:
            found = await delivery_log.read(connection, tenant_id, delivery_id)
        if found is None:
            raise NotFound("There is no such delivery.")
        return found

    async def redeliver(self, tenant_id: str, delivery_id: str) -> Delivery:
        """The same event, byte for byte and under its id. Raises `Conflict` where that cannot be."""
        delivery = await self.delivery(tenant_id, delivery_id)
        if delivery.is_erased:
            raise Conflict("The job was erased, and its event with it.")
        if delivery.endpoint_id is not None:
            try:
                _refuse_disabled(await self.read(tenant_id, delivery.endpoint_id))
            except NotFound:
                raise Conflict("The endpoint was deleted.") from None
        async with self._database.begin() as connection:
            if not await delivery_log.send_again(connection, tenant_id, delivery_id):
                raise Conflict("The delivery is on its way.")
        return await self.delivery(tenant_id, delivery_id)

    def _sealed(self, owner: str, tenant_id: str, secret: str | None = None) -> SecretRow:
        return SecretRow(owner, tenant_id, self._vault.seal(secret or new_secret(), owner))


def _refuse_disabled(endpoint: EndpointRow) -> None:
    if endpoint.disabled_at is not None:
        raise Conflict("The endpoint is disabled; enable it first.")
