"""The end of a run: what is recorded of it, logged, and told to the broker."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from core.errors import EngineUnavailable, EngineUnreachable, PenstockError, StoreUnavailable
from core.logs import get_logger
from models.lifecycle import Status
from models.repositories import dead_letters
from models.repositories.execution import Ending
from models.views import JobView
from workers.deliveries import Delivery
from workers.ledger import Settled
from workers.runner import Discard, GiveBack, Outcome

logger = get_logger(__name__)

_HOLD_RESULTS: Final = 60.0  # seconds; past the lease the fence decides whose result counts

T = TypeVar("T")


def about(job: JobView) -> dict[str, Any]:
    """What every log event of a job names. Never what was asked, and no message of an error: it may quote."""
    return {"job": job.id, "tenant": job.tenant_id, "attempt": job.attempt, "model": job.model}


def tell(job: JobView, ending: Ending) -> None:
    """Good ends are many and all alike: they are told at the level debug."""
    if ending.status is Status.COMPLETED:
        logger.debug("job_completed", **about(job))
    else:
        code = (ending.error or {}).get("code")
        logger.info("job_ended", status=ending.status.value, code=code, **about(job))


def engine_failed(outcome: Outcome) -> bool:
    match outcome:
        case GiveBack():
            return outcome.reason in {EngineUnavailable.code, EngineUnreachable.code}
        case Ending():
            return (outcome.error or {}).get("code") == dead_letters.CODE
        case Discard():
            return False


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """A result in hand outlives a short outage of the database."""
    with suppress(StoreUnavailable):
        return await work()  # Tenacity costs a twentieth of a worker's CPU, so it comes when it is needed.
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(StoreUnavailable),
        wait=wait_exponential_jitter(multiplier=0.1, max=2.0, jitter=0.1),
        stop=stop_after_delay(_HOLD_RESULTS),
        reraise=True,
    ):
        with attempt:
            return await work()
    raise AssertionError("the last attempt raises")


def acknowledge(delivery: Delivery, ending: Ending) -> None:
    match ending.status:
        case Status.COMPLETED:
            tokens = (ending.usage or {}).get("completion_tokens", 0)
            delivery.succeeded(f"completed: {tokens} tokens")
        case Status.CANCELLED:
            delivery.revoked()
        case _:
            # Not the message: an engine's may quote the request, and events are everybody's.
            delivery.failed(PenstockError(str((ending.error or {}).get("code"))))


def finished(view: JobView, ending: Ending, settled: Settled) -> JobView:
    version, finished_at = settled
    return replace(
        view,
        status=ending.status,
        version=version,
        finished_at=finished_at,
        expires_at=ending.expires_at,
        output=ending.output,
        usage=ending.usage,
        timings=ending.timings,
        error=ending.error,
        degradation=ending.degradation,
    )
