"""What an operator sets for a tenant or a key."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from models.limits import Complexity

Bound = Annotated[int, Field(ge=0, le=1_000_000_000_000)] | None


class LimitsChange(BaseModel):
    """The whole word on one owner: null, or left out, is the default; 0 is no bound."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"requests_per_minute": 600, "tokens_per_day": 2_000_000}]},
    )

    requests_per_minute: Bound = None
    tokens_per_minute: Bound = None
    tokens_per_day: Bound = None
    concurrent_jobs: Bound = None
    max_complexity: Annotated[Complexity, Field(strict=False)] | None = None
