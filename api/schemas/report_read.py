"""A report as operators read it."""

from datetime import datetime
from typing import Literal

from api.schemas.job_read import Document
from models.service_class import ServiceClass


class Spread(Document):
    """Milliseconds; null where nothing was measured."""

    p50: float | None
    p95: float | None
    max: float | None


class TokenSums(Document):
    prompt: int
    cached: int
    completion: int


class ReportTotal(Document):
    """`outcomes` counts jobs by status, `answers_by_level` the completed ones by level."""

    jobs: int
    outcomes: dict[str, int]
    answers_by_level: dict[str, int]
    wait_ms: Spread
    run_ms: Spread
    tokens: TokenSums


class ReportGroup(ReportTotal):
    model: str
    service_class: ServiceClass


class ReportTenant(Document):
    tenant: str
    jobs: int
    tokens: TokenSums


class ReportError(Document):
    code: str
    jobs: int


class ReportLevels(Document):
    """`seconds` spent at each level."""

    model: str
    seconds: dict[str, float]


class ReportCost(Document):
    """Of all workers of the period, gone or not; in the currency of the catalogue's `gpu_hour_price`."""

    model: str
    worker_hours: float
    cost: float
    tokens: int
    per_million_tokens: float | None


class ReportPoint(Document):
    at: datetime
    submitted: int
    failed: int
    degraded: int
    tokens: int
    wait_p95_ms: float | None


class ReportRead(Document):
    """`is_partial`: there were more jobs than are counted, and these are the newest."""

    object: Literal["report"]
    since: datetime
    until: datetime
    is_partial: bool
    total: ReportTotal
    groups: list[ReportGroup]
    tenants: list[ReportTenant]
    errors: list[ReportError]
    levels: list[ReportLevels]
    cost: list[ReportCost]
    timeline: list[ReportPoint]
