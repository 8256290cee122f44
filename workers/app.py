"""The worker's composition root: `celery -A workers.app worker`."""

import os
import socket
from collections.abc import Callable

from celery import Celery

from core.logs import configure_logs
from core.metrics import Process
from core.settings import Settings, load_settings
from models.catalogue import AnyModel, Catalogue, find_catalogue
from queues.app import celery_app
from workers.deliveries import Receiver
from workers.engines.protocol import Engine
from workers.engines.registry import build_engine
from workers.metrics_port import shows_metrics
from workers.receiver import Dispatcher
from workers.webhooks.desk import Both, delivery_desk

EngineFor = Callable[[AnyModel], Engine]


def engine_of_this_machine(model: AnyModel) -> Engine:
    return build_engine(model, environ=os.environ)


def compose(
    settings: Settings,
    catalogue: Catalogue,
    *,
    webhooks: bool = False,
    engine_for: EngineFor = engine_of_this_machine,
) -> Celery:
    """The Celery application of a worker for the models that the settings choose.

    `webhooks`: it delivers them, too. That is for one process with everything in it, where Celery runs one
    worker at most; else `workers.webhooks.app` does. `engine_for` makes the engine of an entry.
    """
    models = chosen_models(settings, catalogue)
    app = celery_app(settings, [model.name for model in models], webhooks=webhooks)
    app.conf.worker_concurrency = sum(model.slots for model in models)

    def receiver() -> Receiver:
        engines = {model.name: engine_for(model) for model in models}
        dispatcher = Dispatcher(settings, models, engines, name=worker_name())
        return Both(dispatcher, delivery_desk(settings)) if webhooks else dispatcher

    app.receiver_factory = receiver
    return app


def chosen_models(settings: Settings, catalogue: Catalogue) -> list[AnyModel]:
    """The entries that this worker runs; raises `UnknownModel` for a name that is not served."""
    return [catalogue.get(name) for name in settings.worker.models or catalogue.names]


def worker_name() -> str:
    """Unique on its host and new at each start, so that a lease is never taken for an earlier life's."""
    return f"worker-{os.getpid()}@{socket.gethostname()}"


def __getattr__(name: str) -> Celery:
    """`app`, made when Celery asks for it: importing this module does no work."""
    if name != "app":
        raise AttributeError(name)
    settings = load_settings()
    configure_logs(settings.log)
    globals()["app"] = app = shows_metrics(
        compose(settings, find_catalogue(settings)), settings, Process.WORKER
    )
    return app
