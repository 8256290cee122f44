"""Every setting: nested, frozen, typed with its unit, read from the environment once.

`PENSTOCK_BROKER__URL` sets `settings.broker.url`. A composition root calls `load_settings` and hands
down the slice that a part needs; nothing else reads the environment.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.batch_settings import BatchSettings, StorageSettings
from core.console_settings import ConsoleSettings
from core.errors import ConfigurationMistake
from core.http_settings import CompressionSettings
from core.overload_settings import OverloadSettings
from core.setting_types import Duration, Group, parse_duration

__all__ = ["Duration", "Group", "Settings", "load_settings", "parse_duration"]

_ALIKE: Final = 0.6  # of 1: less than that is no misspelling
PREFIX: Final = "PENSTOCK_"
DEVELOPMENT_PEPPER: Final = "development-pepper"

ServiceClassName = Literal["premium", "standard", "bulk"]

# 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h after the attempt before.
STANDARD_SCHEDULE: Final = tuple(
    timedelta(seconds=pause) for pause in (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
)


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


class RelaySettings(Group):
    window: PositiveInt = Field(default=256, description="Jobs published before confirms are awaited.")
    horizon: Duration = Field(
        default=timedelta(milliseconds=250),
        description="Work released ahead of the workers, at the measured rate; never less than their slots.",
    )
    idle_depth: PositiveInt = Field(
        default=32, description="Jobs released per model and class while no worker is known."
    )
    poll: Duration = Field(
        default=timedelta(seconds=1), description="Looks for work this often even when nothing wakes it."
    )


class ClassWeights(Group):
    """Shares of the classes, by token cost, while all of them have work."""

    premium: PositiveInt = Field(default=8, description="Weight of premium jobs.")
    standard: PositiveInt = Field(default=3, description="Weight of standard jobs.")
    bulk: PositiveInt = Field(default=1, description="Weight of bulk jobs.")


class ClassAgeing(Group):
    """A job that waited this long goes first in its class, and its class gets its whole weight."""

    premium: Duration = Field(default=timedelta(minutes=1), description="Ageing bound of premium jobs.")
    standard: Duration = Field(default=timedelta(minutes=5), description="Ageing bound of standard jobs.")
    bulk: Duration = Field(default=timedelta(minutes=30), description="Ageing bound of bulk jobs.")


class OrderSettings(Group):
    weights: ClassWeights = ClassWeights()
    reserved_premium: float = Field(
        default=0.125, ge=0, lt=1, description="Part of a worker's slots that only premium may take."
    )
    ageing: ClassAgeing = ClassAgeing()
    tenant_quantum: PositiveInt = Field(
        default=512, description="Tokens one tenant may be ahead of another before the other goes first."
    )
    tenant_half_life: Duration = Field(
        default=timedelta(seconds=15), description="After this time, half of what a tenant used is forgiven."
    )
    deadline_slack: Duration = Field(
        default=timedelta(seconds=10), description="A deadline nearer than this goes before the others."
    )
    prefix_window: PositiveInt = Field(
        default=512, description="Waiting jobs of one lane among which a shared prefix is looked for."
    )
    max_shared_prefix_tokens: PositiveInt = Field(
        default=8192, description="A shared prefix counts for so many tokens at most."
    )


class WorkerSettings(Group):
    models: tuple[str, ...] = Field(default=(), description="Served names to run; empty means all.")
    prefetch_multiplier: PositiveInt = Field(
        default=4, description="Messages held per slot and class: the dispatch window."
    )
    lease: Duration = Field(
        default=timedelta(seconds=10), description="A job whose lease ran out goes back to the queue."
    )
    heartbeat: Duration = Field(
        default=timedelta(seconds=3), description="How often a worker extends all its leases."
    )
    engine_stall: Duration = Field(
        default=timedelta(seconds=30), description="An engine without any progress for this long is hung."
    )
    job_stall: Duration = Field(
        default=timedelta(seconds=120),
        description="A job without a token for this long is stopped; long prompts get more.",
    )
    grace: Duration = Field(
        default=timedelta(seconds=30), description="SIGTERM: running jobs may finish for this long."
    )
    max_attempts: PositiveInt = Field(default=3, description="Attempts before a job fails for good.")
    event_flush: Duration = Field(
        default=timedelta(milliseconds=15), description="How long tokens gather before they go to Redis."
    )
    private_prefixes: tuple[str, ...] = Field(
        default=(),
        description='Ids of tenants that share nothing in an engine\'s prefix cache, or ["*"]. SGLang alone.',
    )


class UpkeepSettings(Group):
    reap_every: Duration = Field(default=timedelta(seconds=1), description="Look for expired leases.")
    reconcile_after: Duration = Field(
        default=timedelta(seconds=30),
        description="A released job that nobody claimed for this long is looked up in the broker.",
    )
    retention: Duration = Field(
        default=timedelta(days=7), description="How long finished jobs are kept when nobody asked otherwise."
    )
    audit_retention: Duration = Field(
        default=timedelta(days=400), description="How long the changes of degradation levels are kept."
    )
    usage_retention: Duration = Field(
        default=timedelta(days=400), description="How long the sums of what was used are kept."
    )
    retention_chunk: PositiveInt = Field(default=500, description="Jobs deleted in one transaction.")


class WebhookSettings(Group):
    allow_http: bool = Field(
        default=False, description="Send to http:// addresses too. For development: nothing is encrypted."
    )
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(
        default=(443,), description="Ports that receivers may listen on."
    )
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), description='Private networks that receivers may be in, for example ["10.1.0.0/16"].'
    )
    connect_timeout: Duration = Field(
        default=timedelta(seconds=5), description="Longest time to resolve, connect and greet by TLS."
    )
    timeout: Duration = Field(default=timedelta(seconds=15), description="Longest time of a whole call.")
    slots: PositiveInt = Field(default=128, description="Calls that one `penstock deliver` makes at once.")
    concurrency: PositiveInt = Field(
        default=4, description="Calls to one receiver at once, over all processes."
    )
    schedule: tuple[Duration, ...] = Field(
        default=STANDARD_SCHEDULE,
        description="Pauses before each further attempt, give or take a tenth: Standard Webhooks' own.",
    )
    give_up: Duration = Field(
        default=timedelta(days=3), description="Time after which no further attempt is made."
    )
    lease: Duration = Field(
        default=timedelta(seconds=30),
        description="A call without an outcome for this long is made again; longer than `timeout`.",
    )
    poll: Duration = Field(
        default=timedelta(seconds=1), description="Looks for what is due this often when nothing wakes it."
    )
    breaker_after: PositiveInt = Field(
        default=10, description="Failures in a row after which a receiver is left alone."
    )
    breaker_pause: Duration = Field(
        default=timedelta(minutes=1),
        description="First time a receiver is left alone; doubles with each probe that fails.",
    )
    breaker_longest: Duration = Field(
        default=timedelta(hours=1), description="Longest time between two probes."
    )
    secret_overlap: Duration = Field(
        default=timedelta(hours=24), description="How long a rotated secret still signs beside the new one."
    )

    @model_validator(mode="after")
    def _lease_outlives_a_call(self) -> Self:
        if self.lease <= self.timeout:
            raise ValueError("lease must be longer than timeout")
        return self


class ApiSettings(Group):
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on.")
    max_body: PositiveInt = Field(default=1_048_576, description="Largest request body, in bytes.")
    max_bulk_body: PositiveInt = Field(
        default=16_777_216, description="Largest body of a bulk submission, in bytes."
    )
    max_queued: PositiveInt = Field(
        default=5_000_000, description="Jobs that may wait in all; more get 503 with Retry-After."
    )
    pepper: SecretStr = Field(
        default=SecretStr(DEVELOPMENT_PEPPER),
        min_length=16,
        description="Mixed into every hashed API key, and seals webhook secrets. Keep it out of the database,"
        " and change it in production.",
    )
    public_url: str = Field(default="", description="Prefix of the links in answers; empty: the request's.")
    key_cache: Duration = Field(
        default=timedelta(seconds=5), description="How long a verified key is not looked up again."
    )
    drain: Duration = Field(default=timedelta(seconds=20), description="SIGTERM: requests may finish.")
    keep_alive: Duration = Field(
        default=timedelta(seconds=75),
        description="How long an idle connection stays open; longer than a proxy in front keeps it.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=("127.0.0.1",),
        description="Addresses or networks of proxies whose X-Forwarded-Proto counts, for links and cookies.",
    )
    compression: CompressionSettings = CompressionSettings()


class DefaultLimits(Group):
    """What counts where nothing was set for the owner; 0 is no bound."""

    requests_per_minute: NonNegativeInt = Field(default=0, description="Submissions in any minute.")
    tokens_per_minute: NonNegativeInt = Field(
        default=0, description="Tokens in any minute: of the prompt, and of the longest answer asked for."
    )
    tokens_per_day: NonNegativeInt = Field(
        default=0, description="Tokens of finished jobs in a day that begins at 00:00 UTC."
    )
    concurrent_jobs: NonNegativeInt = Field(default=0, description="Jobs that are queued or run at once.")


class LimitSettings(Group):
    tenant: DefaultLimits = DefaultLimits()
    key: DefaultLimits = DefaultLimits()
    redis_timeout: Duration = Field(
        default=timedelta(milliseconds=250),
        description="Longest wait for the shared counters; then each process counts for itself.",
    )


class AnswerSettings(Group):
    enabled: bool = Field(
        default=True, description="Keep answers, for the same request and for similar questions."
    )
    exact: Literal["overload", "always"] = Field(
        default="overload",
        description="When the same request at temperature 0 (or one that opted in) gets the kept answer.",
    )
    keep: Duration = Field(default=timedelta(hours=1), description="How long an answer is kept.")
    most: PositiveInt = Field(
        default=10_000, description="Entries kept for one tenant; the oldest leave first."
    )
    min_similarity: float = Field(
        default=0.9, ge=0, le=1, description="How alike a question must be where its caller does not say."
    )
    embedder: Path | None = Field(
        default=None,
        description="Folder of a sentence-transformers model: paraphrases count as similar, too. "
        "Needs the extra `penstock[neural]`.",
    )
    redis_timeout: Duration = Field(
        default=timedelta(milliseconds=100), description="Longest wait for a kept answer."
    )


class ComplexitySettings(Group):
    medium_input: NonNegativeInt = Field(
        default=512, description="Prompt tokens above which a request is medium."
    )
    medium_output: NonNegativeInt = Field(
        default=256, description="Answer tokens above which a request is medium."
    )
    high_input: NonNegativeInt = Field(
        default=2048, description="A request is high above these prompt tokens and `high_output`."
    )
    high_output: NonNegativeInt = Field(
        default=512, description="A request is high above these answer tokens and `high_input`."
    )
    high_weight: float = Field(
        default=2.0, ge=1, le=100, description="What a token of a high request counts in shares and limits."
    )
    high_class: ServiceClassName = Field(
        default="premium", description="The best class that a high request may use."
    )
    beyond_ceiling: ServiceClassName = Field(
        default="bulk", description="The best class of a request that is heavier than its key may ask."
    )


class FlowerSettings(Group):
    python: Path = Field(
        default=Path(".venv-flower/bin/python"), description="Interpreter of the environment with Flower."
    )
    host: str = Field(default="127.0.0.1", description="Address that Flower listens on.")
    port: int = Field(default=5555, ge=1, le=65535, description="Port that Flower listens on.")
    user: str = Field(default="penstock", description="Name for Flower's basic authentication.")
    password: SecretStr = Field(
        default=SecretStr(""), description="Password for Flower; it does not start without one."
    )
    broker_api: SecretStr = Field(
        default=SecretStr("http://guest:guest@127.0.0.1:15672/api/"),
        description="RabbitMQ's management API, for queue depths.",
    )


class LogSettings(Group):
    level: str = Field(default="info", pattern=r"^(debug|info|warning|error)$", description="Least level.")
    format: str = Field(
        default="auto",
        pattern=r"^(auto|json|console)$",
        description="auto: console on a terminal, else JSON.",
    )


class MetricsSettings(Group):
    host: str = Field(default="127.0.0.1", description="Address where a process shows its metrics.")
    port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port of this process's metrics; unset: none. Processes of one machine need one each.",
    )
    look_every: Duration = Field(
        default=timedelta(seconds=5),
        description="How often upkeep looks at queues and workers; less often where a look is expensive.",
    )
    directory: Path | None = Field(
        default=None,
        description="Folder that several API processes share so that one port shows their sums; empty it"
        " before they start.",
    )


class TracingSettings(Group):
    enabled: bool = Field(
        default=False, description="Send OpenTelemetry traces; needs the extra penstock[tracing]."
    )
    endpoint: str = Field(
        default="http://127.0.0.1:4318", description="An OTLP collector's HTTP address, before /v1/traces."
    )
    authorization: SecretStr | None = Field(
        default=None, description="Authorization header for the collector."
    )
    sample: float = Field(
        default=1.0, ge=0, le=1, description="Part of the jobs that are traced; a caller's own trace decides."
    )
    timeout: Duration = Field(default=timedelta(seconds=5), description="Longest time to send spans.")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    catalogue: Path = Field(default=Path("models.toml"), description="The catalogue of served models.")
    database: DatabaseSettings = DatabaseSettings()
    redis: RedisSettings = RedisSettings()
    broker: BrokerSettings = BrokerSettings()
    relay: RelaySettings = RelaySettings()
    order: OrderSettings = OrderSettings()
    worker: WorkerSettings = WorkerSettings()
    upkeep: UpkeepSettings = UpkeepSettings()
    overload: OverloadSettings = OverloadSettings()
    webhooks: WebhookSettings = WebhookSettings()
    api: ApiSettings = ApiSettings()
    storage: StorageSettings = StorageSettings()
    batches: BatchSettings = BatchSettings()
    limits: LimitSettings = LimitSettings()
    answers: AnswerSettings = AnswerSettings()
    complexity: ComplexitySettings = ComplexitySettings()
    console: ConsoleSettings = ConsoleSettings()
    flower: FlowerSettings = FlowerSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    bootstrap_key: SecretStr | None = Field(
        default=None, description="The development key that `penstock up` creates; unset: a random one."
    )
    url: str = Field(default="http://127.0.0.1:8000", description="Where the command line finds the API.")
    key: SecretStr | None = Field(default=None, description="API key that the command line sends.")


def load_settings(environment: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Settings from the environment; `overrides` win. Raises `ConfigurationMistake`."""
    refuse_unknown_names(os.environ if environment is None else environment)
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationMistake(_explain(error)) from error


def refuse_unknown_names(environment: Mapping[str, str]) -> None:
    """A misspelt name would silently mean the default, so it stops the start."""
    known = {name.removeprefix(PREFIX) for name in setting_names()}
    for name in sorted(environment):
        own = name.upper().removeprefix(PREFIX)
        if own != name.upper() and own not in known:
            # Without the prefix, which would make any two names alike.
            nearest = difflib.get_close_matches(own, known, n=1, cutoff=_ALIKE)
            hint = f"did you mean {PREFIX}{nearest[0]}?" if nearest else "docs/reference/settings.md has all."
            raise ConfigurationMistake(f"unknown setting {name}; {hint}")


def setting_names(group: type[BaseModel] = Settings, prefix: str = PREFIX) -> Iterator[str]:
    """Every environment name, groups included (a group may be given whole, as JSON)."""
    for name, field in group.model_fields.items():
        yield f"{prefix}{name.upper()}"
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Group):
            yield from setting_names(inner, f"{prefix}{name.upper()}__")


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = PREFIX + "__".join(str(part) for part in problem["loc"]).upper()
        lines.append(f"{name}: {problem['msg']}")
    return "; ".join(lines)
