"""A real worker around the simulated engine: what the platform costs, with an engine that costs nothing.

Run: python -m celery -A benchmarks.simulated_worker worker
BENCH_FIRST_TOKEN_MS and BENCH_TOKEN_MS make its engine slower than instant.
"""

import os
from datetime import timedelta

from celery import Celery

from core.logs import configure_logs
from core.metrics import Process
from core.settings import load_settings
from models.catalogue import AnyModel, find_catalogue
from tests.fakes.simulated_engine import Latency, SimulatedEngine
from workers.app import compose
from workers.metrics_port import shows_metrics


def _milliseconds(name: str) -> timedelta:
    return timedelta(milliseconds=float(os.environ.get(name, "0")))


def simulated(model: AnyModel) -> SimulatedEngine:
    latency = Latency(_milliseconds("BENCH_FIRST_TOKEN_MS"), _milliseconds("BENCH_TOKEN_MS"))
    return SimulatedEngine(latency, slots=model.slots, context_length=model.context_length or 8192)


def __getattr__(name: str) -> Celery:
    """`app`, made when Celery asks for it."""
    if name != "app":
        raise AttributeError(name)
    settings = load_settings()
    configure_logs(settings.log)
    app = compose(settings, find_catalogue(settings), engine_for=simulated)
    globals()["app"] = app = shows_metrics(app, settings, Process.WORKER)
    return app
