"""Settings of the HTTP API and of what callers may ask: limits, complexity."""

from datetime import timedelta
from typing import Final, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, SecretStr

from core.http_settings import CompressionSettings
from core.setting_types import Duration, Group

DEVELOPMENT_PEPPER: Final = "development-pepper"

ServiceClassName = Literal["premium", "standard", "bulk"]


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
