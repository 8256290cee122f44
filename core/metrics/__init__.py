"""Every metric of the platform, declared in one place; docs/reference/metrics.md is generated from it.

A label has few values that we choose: served models, service classes, error codes, routes. Never a tenant,
a job, an address or anything that a caller writes. Whoever works in groups counts in groups: no metric is
touched for a token.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

# The library decides when it is first imported whether values live in files that processes share, so
# this one setting is read here and not in a composition root.
if _shared := os.environ.get("PENSTOCK_METRICS__DIRECTORY"):
    os.makedirs(_shared, mode=0o700, exist_ok=True)  # noqa: PTH103 - before anything else is imported
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _shared

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

REGISTRY: Final = CollectorRegistry(auto_describe=True)


class Process(StrEnum):
    """Whose port shows a metric. `penstock up` is all of them."""

    API = "api"
    RELAY = "relay"
    UPKEEP = "upkeep"  # the one that leads: what is true of the whole platform is measured once
    WORKER = "worker"
    DELIVER = "deliver"
    EVERY = "every process"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the reference says of a metric."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    shown_by: tuple[Process, ...]


DECLARED: Final[list[Declaration]] = []

Metric = TypeVar("Metric", bound=MetricWrapperBase)

# Seconds. A cached answer takes a millisecond, a long one on a busy platform a quarter of an hour.
_TIMES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
_BYTES: Final = tuple(256 * 4**power for power in range(9))  # 256 B to 16 MiB
_ERRORS: Final = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5)
_GROUPS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def counter(
    name: str,
    meaning: str,
    labels: Sequence[str] = (),
    *,
    by: Sequence[Process],
    values: Sequence[str] = (),
) -> Counter:
    """`values` of its only label are there from the start: what begins at 1 never rose, to Prometheus."""
    made = Counter(name, meaning, labels, registry=REGISTRY)
    for value in values:
        made.labels(value)
    return _declare(made, name, meaning, labels, by)


def gauge(
    name: str, meaning: str, labels: Sequence[str] = (), *, by: Sequence[Process], together: str = "livesum"
) -> Gauge:
    """`together`: how values of processes that share one port become one, as prometheus_client has it."""
    made = Gauge(
        name,
        meaning,
        labels,
        registry=REGISTRY,
        multiprocess_mode=together,  # type: ignore[arg-type]
    )
    return _declare(made, name, meaning, labels, by)


def histogram(
    name: str,
    meaning: str,
    labels: Sequence[str] = (),
    *,
    by: Sequence[Process],
    buckets: Sequence[float] = _TIMES,
) -> Histogram:
    made = Histogram(name, meaning, labels, registry=REGISTRY, buckets=buckets)
    return _declare(made, name, meaning, labels, by)


def _declare(metric: Metric, name: str, meaning: str, labels: Sequence[str], by: Sequence[Process]) -> Metric:
    DECLARED.append(Declaration(name, type(metric).__name__.lower(), tuple(labels), meaning, tuple(by)))
    return metric


_API: Final = (Process.API,)
_WORKER: Final = (Process.WORKER,)
_UPKEEP: Final = (Process.UPKEEP,)
_KIND: Final = ("model", "service_class")

# Limits.
LIMIT_REFUSALS: Final = counter(
    "penstock_limit_refusals_total", "Submissions beyond a limit of their key or tenant.", ("code",), by=_API
)

# HTTP.
HTTP_SECONDS: Final = histogram(
    "penstock_http_request_seconds",
    "From the first byte of a request to the first of its answer; a wait that was asked for is part of it.",
    ("route", "method", "status"),
    by=_API,
)
HTTP_REQUEST_BYTES: Final = histogram(
    "penstock_http_request_bytes", "Size of request bodies.", ("route",), by=_API, buckets=_BYTES
)
HTTP_RESPONSE_BYTES: Final = histogram(
    "penstock_http_response_bytes", "Size of answers' bodies.", ("route",), by=_API, buckets=_BYTES
)
HTTP_IN_PROGRESS: Final = gauge(
    "penstock_http_requests_in_progress", "Requests under way, streams included.", by=_API
)
REFUSALS: Final = counter(
    "penstock_refusals_total", "Requests answered with an error, by its code.", ("code",), by=_API
)

# Admission.
ACCEPTED: Final = counter("penstock_jobs_accepted_total", "Jobs accepted: the arrival rate.", _KIND, by=_API)
TOKENS_ACCEPTED: Final = counter(
    "penstock_tokens_accepted_total", "Tokens that accepted jobs may take, prompt and answer.", _KIND, by=_API
)
SUBMISSION_GROUP: Final = histogram(
    "penstock_submission_group_jobs", "Jobs committed in one transaction.", by=_API, buckets=_GROUPS
)
SUBMISSION_SECONDS: Final = histogram(
    "penstock_submission_commit_seconds", "Time of the transaction that accepts a group of jobs.", by=_API
)
FEEDBACK: Final = counter(
    "penstock_feedback_total",
    "Scores that users gave their answers: up or down.",
    ("score",),
    by=_API,
    values=("up", "down"),
)

# Release.
RELEASED: Final = counter(
    "penstock_jobs_released_total", "Jobs that the broker confirmed.", _KIND, by=(Process.RELAY,)
)
PUBLISH_SECONDS: Final = histogram(
    "penstock_publish_confirm_seconds",
    "From publishing a window of messages to the broker's last confirm.",
    ("queue",),
    by=(Process.RELAY,),
)
UNCONFIRMED: Final = counter(
    "penstock_publish_unconfirmed_total",
    "Messages that the broker did not confirm; they are published again.",
    ("queue",),
    by=(Process.RELAY,),
)

# Running.
FINISHED: Final = counter(
    "penstock_jobs_finished_total",
    "Jobs that reached their end: the service rate and the completion rate.",
    (*_KIND, "status"),
    by=(Process.WORKER, Process.UPKEEP, Process.API),
)
BATCHES: Final = counter(
    "penstock_batches_finished_total",
    "Batches that reached their end, by status: completed, failed, expired or cancelled.",
    ("status",),
    by=(Process.UPKEEP,),
    values=("completed", "failed", "expired", "cancelled"),
)
ANSWERS: Final = counter(
    "penstock_answers_total",
    "Completed jobs by the level that their answer has: full, truncate, template or similar.",
    ("model", "level"),
    by=(Process.WORKER, Process.API),
)
FAILURES: Final = counter(
    "penstock_job_failures_total",
    "Jobs that failed, by the code of their error; attempts_exhausted are dead letters.",
    ("model", "code"),
    by=(Process.WORKER, Process.UPKEEP),
)
GIVEN_BACK: Final = counter(
    "penstock_jobs_given_back_total",
    "Attempts that ended without an end of their job, by reason: it is tried again.",
    ("model", "reason"),
    by=(Process.WORKER, Process.UPKEEP),
)
STALE_FINISHES: Final = counter(
    "penstock_stale_finishes_total",
    "Results that were discarded because another attempt owned the job.",
    ("model",),
    by=_WORKER,
)
QUEUE_SECONDS: Final = histogram(
    "penstock_job_queue_seconds", "From a job's acceptance to its first start.", _KIND, by=_WORKER
)
FIRST_TOKEN_SECONDS: Final = histogram(
    "penstock_job_first_token_seconds",
    "From an attempt's start to its first token: the engine's own part.",
    _KIND,
    by=_WORKER,
)
WAIT_TO_TOKEN_SECONDS: Final = histogram(
    "penstock_job_wait_to_first_token_seconds",
    "From a job's acceptance to its first token: what its caller waits.",
    _KIND,
    by=_WORKER,
)
TOKEN_SECONDS: Final = histogram(
    "penstock_job_output_token_seconds",
    "Mean time for each token of an answer after its first.",
    _KIND,
    by=_WORKER,
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
)
RESPONSE_SECONDS: Final = histogram(
    "penstock_job_response_seconds", "From a completed job's acceptance to its end.", _KIND, by=_WORKER
)
PROMPT_TOKENS: Final = counter(
    "penstock_prompt_tokens_total", "Prompt tokens of finished jobs.", ("model",), by=_WORKER
)
CACHED_TOKENS: Final = counter(
    "penstock_cached_prompt_tokens_total",
    "Those of them that came from the engine's prefix cache.",
    ("model",),
    by=_WORKER,
)
COMPLETION_TOKENS: Final = counter(
    "penstock_completion_tokens_total", "Tokens written by finished jobs.", ("model",), by=_WORKER
)
DISPATCH_GROUP: Final = histogram(
    "penstock_dispatch_group_jobs", "Jobs claimed in one statement.", ("model",), by=_WORKER, buckets=_GROUPS
)
CLAIM_SECONDS: Final = histogram(
    "penstock_claim_seconds", "Time of the transaction that claims a group of jobs.", ("model",), by=_WORKER
)
START_ERROR: Final = histogram(
    "penstock_start_estimate_error_ratio",
    "How far the estimated start was from the real one, by the real wait; of jobs that waited a second.",
    ("model", "service_class"),
    by=_WORKER,
    buckets=_ERRORS,
)
NOT_CLAIMED: Final = counter(
    "penstock_jobs_not_claimed_total",
    "Messages whose job was cancelled, expired, claimed or released again before.",
    ("model",),
    by=_WORKER,
)
SETTLE_GROUP: Final = histogram(
    "penstock_settle_group_jobs", "Results recorded in one transaction.", by=_WORKER, buckets=_GROUPS
)
SLOTS: Final = gauge("penstock_engine_slots", "Jobs that the engine runs at once.", ("model",), by=_WORKER)
RUNNING: Final = gauge("penstock_jobs_running", "Jobs in the engine.", ("model",), by=_WORKER)
WINDOW: Final = gauge(
    "penstock_dispatch_window_jobs", "Jobs that the worker holds and has not begun.", ("model",), by=_WORKER
)
TOKENS_RUNNING: Final = gauge(
    "penstock_engine_tokens_running", "Tokens that the running jobs may take.", ("model",), by=_WORKER
)
TOKEN_ROOM: Final = gauge(
    "penstock_engine_token_capacity",
    "Tokens that fit the engine's slots; running tokens divided by it is the token fill.",
    ("model",),
    by=_WORKER,
)
ENGINE_READY: Final = gauge(
    "penstock_engine_ready", "1 while the engine takes prompts, else 0.", ("model",), by=_WORKER
)
ENGINE_STALLS: Final = counter(
    "penstock_engine_stalls_total", "Times an engine made no progress for too long.", ("model",), by=_WORKER
)
LEASES_LOST: Final = counter(
    "penstock_leases_lost_total",
    "Jobs taken from their engine because another attempt owned them.",
    ("model",),
    by=_WORKER,
)
HEARTBEATS_MISSED: Final = counter(
    "penstock_heartbeats_missed_total", "Heartbeats that did not reach the database.", by=_WORKER
)

COST: Final = counter(
    "penstock_gpu_cost_total",
    "Price of the GPU time so far, in the currency of `gpu_hour_price`; idle time costs as well.",
    ("model",),
    by=_WORKER,
)
GPU_BUSY: Final = gauge(
    "penstock_gpu_utilization_ratio", "Part of the time that the GPU computed, 0 to 1.", ("gpu",), by=_WORKER
)
GPU_MEMORY_USED: Final = gauge("penstock_gpu_memory_used_bytes", "GPU memory in use.", ("gpu",), by=_WORKER)
GPU_MEMORY: Final = gauge("penstock_gpu_memory_bytes", "GPU memory in all.", ("gpu",), by=_WORKER)
GPU_CELSIUS: Final = gauge("penstock_gpu_temperature_celsius", "Temperature.", ("gpu",), by=_WORKER)
GPU_WATTS: Final = gauge("penstock_gpu_power_watts", "Power drawn.", ("gpu",), by=_WORKER)

# Webhooks.
DELIVERIES: Final = counter(
    "penstock_webhook_deliveries_total",
    "Webhook calls by what came of them: delivered, retrying, failed, dropped, fenced.",
    ("outcome",),
    by=(Process.DELIVER,),
    values=("delivered", "retrying", "failed", "dropped", "fenced"),
)
DELIVERY_SECONDS: Final = histogram(
    "penstock_webhook_call_seconds", "Time of webhook calls.", ("outcome",), by=(Process.DELIVER,)
)

# The whole platform, by the upkeep process that leads.
CLASSES: Final = ("premium", "standard", "bulk")
WORKER_STATES: Final = ("ready", "starting", "restarting", "unreachable", "draining", "closed")

WAITING: Final = gauge(
    "penstock_jobs_waiting", "Jobs that may start and have not, in outbox and broker.", _KIND, by=_UPKEEP
)
TOKENS_WAITING: Final = gauge(
    "penstock_tokens_waiting", "Tokens that these may take, prompt and answer.", _KIND, by=_UPKEEP
)
SCHEDULED: Final = gauge(
    "penstock_jobs_scheduled", "Jobs that may not start yet, by their `not_before`.", _KIND, by=_UPKEEP
)
OLDEST_WAIT: Final = gauge(
    "penstock_oldest_wait_seconds", "Age of the job that waits longest.", _KIND, by=_UPKEEP
)
PREDICTED_WAIT: Final = gauge(
    "penstock_predicted_wait_seconds",
    "Wait of a job accepted now, as admission counts it; absent until a rate is known.",
    _KIND,
    by=_UPKEEP,
)
OUTBOX: Final = gauge(
    "penstock_outbox_jobs", "Waiting jobs that the relay has not released yet.", _KIND, by=_UPKEEP
)
OUTBOX_AGE: Final = gauge("penstock_outbox_oldest_seconds", "Age of the oldest of these.", _KIND, by=_UPKEEP)
BROKER_MESSAGES: Final = gauge(
    "penstock_broker_messages", "Messages ready in RabbitMQ: the broker's depth.", _KIND, by=_UPKEEP
)
BROKER_ANSWERS: Final = gauge(
    "penstock_broker_answers", "1 when RabbitMQ told its depths at the last look, else 0.", by=_UPKEEP
)
WORKERS: Final = gauge(
    "penstock_workers", "Workers with a heartbeat, by the state of their engines.", ("state",), by=_UPKEEP
)
LIVE_SLOTS: Final = gauge("penstock_slots", "Slots of the workers that are ready.", ("model",), by=_UPKEEP)
LEASES: Final = gauge("penstock_leases", "Jobs that workers hold under a lease.", by=_UPKEEP)
LEASES_OVERDUE: Final = gauge(
    "penstock_leases_overdue", "Leases that ran out and were not reaped yet.", by=_UPKEEP
)
LEASES_REAPED: Final = counter(
    "penstock_leases_reaped_total",
    "Leases that ran out: the job waits again, or its attempts are over.",
    ("outcome",),
    by=_UPKEEP,
)
RELEASES_LOST: Final = counter(
    "penstock_releases_lost_total", "Released jobs that the broker had lost and that wait again.", by=_UPKEEP
)
DEAD_LETTERS: Final = gauge(
    "penstock_dead_letters", "Dead letters that nobody has sent again or discarded.", by=_UPKEEP
)
DELIVERIES_OPEN: Final = gauge(
    "penstock_webhook_deliveries_open", "Webhook deliveries that are not done.", by=_UPKEEP
)
DELIVERIES_LATE: Final = gauge(
    "penstock_webhook_delivery_late_seconds",
    "How long ago the delivery that is due longest became due.",
    by=_UPKEEP,
)
BATCH_STATES: Final = ("validating", "in_progress", "finalizing", "cancelling")
BATCHES_OPEN: Final = gauge(
    "penstock_batches_open", "Batches that have not ended, by status.", ("status",), by=_UPKEEP
)
BATCH_LINES_OPEN: Final = gauge(
    "penstock_batch_lines_open", "Lines of these batches that have not ended.", by=_UPKEEP
)
LEADS: Final = gauge("penstock_upkeep_leads", "1 in the upkeep process that works, else 0.", by=_UPKEEP)

DEGRADATION_LEVEL: Final = gauge(
    "penstock_degradation_level",
    "What new premium and standard jobs get: 0 full, 1 truncate, 2 template, 3 similar.",
    ("model",),
    by=_UPKEEP,
)
SHEDDING: Final = gauge(
    "penstock_shedding", "1 while new jobs of the class are turned away, else 0.", _KIND, by=_UPKEEP
)
KV_USAGE: Final = gauge(
    "penstock_kv_usage_ratio",
    "Part of the engines' token cache in use, where they say it.",
    ("model",),
    by=_UPKEEP,
)

OBSERVED: Final = (
    DEGRADATION_LEVEL, SHEDDING, KV_USAGE,
    WAITING, TOKENS_WAITING, SCHEDULED, OLDEST_WAIT, PREDICTED_WAIT, OUTBOX, OUTBOX_AGE, BROKER_MESSAGES,
    WORKERS, LIVE_SLOTS, BATCHES_OPEN,
)  # fmt: skip

# Every process.
BUILD: Final = gauge(
    "penstock_build_info", "1, with the version and the process.", ("version", "process"),
    by=(Process.EVERY,), together="mostrecent",
)  # fmt: skip
