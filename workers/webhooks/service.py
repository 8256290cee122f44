"""One delivery: prepare in a short transaction, call without one, settle in another."""

import random
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Final, Protocol

import httpcore
from standardwebhooks import Webhook

from core.clock import Clock
from core.errors import PenstockError
from core.logs import get_logger
from core.settings import WebhookSettings
from core.tracing import tracing
from models.dialect import Database
from models.repositories import webhook_deliveries
from models.repositories.webhook_deliveries import Limits, Outcome, Prepared
from models.webhook_secrets import Vault
from queues.targets import Target, Targets
from queues.webhook_schedule import again_in, retry_after
from workers.webhooks.client import Reply

logger = get_logger(__name__)

_LONGEST_ERROR: Final = 256
_AGENT: Final = "Penstock-Webhooks/1.0"
# What a tenant is told of a call without an answer; the first that fits.
_FAILURES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (httpcore.ConnectTimeout, "no connection in time"),
    (httpcore.ConnectError, "the connection was refused or could not be secured"),
    (httpcore.TimeoutException, "no answer in time"),
    (TimeoutError, "no answer in time"),
    (httpcore.NetworkError, "the connection was lost"),
    (httpcore.ProtocolError, "no whole HTTP answer came"),
)


class Client(Protocol):
    async def post(self, target: Target, body: bytes, headers: Mapping[str, str]) -> Reply: ...


class DeliveryService:
    """Knows nothing of Celery: whoever has a delivery's id and claim may ask for it."""

    def __init__(
        self,
        database: Database,
        client: Client,
        *,
        targets: Targets,
        vault: Vault,
        clock: Clock,
        settings: WebhookSettings,
    ) -> None:
        self._database = database
        self._client = client
        self._targets = targets
        self._vault = vault
        self._clock = clock
        self._settings = settings
        self._limits = Limits.of(settings)
        self._gone: set[str] = set()  # answered 410, and the database does not know it yet

    async def deliver(self, delivery_id: str, claim: int) -> str:
        """Makes one call and says what came of it. Raises `StoreUnavailable`."""
        async with self._database.begin() as connection:
            sending = await webhook_deliveries.prepare(
                connection, delivery_id, claim, lease=self._settings.lease, traced=tracing().is_on
            )
        if sending is None or _receiver(sending) in self._gone:
            # The row of a receiver that is gone is looked at again when its lease ends, and cancelled.
            return "dropped"
        with tracing().span("webhook.deliver", "client", parent=sending.trace) as span:
            outcome = await self._call(sending)
            span.note(delivery=sending.id, tenant=sending.tenant_id, attempt=sending.tries + 1)
            span.note(status_code=outcome.status_code, outcome=_word(outcome))
        if outcome.is_gone:
            self._gone.add(_receiver(sending))
        try:
            return await self._settle(sending, outcome)
        finally:
            self._gone.discard(_receiver(sending))

    async def _settle(self, sending: Prepared, outcome: Outcome) -> str:
        async with self._database.begin() as connection:
            settled = await webhook_deliveries.settle(
                self._database, connection, sending, outcome, self._limits
            )
        if not settled:
            logger.warning("delivery_fenced_off", delivery=sending.id)
            return "fenced"
        return _word(outcome)

    async def _call(self, sending: Prepared) -> Outcome:
        started_at, started = self._clock.now(), time.monotonic()
        reply, error = None, None
        try:
            target = self._targets.parse(sending.url)
            headers = self._headers(sending, started_at)
            reply = await self._client.post(target, sending.body.encode(), headers)
        except Exception as failure:  # noqa: BLE001 - the edge of a task: a row records what happened
            error = _explain(failure, sending)
        return self._outcome(sending, reply, error, started_at, (time.monotonic() - started) * 1000)

    def _headers(self, sending: Prepared, at: datetime) -> dict[str, str]:
        if sending.secret is None:
            raise PenstockError("there is no secret to sign with; rotate it")
        secrets = self._vault.live(sending.secret, at)
        return {
            "Content-Type": "application/json",
            "User-Agent": _AGENT,
            "webhook-id": sending.event_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": sign(secrets, sending.event_id, at, sending.body),
            **tracing().headers(),
        }

    def _outcome(
        self,
        sending: Prepared,
        reply: Reply | None,
        error: str | None,
        started_at: datetime,
        duration_ms: float,
    ) -> Outcome:
        status = reply.status_code if reply else None
        succeeded = status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
        is_gone = status == HTTPStatus.GONE
        pause = None
        if not succeeded and not is_gone:
            now = self._clock.now()
            pause = again_in(
                sending.tries + 1,
                schedule=self._settings.schedule,
                left=sending.since + self._settings.give_up - now,
                asked=retry_after(reply.retry_after, now) if reply else None,
                dice=random.random(),  # noqa: S311 - spreads calls, guards nothing
            )
        return Outcome(started_at, duration_ms, status, error, succeeded, pause, is_gone)


def sign(secrets: Sequence[str], event_id: str, at: datetime, body: str) -> str:
    """One signature for each secret that is live, as Standard Webhooks has it during a rotation."""
    return " ".join(Webhook(secret).sign(event_id, at, body) for secret in secrets)


def _receiver(sending: Prepared) -> str:
    return sending.endpoint_id or f"{sending.tenant_id} {sending.url}"


def _explain(failure: Exception, sending: Prepared) -> str:
    if isinstance(failure, PenstockError):
        return str(failure)[:_LONGEST_ERROR]
    for kind, text in _FAILURES:
        if isinstance(failure, kind):
            return text
    logger.error("delivery_broke", delivery=sending.id, exc_info=failure)
    return "an error on our side"


def _word(outcome: Outcome) -> str:
    if outcome.succeeded:
        return "delivered"
    return "failed" if outcome.again_in is None else "retrying"
