"""Settings of what a process tells of itself: logs, metrics, traces, Flower."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field, SecretStr

from core.setting_types import Duration, Group


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
