"""Celery's task pool: hands jobs to a receiver on an asyncio loop, and other tasks to a few threads.

A pool that is told of every message keeps Celery's requests, events, control and acknowledgement, and
lets jobs begin one by one as slots come free: 318 jobs/s where static batches of 256 made 76.
"""

# kombu says that it is typed and is not.
# mypy: disable-error-code="no-untyped-call"

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any, Final

import structlog
from celery.concurrency.base import BasePool, apply_target
from celery.exceptions import WorkerShutdown
from celery.platforms import EX_FAILURE
from celery.worker import state
from kombu.utils.encoding import safe_repr

from core.errors import PenstockError
from workers.deliveries import Delivery, Hand, Outbox, Receiver, Tag
from workers.hub import Hub
from workers.loop_thread import LoopThread

log = structlog.get_logger(__name__)

# After the grace, for what a receiver does last: store results, stop engines.
_CLOSING: Final = timedelta(seconds=10)
_THREADS: Final = 4


class AsyncioPool(BasePool):  # type: ignore[misc]
    """Celery calls it on the hub thread; `app.receiver_factory` makes what it feeds."""

    signal_safe = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.grace: timedelta = self.app.grace
        self._hub = Hub()
        self._outbox = Outbox(lambda: self._hub.call_soon(self._outbox.run))
        self._hand = Hand(self._outbox, self._terminate)
        self._loop = LoopThread("penstock-loop")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="penstock-task")
        self._inbox: deque[Delivery[Any]] = deque()
        self._taking = False
        self._closing = False
        self._stopped = False
        self._draining: asyncio.Task[None] | None = None
        self._receiver: Receiver | None = None

    def attach(self, consumer: Any) -> None:
        """The consumer tells whose thread effects run on."""
        self._hub.attach(consumer)

    def wake(self) -> None:
        """From any thread: the hub thread should look at Celery's stop flags."""
        self._hub.wake()

    # Life.

    def on_start(self) -> None:
        """Waits until a job could run. There is no connection yet, so no heartbeat is missed."""
        self._loop.start()
        starting = self._loop.submit(self._open())
        try:
            while not starting.done():
                state.maybe_shutdown()  # A model may load for minutes; SIGTERM must not wait for it.
                wait([starting], timeout=0.2)
            starting.result()
        except Exception as error:
            log.critical("receiver_failed", error=str(error), exc_info=error)
            self._shut()
            raise WorkerShutdown(EX_FAILURE) from error
        except SystemExit:
            self._shut()
            raise

    def on_close(self) -> None:
        self._closing = True

    def on_stop(self) -> None:
        """Drain while the hub keeps serving: heartbeats, acknowledgements, events."""
        if self._stopped or state.should_terminate:
            self.hurry()  # A signal handler calls this in the middle of the drain, or before `on_terminate`.
            return
        self._stopped = self._closing = True
        self._serve(self._drain())
        # A second pass writes the acknowledgements that the last effects asked for.
        self._serve(asyncio.sleep(0))
        self._hub.flush_events()
        self._shut()

    def on_terminate(self) -> None:
        """Cold: what is not settled goes back to the broker with the connection."""
        if not self._stopped:
            self._stopped = self._closing = True
            self._outbox.run()
            self._shut()

    def hurry(self) -> None:
        """End the drain now; what still runs is given back."""
        self._loop.call(self._stop_draining)

    def flush(self) -> None:
        """Celery's word for a lost connection, and also part of every orderly stop."""
        if not self._closing:
            self._hand.epoch += 1
            self._loop.call(self._forget, self._hand.epoch)
            # A wake-up may have been lost with the connection, and while one is believed none follows.
            self._hub.call_soon(self._outbox.run)

    # Work.

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Any = None,
        accept_callback: Any = None,
        **_: Any,
    ) -> Delivery[Any] | None:
        decode = self.app.decoders.get(args[0])
        if decode is None:
            self._threads.submit(self._run_task, target, args, kwargs or {}, callback, accept_callback)
            return None
        return self._receive(callback.__self__, decode)  # the Request whose `on_success` it is

    def terminate_job(self, pid: int, signal: object = None) -> None:  # noqa: ARG002
        self._terminate(pid)

    def _get_info(self) -> dict[str, Any]:
        info = {**super()._get_info(), "held": len(self._hand)}
        return info if self._receiver is None else {**info, **self._receiver.info()}

    def _receive(self, request: Any, decode: Callable[[dict[str, Any]], Any]) -> Delivery[Any] | None:
        if self._closing:
            state.task_ready(request)
            request.reject(requeue=True)
            return None
        try:
            envelope = decode(request.kwargs)
        except PenstockError as error:
            log.error("message_refused", task_id=request.id, error=str(error))  # noqa: TRY400
            state.task_ready(request)
            request.send_event("task-failed", exception=safe_repr(error), traceback="")
            request.reject(requeue=False)
            return None
        delivery = Delivery(envelope, Tag(request, self._hand.epoch), self._hand)
        self._inbox.append(delivery)
        if not self._taking:  # One wake-up for a whole burst.
            self._taking = True
            self._loop.call(self._take)
        return delivery

    def _run_task(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        callback: Any,
        accept_callback: Any,
    ) -> None:
        def accepted(pid: int, at: float) -> None:
            self._outbox.put(accept_callback, pid, at)

        def done(result: Any) -> None:
            self._outbox.put(callback, result)

        try:
            # The tracer looks for a current application otherwise, and this thread has none.
            apply_target(target, args, {**kwargs, "app": self.app}, done, accepted)
        except Exception:
            log.exception("task_not_traced", task=args[0])

    def _terminate(self, pid: int) -> None:
        self._loop.call(self._cancel, pid)

    # On the loop thread.

    async def _open(self) -> None:
        self._receiver = self.app.receiver_factory()
        await self._receiver.start()

    def _take(self) -> None:
        self._taking = False
        arrived = []
        while self._inbox:
            arrived.append(self._inbox.popleft())
        fresh = self._hand.take(arrived)
        if self._closing:
            for delivery in fresh:
                delivery.requeue()
        elif fresh and self._receiver is not None:
            self._receiver.take(fresh)

    def _cancel(self, pid: int) -> None:
        task_id = self._hand.find(pid)
        if task_id is not None and self._receiver is not None:
            self._receiver.cancel(task_id)

    def _forget(self, epoch: int) -> None:
        waiting = self._hand.waiting_from_before(epoch)
        if waiting and self._receiver is not None:
            self._hand.drop(self._receiver.forget(waiting))

    def _stop_draining(self) -> None:
        if self._draining is not None:
            self._draining.cancel()

    async def _drain(self) -> None:
        self._draining = asyncio.create_task(self._finish(self.grace))
        await asyncio.wait([self._draining], timeout=(self.grace + _CLOSING).total_seconds())
        if not self._draining.done():
            log.warning("drain_overran", held=len(self._hand))
        elif not self._draining.cancelled() and (error := self._draining.exception()):
            log.error("drain_failed", exc_info=error)
        for delivery in self._hand:
            delivery.requeue()

    async def _finish(self, grace: timedelta) -> None:
        tasks = asyncio.create_task(asyncio.to_thread(self._threads.shutdown, cancel_futures=True))
        if self._receiver is not None:
            await self._receiver.drain(grace)
        await tasks

    # On the hub thread.

    def _serve(self, work: Coroutine[Any, Any, None]) -> None:
        future = self._loop.submit(work)
        future.add_done_callback(lambda _: self._outbox.put(_nothing))
        while not future.done() or self._outbox:
            self._hub.serve(self._outbox)

    def _shut(self) -> None:
        if self._receiver is not None:
            closing = self._loop.submit(self._receiver.close())
            try:
                closing.result(_CLOSING.total_seconds())
            except Exception:
                log.exception("receiver_not_closed")
        self._loop.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _nothing() -> None: ...
