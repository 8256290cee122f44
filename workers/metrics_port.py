"""When a Celery process opens its metrics port: as a worker, and not whenever its application is loaded."""

from typing import Any

from celery import Celery

from core.metrics.port import open_port
from core.settings import Settings
from core.tracing import start_tracing


def shows_metrics(app: Celery, settings: Settings, process: str) -> Celery:
    """`celery inspect` loads the same application beside a worker, and must not take its port."""
    make_receiver = app.receiver_factory

    def opened() -> Any:
        open_port(settings.metrics, process)
        start_tracing(settings.tracing, process)
        return make_receiver()

    app.receiver_factory = opened
    return app
