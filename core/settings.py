"""Every setting: nested, frozen, typed with its unit, read from the environment once.

`PENSTOCK_BROKER__URL` sets `settings.broker.url`. A composition root calls `load_settings` and hands
down the slice that a part needs; nothing else reads the environment.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.answer_settings import AnswerSettings
from core.api_settings import ApiSettings, ComplexitySettings, DefaultLimits, LimitSettings
from core.batch_settings import BatchSettings, StorageSettings
from core.console_settings import ConsoleSettings
from core.errors import ConfigurationMistake
from core.overload_settings import OverloadSettings
from core.queue_settings import OrderSettings, RelaySettings, UpkeepSettings, WorkerSettings
from core.service_settings import BrokerSettings, DatabaseSettings, RedisSettings
from core.setting_types import Duration, Group, parse_duration
from core.telemetry_settings import FlowerSettings, LogSettings, MetricsSettings, TracingSettings
from core.webhook_settings import STANDARD_SCHEDULE, WebhookSettings

# What other modules know of settings they take from here.
__all__ = [
    "PREFIX",
    "STANDARD_SCHEDULE",
    "AnswerSettings",
    "ApiSettings",
    "BrokerSettings",
    "ComplexitySettings",
    "DatabaseSettings",
    "DefaultLimits",
    "Duration",
    "FlowerSettings",
    "Group",
    "LimitSettings",
    "LogSettings",
    "MetricsSettings",
    "OrderSettings",
    "RedisSettings",
    "RelaySettings",
    "Settings",
    "TracingSettings",
    "UpkeepSettings",
    "WebhookSettings",
    "WorkerSettings",
    "load_settings",
    "parse_duration",
    "refuse_unknown_names",
    "setting_names",
]

_ALIKE: Final = 0.6  # of 1: less than that is no misspelling
PREFIX: Final = "PENSTOCK_"


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
