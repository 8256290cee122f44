"""Celery's consumer with per-consumer prefetch, tied to our pool."""

import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import orjson
from celery.exceptions import CPendingDeprecationWarning, InvalidTaskError
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.consumer.control import Control as CeleryControl
from celery.worker.consumer.events import Events
from celery.worker.consumer.tasks import Tasks as CeleryTasks

from workers.acknowledgements import Acknowledgements

_EVENTS_EVERY: Final = 0.25  # seconds
_MOST_EVENTS: Final = 256  # in one message


class Tasks(CeleryTasks):  # type: ignore[misc]
    requires = (Events,)

    def qos_global(self, c: Any) -> bool:  # noqa: ARG002
        """Never: bulk must not use up premium's prefetch, and RabbitMQ 4.3 refuses global QoS."""
        return False


class Control(CeleryControl):  # type: ignore[misc]
    requires = (Tasks,)


class Consumer(CeleryConsumer):  # type: ignore[misc]
    """Without mingle, gossip and delayed delivery: the database tells workers what they must know."""

    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc]
        default_steps = (
            "celery.worker.consumer.connection:Connection",
            "celery.worker.consumer.events:Events",
            "celery.worker.consumer.heart:Heart",
            "celery.worker.consumer.agent:Agent",
            "celery.worker.consumer.consumer:Evloop",
            Tasks,
            Control,
        )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._next_flush = 0.0
        self._acks = Acknowledgements(self.call_soon)
        self.pool.attach(self)

    def create_task_handler(self, **options: Any) -> Callable[[Any], object]:
        """Celery's, but for our own tasks: acknowledged in groups, and their bodies read by orjson."""
        usual: Callable[[Any], object] = super().create_task_handler(**options)
        return self._handler(usual) if self.hub else usual

    def _handler(self, usual: Callable[[Any], object]) -> Callable[[Any], object]:
        ours, strategies, callbacks = self.app.decoders, self.strategies, self.on_task_message
        ack, reject = self._acks.ack, self._acks.reject

        def handle(message: Any) -> object:
            task = message.headers.get("task")
            if task not in ours or message.content_type != "application/json":
                return usual(message)
            try:
                message._decoded_cache = orjson.loads(message.body)  # noqa: SLF001 - where kombu keeps its own
            except ValueError:
                return usual(message)
            try:
                strategies[task](message, None, partial(ack, message), partial(reject, message), callbacks)
            except InvalidTaskError as error:
                return self.on_invalid_task(None, message, error)
            return None

        return handle

    def on_send_event_buffered(self) -> None:
        """Events gather for a moment: a job's three cost 320 µs of CPU in a message each, and 30 µs so."""
        now = time.monotonic()
        if self.hub and now >= self._next_flush:
            self._next_flush = now + _EVENTS_EVERY
            self.event_dispatcher.buffer_limit = _MOST_EVENTS
            self.hub.call_later(_EVENTS_EVERY, self._flush_events)

    def flush_events(self) -> None:
        """What gathered, before the connection goes; where it is gone already, nobody can hear of it."""
        with suppress(*self.connection_errors, *self.channel_errors):
            self._flush_events()

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        self._reset_hub()
        self._acks.forget()
        with warnings.catch_warnings():
            # Celery announces that it will cancel running tasks one day; our setting says not to.
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)

    def _reset_hub(self) -> None:
        """Celery's own reset runs what was to run soon, and ends at the first of it that fails.

        On a dead connection something may: the hub is deaf then, without a poller and its waker. What was to
        run after it is gone, so that the pool asks again for what it needs (`flush`).
        """
        while self.hub is not None:
            with suppress(*self.connection_errors, *self.channel_errors):
                self.hub.reset()
                return

    def cancel_active_requests(self) -> None:
        """A cold shutdown gives jobs back; to cancel them would end them for their callers."""
        self.pool.hurry()
