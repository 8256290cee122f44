"""Settings of the services that everything stands on: database, Redis, broker."""

from datetime import timedelta

from pydantic import Field, PositiveInt, SecretStr

from core.setting_types import Duration, Group


class DatabaseSettings(Group):
    url: str = Field(
        default="postgresql+asyncpg://penstock:penstock@127.0.0.1:5432/penstock",
        description="SQLAlchemy address: postgresql+asyncpg://… or sqlite+aiosqlite:///file.",
    )
    pool_size: PositiveInt = Field(default=8, description="Connections each process keeps open.")
    connect_timeout: Duration = Field(default=timedelta(seconds=3), description="Longest time to connect.")
    command_timeout: Duration = Field(
        default=timedelta(seconds=10), description="Longest time one statement may take."
    )


class RedisSettings(Group):
    url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="Redis address; memory:// is the in-process one of the embedded profile.",
    )
    connect_timeout: Duration = Field(default=timedelta(seconds=1), description="Longest time to connect.")
    command_timeout: Duration = Field(default=timedelta(seconds=2), description="Longest time of a command.")
    result_ttl: Duration = Field(
        default=timedelta(hours=1), description="How long a finished job stays hot; PostgreSQL keeps it."
    )
    events_ttl: Duration = Field(
        default=timedelta(hours=1), description="How long a job's event stream can be resumed."
    )
    events_length: PositiveInt = Field(default=4096, description="Events kept in a job's stream.")


class BrokerSettings(Group):
    url: SecretStr = Field(
        default=SecretStr("amqp://guest:guest@127.0.0.1:5672//"),
        description="RabbitMQ address, credentials included; memory-priority:// is the in-process broker.",
    )
    namespace: str = Field(
        default="penstock",
        pattern=r"^[a-z][a-z0-9.-]{0,40}$",
        description="Prefix of exchanges, queues and Redis keys. Celery events are one per virtual host.",
    )
    queue_type: str = Field(
        default="classic",
        pattern=r"^(classic|quorum)$",
        description="classic on one node, quorum in a cluster (priorities need RabbitMQ 4.3 there).",
    )
    queue_priorities: bool = Field(
        default=True, description="Set x-max-priority; turn off for quorum queues before RabbitMQ 4.3."
    )
    max_length: PositiveInt = Field(
        default=100_000, description="Messages a queue holds before it refuses; the last backstop."
    )
    connect_timeout: Duration = Field(default=timedelta(seconds=3), description="Longest time to connect.")
    confirm_timeout: Duration = Field(
        default=timedelta(seconds=5), description="Longest wait for the broker's confirms of one window."
    )
    heartbeat: Duration = Field(default=timedelta(seconds=10), description="AMQP heartbeat interval.")
