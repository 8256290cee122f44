"""The worker's heart: engines, desks and heartbeats behind the pool's `Receiver`."""

import asyncio
import math
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from core import metrics
from core.collector import spare_long_lived
from core.errors import StoreUnavailable
from core.logs import get_logger
from core.settings import Settings
from models.catalogue import AnyModel
from models.dialect import open_database
from queues.cancel_notices import CancelListener
from queues.event_writer import EventWriter
from queues.order import Rules
from queues.pressure_board import PressureBoard
from queues.ready_answers import answerers
from queues.redis import open_redis
from queues.similar.embedder import open_embedder
from queues.similar.feed import AnswerFeed
from queues.similar.index import AnswerIndex
from queues.template_book import TemplateBook
from queues.templates import find_templates
from workers.deliveries import Delivery
from workers.dispatch import Desk, Run
from workers.dispatch_policy import DispatchPolicy
from workers.engines.protocol import Engine, EngineHealth, EngineState
from workers.ledger import Ledger
from workers.runner import JobRunner, Limits, Stop
from workers.salts import Salts
from workers.vitals import Vitals

logger = get_logger(__name__)

_SUSPENDED: Final = 2  # heartbeats that one nap took: this process itself stood still


class Dispatcher:
    """Runs the jobs of this worker's models, one desk each. Everything happens on the pool's loop."""

    def __init__(
        self, settings: Settings, models: Sequence[AnyModel], engines: Mapping[str, Engine], *, name: str
    ) -> None:
        self._settings = settings
        self._models = models
        self._engines = engines
        self._name = name
        self._desks: dict[str, Desk] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False
        self._healths: dict[str, EngineHealth] = {}
        self.beats = 0
        self._blind_until = 0.0

    async def start(self) -> None:
        """Opens what it needs on this loop and starts the engines; returns when a job could run."""
        namespace = self._settings.broker.namespace
        self._database = open_database(self._settings.database, namespace=namespace)
        self._redis = open_redis(self._settings.redis, namespace=namespace)
        self._ledger = Ledger(self._database, worker=self._name, lease=self._settings.worker.lease)
        self._events = EventWriter.of(self._redis, self._settings)
        self._cancels = CancelListener(self._redis, namespace=namespace, on_cancel=self._cancel_job)
        self._board = PressureBoard(self._redis, namespace=namespace, stale=self._settings.overload.stale)
        await asyncio.gather(self._events.start(), self._board.start())
        self._open_answers(namespace)
        self._answers.start()
        await asyncio.gather(*(engine.start() for engine in self._engines.values()))
        self._desks = {model.name: self._desk(model) for model in self._models}
        self._vitals = Vitals(self._models, self._desks)
        self._healths = {name: await engine.health() for name, engine in self._engines.items()}
        with suppress(StoreUnavailable):
            await self._obey_holds()
        loops = [desk.serve() for desk in self._desks.values()]
        loops += [self._watch(name, engine) for name, engine in self._engines.items()]
        self._tasks = [asyncio.create_task(loop) for loop in (*loops, self._beat())]
        await self._cancels.start()
        spare_long_lived()
        logger.info("worker_ready", worker=self._name, models=list(self._desks))

    def take(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            desk = self._desks.get(delivery.envelope.model)
            if desk is None or self._draining:
                delivery.requeue()
            else:
                desk.take(delivery)

    def cancel(self, task_id: str) -> None:
        """An operator's revoke: the job is cancelled for its owner, too."""
        for desk in self._desks.values():
            delivery = desk.window.pop(task_id)
            if delivery is not None:
                self._cancel_for(delivery)
                delivery.revoked()
            for run in desk.running.values():
                if run.delivery.task_id == task_id:
                    self._cancel_for(run.delivery, then=(desk, run))

    def forget(self, task_ids: Collection[str]) -> Collection[str]:
        return [task_id for desk in self._desks.values() for task_id in desk.forget(task_ids)]

    async def drain(self, grace: timedelta) -> None:
        """Takes nothing more, finishes what runs within `grace`, and gives the rest back unharmed."""
        self._draining = True
        logger.info("worker_draining", running=sum(len(desk.running) for desk in self._desks.values()))
        with suppress(StoreUnavailable):
            await self._report("draining")
        for desk in self._desks.values():
            for delivery in desk.window.clear():
                delivery.requeue()
        await asyncio.gather(*(desk.finish_within(grace.total_seconds()) for desk in self._desks.values()))

    async def close(self) -> None:
        await self._cancels.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(StoreUnavailable):
            await self._ledger.sign_off()
        await asyncio.gather(*(engine.close() for engine in self._engines.values()))
        await self._answers.close()
        await self._board.close()
        await self._events.close()
        await self._redis.aclose()
        await self._database.close()

    def info(self) -> dict[str, Any]:
        return {
            name: {
                "slots": desk.slots,
                "running": len(desk.inside),
                "window": len(desk.window),
                "counts": dict(desk.counts),
            }
            for name, desk in self._desks.items()
        }

    def _salts(self) -> Salts:
        secret = self._settings.api.pepper.get_secret_value().encode()
        return Salts(secret, everybody=self._settings.worker.private_prefixes)

    def _desk(self, model: AnyModel) -> Desk:
        worker = self._settings.worker
        engine = self._engines[model.name]
        limits = Limits(worker.job_stall, worker.max_attempts, self._settings.upkeep.retention)
        return Desk(
            model=model.name,
            slots=model.slots,
            reserved=math.floor(model.slots * self._settings.order.reserved_premium),
            engine=engine,
            runner=JobRunner(engine, self._events, limits, chat=model.chat, salts=self._salts()),
            ledger=self._ledger,
            events=self._events,
            rules=Rules.of(self._settings.order),
            max_attempts=worker.max_attempts,
            keep=self._answers.offer,
            policy=DispatchPolicy(
                self._board,
                model,
                self._settings.overload,
                answerers=self._answerers,
                keep=self._settings.upkeep.retention,
            ),
        )

    def _open_answers(self, namespace: str) -> None:
        """Those who know answers that need no engine, and the feed that they learn from."""
        settings = self._settings.answers
        index = AnswerIndex(self._redis, namespace=namespace, settings=settings)
        revisions = {model.name: model.revision for model in self._models}
        embedder = open_embedder(settings.embedder)
        book = TemplateBook(self._database, find_templates(self._settings.overload.templates))
        self._answerers = answerers(self._settings, index, book, revisions=revisions, embedder=embedder)
        self._answers = AnswerFeed(index, settings, revisions, embedder)

    def _cancel_for(self, delivery: Delivery, *, then: tuple[Desk, Run] | None = None) -> None:
        async def cancel() -> None:
            envelope = delivery.envelope
            await self._ledger.cancel(envelope.tenant, envelope.id, keep=self._settings.upkeep.retention)
            if then is not None:
                desk, run = then
                desk.stop(run, Stop.CANCELLED)

        self._tasks.append(asyncio.create_task(cancel()))

    def _cancel_job(self, job_id: str) -> None:
        """Within milliseconds of the cancel; the heartbeat brings those that Redis lost."""
        for desk in self._desks.values():
            run = desk.running.get(job_id)
            if run is not None:
                desk.stop(run, Stop.CANCELLED)

    async def _watch(self, name: str, engine: Engine) -> None:
        """Apart from the heartbeat: an engine that is slow to answer must not cost any job its lease."""
        while True:
            await self._nap()
            try:
                self._healths[name] = await engine.health()
            except Exception:
                # What was known before stays: an engine without any news is hung in the end.
                logger.exception("engine_not_seen", model=name)

    async def _beat(self) -> None:
        """Every heartbeat: extend the leases, see what was lost or cancelled, say that we live."""
        while True:
            try:
                self._stop_stalled()
                await self._extend()
                await self._obey_holds()
                await self._offer_stuck()
                await self._report()
            except StoreUnavailable as error:
                metrics.HEARTBEATS_MISSED.inc()
                logger.warning("heartbeat_missed", reason=str(error))
            except Exception:
                # Whatever it was: without a heartbeat every job here would lose its lease, in silence.
                logger.exception("heartbeat_failed")
            self.beats += 1
            await self._nap()

    async def _obey_holds(self) -> None:
        held = await self._ledger.held_models()
        for name, desk in self._desks.items():
            desk.hold(held=name in held)

    async def _offer_stuck(self) -> None:
        """What waits behind a hung or absent engine for as long as a lease is anybody's."""
        lease = self._settings.worker.lease.total_seconds()
        for name, desk in self._desks.items():
            # Long answers move no job for minutes, but every token is progress of the engine.
            silent = time.monotonic() - self._healths[name].progressed_at > lease
            if silent and desk.is_stuck(lease):
                logger.warning("window_offered_again", model=desk.model, jobs=len(desk.window))
                await desk.offer_again()

    async def _extend(self) -> None:
        # Only what ran before the statement can be missing from its answer. What was stopped for good is
        # left out: if it cannot be given back, its lease must run out.
        before = [
            (desk, run)
            for desk in self._desks.values()
            for run in desk.running.values()
            if not run.is_stopped_by(Stop.STALLED, Stop.LOST)
        ]
        if not before:
            return
        leases = await self._ledger.extend([run.claim.view.id for _, run in before])
        held = {(lease.job_id, lease.attempt): lease for lease in leases}
        for desk, run in before:
            lease = held.get((run.claim.view.id, run.claim.view.attempt))
            if lease is None:
                # Settled meanwhile, or reaped: stopping a run that is over changes nothing.
                desk.stop(run, Stop.LOST)
            elif lease.cancel_requested:
                desk.stop(run, Stop.CANCELLED)

    def _stop_stalled(self) -> None:
        if time.monotonic() < self._blind_until:
            return
        limit = self._settings.worker.engine_stall.total_seconds()
        for name, desk in self._desks.items():
            if desk.running and time.monotonic() - self._healths[name].progressed_at > limit:
                desk.meter.stalled()
                logger.error("engine_stalled", model=desk.model, jobs=len(desk.running))
                for run in list(desk.running.values()):
                    desk.stop(run, Stop.STALLED)

    async def _nap(self) -> None:
        """Until the next heartbeat. A worker that was itself suspended judges no engine for a while."""
        began, every = time.monotonic(), self._settings.worker.heartbeat.total_seconds()
        await asyncio.sleep(every)
        if time.monotonic() - began > _SUSPENDED * every:
            self._blind_until = time.monotonic() + _SUSPENDED * every

    async def _report(self, state: str | None = None) -> None:
        healths = self._healths
        stats = await self._vitals.measure(healths)
        await self._ledger.heartbeat(
            slots={name: desk.slots for name, desk in self._desks.items()},
            # Not what is offered: the reconciler must not take it for safe.
            held={name: 0 if desk.is_offered else len(desk.window) for name, desk in self._desks.items()},
            state=state or ("draining" if self._draining else _worst(healths)),
            detail="; ".join(f"{name}: {h.detail}" for name, h in healths.items() if h.detail),
            stats=stats,
        )


def _worst(healths: Mapping[str, EngineHealth]) -> str:
    """Ready when every engine is; else the first state that is not."""
    others = [health.state for health in healths.values() if health.state is not EngineState.READY]
    return (others[0] if others else EngineState.READY).value
