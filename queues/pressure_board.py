"""The policy's last word on every model, as a process reads it from Redis twice a second."""

import asyncio
import time
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from typing import Any, Final

import orjson

from core.logs import get_logger
from models.degradation import Level
from queues.policy.pressure import Pressure, Reading
from queues.policy.state import State, Verdict
from queues.redis import REDIS_DOWN, Redis

logger = get_logger(__name__)

EVERY: Final = 0.5  # seconds
_KEEP: Final = timedelta(minutes=10)
_TOGETHER: Final = 0.05  # seconds that count as one moment
_MOST_TOGETHER: Final = 600


def pressure_key(namespace: str) -> str:
    return f"{namespace}:pressure"


def counters_key(namespace: str) -> str:
    """A hash of counters that only grow: what was asked for, what started, how late its first token came."""
    return f"{namespace}:counters"


@dataclass(slots=True)
class _Admitted:
    """Jobs and tokens that were let in within a moment."""

    began: float
    jobs: int = 0
    tokens: int = 0


class PressureBoard:
    """`verdict` answers at once, from memory; a task refreshes it and hands over what was asked for.

    What was known last holds when no news comes: marked stale, never forgotten.
    """

    def __init__(self, redis: Redis, *, namespace: str, stale: timedelta) -> None:
        self._redis = redis
        self._namespace = namespace
        self._stale = stale.total_seconds()
        self._verdicts: dict[str, Verdict] = {}
        self._admitted: defaultdict[tuple[str, str], deque[_Admitted]] = defaultdict(deque)
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def start(self) -> None:
        await self._refresh()
        self._task = asyncio.create_task(self._run(), name="pressure-board")

    async def close(self) -> None:
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def verdict(self, model: str) -> Verdict | None:
        """None where nothing was ever known of the model."""
        found = self._verdicts.get(model)
        if found is None or time.time() - found.pressure.at <= self._stale:
            return found
        return replace(found, pressure=replace(found.pressure, is_stale=True))

    def ahead(self, model: str, service_class: str) -> tuple[int, int]:
        """Jobs and tokens that this process let in since the last reading, which knows nothing of them."""
        admitted = self._admitted[model, service_class]
        return sum(one.jobs for one in admitted), sum(one.tokens for one in admitted)

    def note_admitted(self, model: str, service_class: str, cost: int) -> None:
        admitted, now = self._admitted[model, service_class], time.time()
        # While no reading comes at all, the last one takes the rest.
        if not admitted or (now - admitted[-1].began > _TOGETHER and len(admitted) < _MOST_TOGETHER):
            admitted.append(_Admitted(now))
        admitted[-1].jobs += 1
        admitted[-1].tokens += cost

    def note_offered(self, model: str, tokens: int) -> None:
        """What premium and standard asked for, whatever they get."""
        self._counts[f"{model}\x1foffered"] += tokens

    def note_started(self, model: str, service_class: str, cost: int) -> None:
        self._counts[f"{model}\x1fstarted/{service_class}"] += cost

    def note_first_token(self, model: str, milliseconds: float) -> None:
        """From the submission on."""
        self._counts[f"{model}\x1ffirsts"] += 1
        self._counts[f"{model}\x1ffirst_ms"] += round(milliseconds)

    async def _run(self) -> None:
        # Python 3.11's wait_for, in fakeredis, can swallow a cancellation; the flag ends the loop then.
        while not self._is_closed:
            await asyncio.sleep(EVERY)
            await self._refresh()

    async def _refresh(self) -> None:
        counts, self._counts = self._counts, defaultdict(int)
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for name, amount in counts.items():
                    pipeline.hincrby(counters_key(self._namespace), name, amount)
                pipeline.get(pressure_key(self._namespace))
                *_, document = await pipeline.execute()
        except REDIS_DOWN as error:
            logger.debug("pressure_unknown", reason=type(error).__name__)
            return
        if document:
            self._learn(decode(document))

    def _learn(self, verdicts: dict[str, Verdict]) -> None:
        for model, verdict in verdicts.items():
            for key, admitted in self._admitted.items():
                while key[0] == model and admitted and admitted[0].began <= verdict.pressure.at:
                    admitted.popleft()
        self._verdicts = {**self._verdicts, **verdicts}


async def publish(redis: Redis, namespace: str, verdicts: dict[str, Verdict]) -> None:
    """Raises what Redis raises when it is down."""
    await redis.set(pressure_key(namespace), encode(verdicts), px=_KEEP)


async def read(redis: Redis, namespace: str) -> dict[str, Verdict]:
    document = await redis.get(pressure_key(namespace))
    return decode(document) if document else {}


def encode(verdicts: dict[str, Verdict]) -> bytes:
    return orjson.dumps(
        {
            model: {
                "state": asdict(verdict.state) | {"shed": sorted(verdict.state.shed)},
                "pressure": asdict(verdict.pressure),
            }
            for model, verdict in verdicts.items()
        }
    )


def decode(document: bytes | str) -> dict[str, Verdict]:
    """Another process wrote it, perhaps of another version: what is not understood is left out."""
    verdicts: dict[str, Verdict] = {}
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        for model, one in orjson.loads(document).items():
            verdicts[model] = Verdict(_state(one["state"]), _pressure(one["pressure"]))
    return verdicts


def _state(document: dict[str, Any]) -> State:
    values = _known(State, document)
    return State(**values | {"level": Level(values["level"]), "shed": frozenset(values["shed"])})


def _pressure(document: dict[str, Any]) -> Pressure:
    values = _known(Pressure, document)
    classes = {name: Reading(**_known(Reading, one)) for name, one in values["classes"].items()}
    return Pressure(**values | {"classes": classes})


def _known(kind: type[Any], document: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in document.items() if name in names}
