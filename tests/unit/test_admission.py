"""The door: fallback and backup models, and what it tells those that it turns away."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.errors import QueueTimeout
from core.overload_settings import OverloadSettings
from models.catalogue import Catalogue, load_catalogue
from models.degradation import Level
from models.repositories.submission import NewJob
from queues.admission import Admission, Admitted
from queues.policy.pressure import Pressure, Reading
from queues.policy.state import State, Verdict

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MODELS = """
[[model]]
name = "large"
engine = "openai"
url = "http://127.0.0.1:1"
context_length = 2048
fallback = "light"
backup = "hosted"

[[model]]
name = "light"
engine = "openai"
url = "http://127.0.0.1:2"
context_length = {light}

[[model]]
name = "hosted"
engine = "openai"
url = "http://127.0.0.1:3"
context_length = 2048
"""


class FixedClock:
    def now(self) -> datetime:
        return NOW


class Board:
    """What was measured, as a test says it."""

    def __init__(self, verdicts: Mapping[str, Verdict]) -> None:
        self._verdicts = verdicts
        self.admitted: list[str] = []

    def verdict(self, model: str) -> Verdict | None:
        return self._verdicts.get(model)

    def ahead(self, model: str, service_class: str) -> tuple[int, int]:
        return 0, 0

    def note_admitted(self, model: str, service_class: str, cost: int) -> None:
        self.admitted.append(model)

    def note_offered(self, model: str, tokens: int) -> None: ...


def verdict(wait: float, *, slots: int = 8, level: Level = Level.FULL, is_stale: bool = False) -> Verdict:
    classes = {
        name: Reading(jobs=9, tokens=round(100 * wait), rate=100.0, wait=wait)
        for name in ("premium", "standard")
    }
    pressure = Pressure(at=time.time(), slots=slots, running=slots, classes=classes, is_stale=is_stale)
    return Verdict(State(level=level, reason="84 wait"), pressure)


IDLE = verdict(0.0)
BUSY = verdict(60.0)
UNSERVED = verdict(0.0, slots=0)


def job(service_class: str = "standard", *, max_wait: float | None = 10.0, **changes: Any) -> NewJob:
    request: dict[str, Any] = {"prompt": "Hello.", "max_tokens": 400}
    request |= {"degradation": changes.pop("degradation")} if "degradation" in changes else {}
    fields: dict[str, Any] = {
        "id": "job_1",
        "tenant_id": "acme",
        "model": "large",
        "service_class": service_class,
        "priority": 5,
        "cost": 420,
        "fingerprint": "f",
        "request": request,
        "created_at": NOW,
        "queue_deadline": NOW + timedelta(seconds=max_wait) if max_wait is not None else None,
    }
    return NewJob(**fields | changes)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return written(tmp_path, light=2048)


def written(folder: Path, *, light: int) -> Catalogue:
    (folder / "models.toml").write_text(MODELS.format(light=light))
    return load_catalogue(folder / "models.toml")


async def admit(catalogue: Catalogue, one: NewJob, **verdicts: Verdict) -> Admitted:
    board = Board(verdicts)
    door = Admission(
        board,  # type: ignore[arg-type]
        (),
        catalogue,
        FixedClock(),
        policy=OverloadSettings(),
        keep=timedelta(days=1),
    )
    admitted = await door.admit(one)
    assert board.admitted == [admitted.job.model]
    return admitted


async def test_who_would_wait_too_long_is_served_by_the_lighter_model_and_told_so(
    catalogue: Catalogue,
) -> None:
    admitted = await admit(catalogue, job(), large=BUSY, light=IDLE)

    label = admitted.job.degradation
    assert admitted.job.model == "light"
    assert label is not None
    assert (label.name, label.asked_model, label.reason) == (
        "fallback",
        "large",
        "large could not serve in time; light does",
    )


async def test_where_nobody_waits_too_long_the_model_is_the_one_that_was_asked_for(
    catalogue: Catalogue,
) -> None:
    patient = await admit(catalogue, job(max_wait=None), large=BUSY, light=IDLE)
    quick = await admit(catalogue, job(), large=IDLE, light=IDLE)

    assert (patient.job.model, quick.job.model) == ("large", "large")
    assert quick.job.degradation is None


@pytest.mark.parametrize(
    "one",
    [job(degradation={"allow": []}), job(degradation={"allow": ["template", "similar"]}), job(cost=1900)],
    ids=["refuses all", "refuses less than was asked", "does not fit"],
)
async def test_a_lighter_model_is_imposed_on_nobody(catalogue: Catalogue, one: NewJob) -> None:
    with pytest.raises(QueueTimeout) as refused:
        await admit(catalogue, one, large=BUSY, light=IDLE)

    assert refused.value.retry_after is not None
    assert 1 <= refused.value.retry_after <= 120


async def test_a_lighter_model_that_is_as_busy_helps_nobody(catalogue: Catalogue) -> None:
    with pytest.raises(QueueTimeout):
        await admit(catalogue, job(), large=BUSY, light=BUSY)


async def test_one_step_down_is_enough(catalogue: Catalogue) -> None:
    """The lighter model is overloaded, too, but its answer is not cut besides."""
    admitted = await admit(catalogue, job(), large=BUSY, light=verdict(1.0, level=Level.SIMILAR))

    assert admitted.job.degradation is not None
    assert admitted.job.degradation.name == "fallback"
    assert admitted.job.degradation.max_tokens is None


async def test_premium_goes_to_the_backup_while_nobody_runs_its_model(catalogue: Catalogue) -> None:
    premium = await admit(catalogue, job("premium"), large=UNSERVED, hosted=IDLE)
    standard = await admit(catalogue, job(), large=UNSERVED, hosted=IDLE)

    assert premium.job.model == "hosted"
    assert premium.job.degradation is not None
    assert premium.job.degradation.name == "backup"
    assert standard.job.model == "large"


@pytest.mark.parametrize(
    ("large", "hosted"),
    [
        (UNSERVED, UNSERVED),
        (verdict(0.0, slots=0, is_stale=True), IDLE),
        (IDLE, IDLE),
    ],
    ids=["nobody runs the backup either", "an old reading is no news", "somebody runs it"],
)
async def test_premium_stays_where_it_was_asked_for(
    catalogue: Catalogue, large: Verdict, hosted: Verdict
) -> None:
    admitted = await admit(catalogue, job("premium"), large=large, hosted=hosted)

    assert admitted.job.model == "large"
