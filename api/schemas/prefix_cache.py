"""What a tenant shares in an engine's prefix cache, as operators read and set it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class PrefixCacheChange(BaseModel):
    """`private`: the tenant's prompts share nothing with others'."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"private": True}]},
    )

    private: bool


class PrefixCacheRead(BaseModel):
    object: Literal["prefix_cache"]
    tenant: str
    private: bool


def render_prefix_cache(tenant: str, *, private: bool) -> dict[str, Any]:
    return {"object": "prefix_cache", "tenant": tenant, "private": private}
