"""Settings of the degradation policy and of admission."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from core.setting_types import Duration, Group


class TruncateSettings(Group):
    """Tokens of a truncated answer, by class."""

    premium: PositiveInt = Field(default=128, description="Longest truncated answer to a premium job.")
    standard: PositiveInt = Field(default=128, description="Longest truncated answer to a standard job.")
    bulk: PositiveInt = Field(
        default=128, description="Longest truncated answer to a bulk job that accepts one."
    )


class InteractiveSettings(Group):
    """How long calls that wait for their answer may be queued: chat completions, and `Prefer: wait`."""

    preset: str = Field(
        default="normal",
        pattern=r"^(normal|strict)$",
        description="strict: 50 ms for premium and 200 ms for others, in place of the limits below.",
    )
    premium: Duration = Field(default=timedelta(seconds=10), description="Longest queue wait of premium.")
    standard: Duration = Field(default=timedelta(seconds=30), description="Longest queue wait of standard.")
    bulk: Duration = Field(default=timedelta(seconds=60), description="Longest queue wait of bulk.")
    wait: Duration = Field(
        default=timedelta(minutes=9),
        description="Longest wait of chat/completions for the whole answer; past it the job runs on.",
    )
    keep_alive: Duration = Field(
        default=timedelta(seconds=5), description="A stream sends a comment after this long without a piece."
    )


class OverloadSettings(Group):
    enabled: bool = Field(
        default=True,
        description="false: everybody gets what was asked, however long it takes, and nobody is turned away.",
    )
    waiting: PositiveInt = Field(
        default=50, description="Premium and standard jobs beyond the slots at which level 1 begins."
    )
    first_token: Duration = Field(
        default=timedelta(seconds=3),
        description="Mean time from submission to first token at which level 1 begins.",
    )
    predicted_wait: Duration = Field(
        default=timedelta(seconds=1),
        description="Predicted wait of premium or standard at which level 1 begins: it is known before "
        "anybody has waited so long.",
    )
    dwell: Duration = Field(
        default=timedelta(seconds=5), description="Pressure that lasts this long raises the level by one."
    )
    calm: Duration = Field(
        default=timedelta(seconds=10), description="Calm that lasts this long lowers the level by one."
    )
    longest_calm: Duration = Field(
        default=timedelta(minutes=2),
        description="The same where what is asked is more than the engines can do whole, or after relapses.",
    )
    bulk_share: PositiveFloat = Field(
        default=0.25,
        le=1,
        description="Part of a worker's slots, one at least, that bulk may take from level 1 on.",
    )
    release: PositiveFloat = Field(
        default=0.5, lt=1, description="Calm is less than this part of what begins level 1."
    )
    busy: PositiveFloat = Field(
        default=0.9, le=1, description="GPU utilisation above which a growing wait turns new work away."
    )
    stale: Duration = Field(
        default=timedelta(seconds=3), description="Age at which a reading is not believed any more."
    )
    truncate: TruncateSettings = TruncateSettings()
    interactive: InteractiveSettings = InteractiveSettings()
    templates: Path = Field(
        default=Path("templates.toml"), description="The file of template answers; absent: none."
    )
