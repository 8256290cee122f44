"""The composition root of `penstock deliver`: `celery -A workers.webhooks.app worker`."""

from celery import Celery

from core.logs import configure_logs
from core.metrics import Process
from core.settings import Settings, load_settings
from queues.app import celery_app
from workers.metrics_port import shows_metrics
from workers.webhooks.desk import delivery_desk


def compose(settings: Settings) -> Celery:
    app = celery_app(settings, (), webhooks=True)
    app.conf.worker_concurrency = settings.webhooks.slots
    # A message in hand is under a lease: none waits here for a slot.
    app.conf.worker_prefetch_multiplier = 1
    app.receiver_factory = lambda: delivery_desk(settings)
    return app


def __getattr__(name: str) -> Celery:
    """`app`, made when Celery asks for it: importing this module does no work."""
    if name != "app":
        raise AttributeError(name)
    settings = load_settings()
    configure_logs(settings.log)
    globals()["app"] = app = shows_metrics(compose(settings), settings, Process.DELIVER)
    return app
