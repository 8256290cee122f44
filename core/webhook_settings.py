"""Settings of webhooks: where they may go, how often they are tried, when a receiver is left alone."""

from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Final, Self

from pydantic import Field, PositiveInt, model_validator

from core.setting_types import Duration, Group

# 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h after the attempt before.
STANDARD_SCHEDULE: Final = tuple(
    timedelta(seconds=pause) for pause in (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
)


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
