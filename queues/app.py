"""The Celery application: its settings, its queues, and the tasks that the pool runs on its loop."""

from collections.abc import Sequence
from typing import Any, Final, Never

from celery import Celery, signals, states
from celery.backends.base import DisabledBackend

from core.settings import BrokerSettings, Settings
from queues import amqp_transport, embedded_broker
from queues.messages import DELIVER, GENERATE, decode, decode_delivery
from queues.topology import Topology


class NoResults(DisabledBackend):  # type: ignore[misc]
    """Results live in the database; a revoke asks for a state all the same, once per id."""

    def get_state(self, task_id: str) -> str:  # noqa: ARG002
        return str(states.PENDING)

    def as_uri(self, *_: object, **__: object) -> str:
        return "disabled://"


def celery_app(settings: Settings, models: Sequence[str], *, webhooks: bool = False) -> Celery:
    """An application that consumes the queues of `models`, and that of due webhook deliveries.

    A composition root of a worker sets `receiver_factory` on it; `grace` is how long a worker may drain.
    """
    embedded_broker.register()
    signals.setup_logging.connect(_keep_logs)
    app = Celery("penstock", set_as_current=False)
    app.config_from_object(configuration(settings, models, webhooks=webhooks))
    app.receiver_factory = None
    app.grace = settings.worker.grace
    # What the pool's receiver runs, and how it reads each message; other tasks run on threads.
    app.decoders = {GENERATE: decode, DELIVER: decode_delivery}
    app.task(name=GENERATE, **_TASK_OPTIONS)(_generate)
    app.task(name=DELIVER, **_TASK_OPTIONS)(_deliver)
    return app


def _keep_logs(**_: Any) -> None:
    """Whoever answers this signal has set up logging; else Celery would silence all below a warning."""


def configuration(settings: Settings, models: Sequence[str], *, webhooks: bool = False) -> dict[str, Any]:
    topology = Topology(settings.broker)
    queues = topology.queues(models)
    return {
        **_FIXED,
        **_connection(settings.broker),
        # Events and control keep Celery's own names, so that any Flower and `celery inspect` see this worker;
        # two platforms that must not see each other take two virtual hosts.
        "task_default_queue": f"{topology.namespace}.tasks",
        "task_queues": [*queues, topology.webhooks] if webhooks else queues,
        "worker_prefetch_multiplier": settings.worker.prefetch_multiplier,
    }


def _connection(broker: BrokerSettings) -> dict[str, Any]:
    url = broker.url.get_secret_value()
    return {
        "broker_url": url,
        "broker_transport": amqp_transport.NAME if url.startswith("amqp://") else None,
        "broker_connection_timeout": broker.connect_timeout.total_seconds(),
        "broker_heartbeat": max(1, round(broker.heartbeat.total_seconds())),
    }


def _generate(job: dict[str, Any]) -> Never:  # noqa: ARG001
    raise RuntimeError("penstock.generate runs in workers.pool:AsyncioPool only")


def _deliver(delivery: dict[str, Any]) -> Never:  # noqa: ARG001
    raise RuntimeError("penstock.deliver runs in workers.pool:AsyncioPool only")


_TASK_OPTIONS: Final[dict[str, Any]] = {
    # A shared task would appear in every application of the process.
    "shared": False,
    "acks_late": True,
    "ignore_result": True,
}

_FIXED: Final[dict[str, Any]] = {
    "accept_content": ["json"],
    "task_serializer": "json",
    "event_serializer": "json",
    "timezone": "UTC",
    "enable_utc": True,
    "result_backend": "queues.app:NoResults",
    # Celery's Redis backend costs more than half of the throughput: 1,925 against 733 jobs/s.
    "task_ignore_result": True,
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_create_missing_queues": False,
    "worker_pool": "workers.pool:AsyncioPool",
    "worker_consumer": "workers.consumer:Consumer",
    "worker_send_task_events": True,
    "event_queue_ttl": 5.0,
    "event_queue_expires": 60.0,
    "worker_disable_rate_limits": True,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    # Quorum detection would only switch what the consumer already fixes (per-consumer prefetch).
    "worker_detect_quorum_queues": False,
    "worker_enable_prefetch_count_reduction": False,
    # Running jobs go on through a lost connection; their redelivered copies are adopted.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # The pool drains within the grace itself; Celery's soft shutdown sleeps on the thread that must ack.
    "worker_soft_shutdown_timeout": 0.0,
    "broker_connection_retry_on_startup": True,
    "broker_connection_retry": True,
    "broker_connection_max_retries": None,
    # A consumer timeout closes the channel only; without this the worker would exit.
    "broker_channel_error_retry": True,
}
