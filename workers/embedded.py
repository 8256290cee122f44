"""A worker inside another process: Celery's controller on a thread, without signal handlers."""

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from celery.worker import WorkController, state

from core.errors import ConfigurationMistake, Unavailable

# Celery keeps a worker's state in a module: one worker at a time in a process.
_only_one = threading.Lock()

_BETWEEN_WAKES: Final = 0.05  # seconds


class EmbeddedWorker:
    """`start` returns when it consumes, `stop` drains as SIGTERM would. Both block: not on a loop."""

    def __init__(
        self, app: Any, *, hostname: str, concurrency: int, queues: Sequence[str] | None = None
    ) -> None:
        self._app = app
        self._options = {"hostname": hostname, "concurrency": concurrency, "queues": queues}
        self._thread = threading.Thread(target=self._run, name="penstock-worker", daemon=True)
        self._settled = threading.Event()
        self._controller: Any = None
        self._ready = False

    def start(self, timeout: timedelta = timedelta(minutes=10)) -> None:
        """Raises `Unavailable` when the worker stopped instead, or is not ready in time."""
        if not _only_one.acquire(blocking=False):
            raise ConfigurationMistake("A worker already runs in this process; start another process.")
        state.should_stop = state.should_terminate = None
        self._thread.start()
        if not self._settled.wait(timeout.total_seconds()):
            self.stop(timedelta(0))
            raise Unavailable(f"The worker was not ready within {timeout.total_seconds():.0f} s.")
        if not self._ready:
            self._thread.join()
            raise Unavailable("The worker could not start; its log says why.")

    def stop(self, grace: timedelta | None = None) -> None:
        """Finish within `grace` (the application's, when not given) and give the rest back."""
        if grace is not None and self._controller is not None:
            self._controller.pool.grace = grace
        if self._thread.is_alive():
            state.should_stop = 0
        while self._thread.is_alive():
            if self._ready:  # Celery's blocking loop waits once more after it saw the flag.
                self._controller.pool.wake()
            self._thread.join(_BETWEEN_WAKES)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._controller = WorkController(app=self._app, ready_callback=self._on_ready, **self._options)
            self._controller.start()
        finally:
            state.should_stop = state.should_terminate = None
            state.reset_state()
            _only_one.release()
            self._settled.set()

    def _on_ready(self, _consumer: Any) -> None:
        self._ready = True
        self._settled.set()
