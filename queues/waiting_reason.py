"""Why a queued job waits, and what helps: the first reason that is enough. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

# Longer than the relay needs to release and a worker to claim where both have room.
_PROMPT: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Queued:
    """Where a queued job stands; `state` is the outbox's, `hold` paused or draining.

    `slots` are those of ready workers, `workers` all that are alive and serve the model, `detail` what one
    that is not ready says. `ahead` counts jobs of its model and class that came before; None: very many.
    """

    model: str
    state: str
    waits_since: datetime
    now: datetime
    available_at: datetime | None = None
    released_at: datetime | None = None
    attempt: int = 0
    hold: str | None = None
    workers: int = 0
    ready: int = 0
    detail: str = ""
    slots: int = 0
    running: int = 0
    ahead: int | None = 0
    starts_in: timedelta | None = None


@dataclass(frozen=True, slots=True)
class WaitReason:
    code: str
    sentence: str
    remedy: str


def why_it_waits(job: Queued) -> WaitReason:
    """What keeps everything of the model from starting comes before what keeps this job."""
    return _not_yet(job) or _nobody_begins(job) or _no_room(job) or _passing(job)


def _not_yet(job: Queued) -> WaitReason | None:
    if job.state != "scheduled":
        return None
    when = job.available_at.isoformat(timespec="seconds") if job.available_at else "later"
    if job.attempt:
        sentence = f"Attempt {job.attempt} ended without an answer; the next one may begin at {when}."
        return WaitReason("backoff", sentence, "Its timeline says why the attempt ended.")
    return WaitReason(
        "not_before", f"Its caller asked for no start before {when}.", "Nothing to do: it starts by itself."
    )


def _nobody_begins(job: Queued) -> WaitReason | None:
    if job.hold:
        return WaitReason(
            "model_held",
            f"{job.model} is {job.hold}, so nothing of it begins.",
            f"Resume it: penstock models resume {job.model}",
        )
    if not job.workers:
        return WaitReason(
            "no_worker",
            f"No worker that serves {job.model} is alive.",
            "Start one: penstock worker. `penstock doctor` says what is missing.",
        )
    if not job.ready:
        said = f" ({job.detail})" if job.detail else ""
        return WaitReason(
            "engine_not_ready",
            f"{_many(job.workers, 'worker')} of {job.model} alive, and none is ready{said}.",
            "A model that loads takes minutes; otherwise the worker's log has its engine's last lines.",
        )
    return None


def _no_room(job: Queued) -> WaitReason | None:
    if job.running < job.slots:
        return None
    ahead = "more than a thousand jobs" if job.ahead is None else _many(job.ahead, "job")
    starts = f" It should start in about {_about(job.starts_in)}." if job.starts_in else ""
    return WaitReason(
        "engines_full",
        f"All {job.slots} slots of {job.model} are in use, and {ahead} of its class came before it.{starts}",
        "Add workers, give it a higher priority or class, or wait.",
    )


def _passing(job: Queued) -> WaitReason:
    """Slots are free: it starts at once, unless something is broken."""
    since = job.released_at if job.state == "released" and job.released_at else job.waits_since
    if job.now - since <= _PROMPT:
        return WaitReason("starting", "Slots are free: it is about to start.", "Nothing to do.")
    free = f"{job.slots - job.running} of {job.slots} slots are free"
    if job.state == "released":
        return WaitReason(
            "not_claimed",
            f"It was released to the broker {_about(job.now - since)} ago, {free}, and no worker claimed it.",
            "A worker's window may hold it, or its message was lost: upkeep, if it runs, releases it again.",
        )
    return WaitReason(
        "not_released",
        f"{free.capitalize()}, and the relay has not released it for {_about(job.now - since)}.",
        "Is penstock relay running, and RabbitMQ up? `penstock doctor` says.",
    )


def _about(time: timedelta) -> str:
    seconds = time.total_seconds()
    if seconds < 90:  # noqa: PLR2004 - a minute and a half reads better in seconds
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
