"""The tree of errors. A class carries a stable `code` and whether trying again can help.

PenstockError
├── BadInput                  the caller must change the request
│   ├── InvalidField          one field of it
│   ├── InvalidFields         one field or more, each with what is wrong
│   ├── PromptTooLong         no worker could run it
│   ├── UnknownModel          nothing serves that name
│   ├── TargetRefused         a webhook may not go there
│   └── BodyTooLarge
│       └── StorageFull       the tenant's files take what they may
├── Unauthenticated           no key, or a key that is unknown, expired or revoked
├── Forbidden                 the key may not do this
├── NotFound                  also another tenant's id
├── Conflict                  the job's state does not allow it
│   └── NotFinished           not yet
├── IdempotencyMismatch       the same Idempotency-Key with another body
├── QueueFull                 admission asks the caller to slow down
│   ├── QueueTimeout          it would wait, or waited, longer than it may
│   └── DeadlineUnreachable   it would start after its deadline
├── LimitReached              the caller used what it may use
│   ├── RateLimited           for this minute, or at once
│   └── QuotaExhausted        for this day
├── Unavailable               a dependency is down or we are draining
│   ├── OutboxFull            the cap on waiting jobs is reached
│   ├── StoreUnavailable      PostgreSQL (or the SQLite file)
│   ├── BrokerUnavailable     RabbitMQ
│   ├── EventsUnavailable     Redis
│   └── StorageUnavailable    the folder or bucket of files
├── JobFailed                 the job that a call waited for ended without an answer
├── StillRunning              the job that a call waited for is not done yet
├── WorkerLost                part of the answer was sent, and the rest will be another one's
├── EngineFailure             the engine did not produce an answer
│   ├── EngineUnavailable     another worker, or a later attempt, may do better
│   │   └── EngineUnreachable the request never arrived there, so it was no attempt
│   ├── EngineRefused         the engine refused this request; nobody will do better
│   └── GenerationStalled     no token within the stall limit
└── ConfigurationMistake      refused at start: file, line and remedy
"""


class PenstockError(Exception):
    """The root: `str(error)` is a sentence for the person who reads it."""

    code = "internal_error"
    retryable = False
    retry_after: float | None = None  # seconds, where the one who raises it knows better than a default


class BadInput(PenstockError):
    code = "invalid_request"


class InvalidField(BadInput):
    """One field is wrong: names it, the limit and the way out."""

    code = "invalid_field"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class InvalidFields(BadInput):
    """Problems of one request or more: `field` and `message`, fit to be sent."""

    code = "invalid_field"

    def __init__(self, problems: list[dict[str, str]]) -> None:
        super().__init__(f"{problems[0]['field']}: {problems[0]['message']}")
        self.problems = problems


class PromptTooLong(InvalidField):
    code = "prompt_too_long"


class UnknownModel(InvalidField):
    code = "model_not_found"


class TargetRefused(InvalidField):
    code = "webhook_url_refused"


class BodyTooLarge(BadInput):
    code = "body_too_large"


class StorageFull(BodyTooLarge):
    code = "storage_full"


class Unauthenticated(PenstockError):
    code = "invalid_api_key"


class Forbidden(PenstockError):
    code = "forbidden"


class NotFound(PenstockError):
    code = "not_found"


class Conflict(PenstockError):
    code = "conflict"


class NotFinished(Conflict):
    code = "not_finished"
    retryable = True


class IdempotencyMismatch(PenstockError):
    code = "idempotency_key_reused"


class QueueFull(PenstockError):
    code = "queue_full"
    retryable = True


class QueueTimeout(QueueFull):
    code = "queue_timeout"


class DeadlineUnreachable(QueueFull):
    code = "deadline_unreachable"


class LimitReached(PenstockError):
    """`standings` say where the caller stands under each limit, for those who show it."""

    code = "rate_limited"
    retryable = True
    standings: tuple[object, ...] = ()


class RateLimited(LimitReached):
    code = "rate_limited"


class QuotaExhausted(LimitReached):
    code = "quota_exhausted"


class JobFailed(PenstockError):
    """`code` is the job's own."""

    def __init__(self, code: str, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.code = code
        self.job_id = job_id


class StillRunning(PenstockError):
    code = "still_running"

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class WorkerLost(PenstockError):
    code = "worker_lost"


class Unavailable(PenstockError):
    code = "unavailable"
    retryable = True


class OutboxFull(Unavailable):
    code = "outbox_full"


class StoreUnavailable(Unavailable):
    code = "store_unavailable"


class BrokerUnavailable(Unavailable):
    code = "broker_unavailable"


class EventsUnavailable(Unavailable):
    code = "events_unavailable"


class StorageUnavailable(Unavailable):
    code = "storage_unavailable"


class EngineFailure(PenstockError):
    code = "engine_failed"


class EngineUnavailable(EngineFailure):
    code = "engine_unavailable"
    retryable = True


class EngineUnreachable(EngineUnavailable):
    code = "engine_unreachable"


class EngineRefused(EngineFailure):
    code = "engine_refused"


class GenerationStalled(EngineFailure):
    code = "generation_stalled"
    retryable = True


class ConfigurationMistake(PenstockError):
    code = "configuration_mistake"
