"""Brokers for the contract tests: the in-process one, and RabbitMQ under a namespace of its own."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import amqp
import pytest
from kombu.connection import Connection
from pydantic import SecretStr

from core.settings import BrokerSettings
from queues import embedded_broker
from queues.topology import Topology

RABBITMQ = os.environ.get("PENSTOCK_TEST_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672//")
MODELS = ("tiny", "org/large")
KINDS = [pytest.param("embedded"), pytest.param("rabbitmq", marks=pytest.mark.services)]


@contextmanager
def broker_settings(kind: str, **changes: Any) -> Iterator[BrokerSettings]:
    """Settings of a broker with nothing in it; what the test makes there is deleted afterwards."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    url = f"memory-priority://{name}" if kind == "embedded" else RABBITMQ
    if kind == "rabbitmq":
        require_rabbitmq()
    settings = BrokerSettings(url=SecretStr(url), namespace=name, **changes)
    try:
        yield settings
    finally:
        if kind == "embedded":
            embedded_broker.forget(name)
        else:
            _delete(settings)


def require_rabbitmq() -> None:
    try:
        with Connection(RABBITMQ, connect_timeout=2) as connection:
            connection.transport.establish_connection().close()
    except (OSError, *amqp.Connection.connection_errors):
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no RabbitMQ at {RABBITMQ}")


def _delete(settings: BrokerSettings) -> None:
    topology = Topology(settings)
    with Connection(settings.url.get_secret_value()) as connection:
        for queue in (topology.dead, topology.webhooks, *topology.queues(MODELS)):
            with suppress(*connection.channel_errors):
                connection.channel().queue_delete(queue.name)
        for name in ("{}.jobs", "{}.dead", "{}.events", "{}.control.pidbox", "reply.{}.control.pidbox"):
            with suppress(*connection.channel_errors):
                connection.channel().exchange_delete(name.format(settings.namespace))
