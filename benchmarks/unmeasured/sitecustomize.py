"""The platform without its metrics and Celery events: what `benchmarks.observability` compares with.

Python imports this module before anything else when its folder is on PYTHONPATH.
"""

from typing import Any

import celery.events.dispatcher
import prometheus_client
import prometheus_client.metrics

import api.meter
import queues.observer
import queues.submission
import workers.meter
import workers.vitals


def _nothing(*_: Any, **__: Any) -> None: ...


def _itself(metric: Any, *_: Any, **__: Any) -> Any:
    """No child is looked up either."""
    return metric


async def _pass(self: Any, scope: Any, receive: Any, send: Any) -> None:
    await self._app(scope, receive, send)


async def _no_stats(*_: Any) -> dict[str, Any]:
    return {}


async def _no_look(_: Any) -> int:
    return 0


prometheus_client.metrics.MetricWrapperBase.labels = _itself  # type: ignore[method-assign]
for _metric, _methods in (
    (prometheus_client.Counter, ("inc",)),
    (prometheus_client.Gauge, ("set", "inc", "dec", "clear")),
    (prometheus_client.Histogram, ("observe",)),
):
    for _method in _methods:
        setattr(_metric, _method, _nothing)
celery.events.dispatcher.EventDispatcher.send = _nothing
api.meter.RequestMeter.__call__ = _pass  # type: ignore[method-assign]
queues.submission.count_accepted = _nothing
queues.observer.Observer.show_when_due = _no_look  # type: ignore[method-assign]
workers.vitals.Vitals.measure = _no_stats  # type: ignore[method-assign, assignment]
workers.meter.DeskMeter.ended = _nothing  # type: ignore[method-assign]
workers.meter.DeskMeter.claimed = _nothing  # type: ignore[method-assign]
