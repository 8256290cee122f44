"""The types that settings are made of: frozen groups, and durations with their unit."""

from datetime import timedelta
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> object:
    """`"250ms"`, `"3s"`, `"15m"`, `"24h"` or `"7d"` to a timedelta; anything else is left to pydantic."""
    if isinstance(value, str):
        for unit in ("ms", "s", "m", "h", "d"):
            number = value.strip().removesuffix(unit)
            if number != value.strip() and number.replace(".", "", 1).isdigit():
                return timedelta(seconds=float(number) * _UNITS[unit])
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
