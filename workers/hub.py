"""The thread that owns the broker's connection, whether Celery runs an event loop there or blocks on it."""

from collections.abc import Callable
from typing import Any, Final

import structlog

from workers.deliveries import Outbox

_LONGEST_WAIT: Final = 0.05  # seconds

log = structlog.get_logger(__name__)


class Hub:
    """AMQP has kombu's hub; the in-process transport has none and is woken through itself."""

    def __init__(self) -> None:
        self._consumer: Any = None
        self._is_broken = False

    def attach(self, consumer: Any) -> None:
        self._consumer = consumer

    def call_soon(self, function: Callable[[], None]) -> None:
        """From any thread: run this on the hub thread."""
        consumer = self._consumer
        if consumer is None:
            return
        consumer.call_soon(function)
        if consumer.hub is None:
            self.wake()

    def wake(self) -> None:
        """From any thread: end the hub thread's wait."""
        consumer = self._consumer
        if consumer.hub is not None:
            consumer.hub.call_soon(_nothing)
        elif (connection := consumer.connection) is not None:
            getattr(connection.transport, "wake", _nothing)()

    def flush_events(self) -> None:
        """On the hub thread: Celery events that still gather are sent."""
        if self._consumer is not None and not self._is_broken:
            self._consumer.flush_events()

    def serve(self, outbox: Outbox) -> None:
        """On the hub thread, once Celery left its loop there: wait for effects, and run them."""
        if outbox or self._consumer is None or self._consumer.hub is None or self._is_broken:
            outbox.filled.wait(_LONGEST_WAIT)
            outbox.run()
            return
        try:
            # The hub runs what is ready and then sleeps, even when that was all there is.
            self._consumer.hub.call_later(_LONGEST_WAIT, _nothing)
            self._consumer.hub.run_once()
        except (*self._consumer.connection_errors, *self._consumer.channel_errors) as error:
            # Nothing can be acknowledged any more; the results are stored, and copies will find them.
            log.warning("connection_lost_while_draining", error=repr(error))
            self._is_broken = True


def _nothing() -> None: ...
