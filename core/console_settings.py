"""Settings of the console at /console."""

from datetime import timedelta

from pydantic import Field

from core.setting_types import Duration, Group


class ConsoleSettings(Group):
    session: Duration = Field(
        default=timedelta(hours=12), description="Time after which an operator signs in to the console again."
    )
    flower_url: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="Where a browser finds Flower: the console links to it.",
    )
