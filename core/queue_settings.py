"""Settings of what moves and runs jobs: the relay, the order, workers, upkeep."""

from datetime import timedelta

from pydantic import Field, NonNegativeInt, PositiveInt

from core.setting_types import Duration, Group


class RelaySettings(Group):
    window: PositiveInt = Field(default=256, description="Jobs published before confirms are awaited.")
    horizon: Duration = Field(
        default=timedelta(milliseconds=250),
        description="Work released ahead of the workers, at the measured rate; never less than their slots.",
    )
    idle_depth: PositiveInt = Field(
        default=32, description="Jobs released per model and class while no worker is known."
    )
    poll: Duration = Field(
        default=timedelta(seconds=1), description="Looks for work this often even when nothing wakes it."
    )


class ClassWeights(Group):
    """Shares of the classes, by token cost, while all of them have work."""

    premium: PositiveInt = Field(default=8, description="Weight of premium jobs.")
    standard: PositiveInt = Field(default=3, description="Weight of standard jobs.")
    bulk: PositiveInt = Field(default=1, description="Weight of bulk jobs.")


class ClassAgeing(Group):
    """A job that waited this long goes first in its class, and its class gets its whole weight."""

    premium: Duration = Field(default=timedelta(minutes=1), description="Ageing bound of premium jobs.")
    standard: Duration = Field(default=timedelta(minutes=5), description="Ageing bound of standard jobs.")
    bulk: Duration = Field(default=timedelta(minutes=30), description="Ageing bound of bulk jobs.")


class OrderSettings(Group):
    weights: ClassWeights = ClassWeights()
    reserved_premium: float = Field(
        default=0.125, ge=0, lt=1, description="Part of a worker's slots that only premium may take."
    )
    ageing: ClassAgeing = ClassAgeing()
    tenant_quantum: PositiveInt = Field(
        default=512, description="Tokens one tenant may be ahead of another before the other goes first."
    )
    tenant_half_life: Duration = Field(
        default=timedelta(seconds=15), description="After this time, half of what a tenant used is forgiven."
    )
    deadline_slack: Duration = Field(
        default=timedelta(seconds=10), description="A deadline nearer than this goes before the others."
    )
    prefix_window: PositiveInt = Field(
        default=512, description="Waiting jobs of one lane among which a shared prefix is looked for."
    )
    max_shared_prefix_tokens: NonNegativeInt = Field(
        default=8192,
        description="A shared prefix counts for so many tokens at most; 0: prefixes change no order.",
    )


class WorkerSettings(Group):
    models: tuple[str, ...] = Field(default=(), description="Served names to run; empty means all.")
    prefetch_multiplier: PositiveInt = Field(
        default=4, description="Messages held per slot and class: the dispatch window."
    )
    lease: Duration = Field(
        default=timedelta(seconds=10), description="A job whose lease ran out goes back to the queue."
    )
    heartbeat: Duration = Field(
        default=timedelta(seconds=3), description="How often a worker extends all its leases."
    )
    engine_stall: Duration = Field(
        default=timedelta(seconds=30), description="An engine without any progress for this long is hung."
    )
    job_stall: Duration = Field(
        default=timedelta(seconds=120),
        description="A job without a token for this long is stopped; long prompts get more.",
    )
    grace: Duration = Field(
        default=timedelta(seconds=30), description="SIGTERM: running jobs may finish for this long."
    )
    max_attempts: PositiveInt = Field(default=3, description="Attempts before a job fails for good.")
    event_flush: Duration = Field(
        default=timedelta(milliseconds=50),
        description="How long tokens gather before they go to Redis; the first of an answer do not.",
    )
    private_prefixes: bool = Field(
        default=False,
        description="No tenant shares anything in SGLang's prefix cache, whether it asked or not.",
    )


class UpkeepSettings(Group):
    reap_every: Duration = Field(default=timedelta(seconds=1), description="Look for expired leases.")
    reconcile_after: Duration = Field(
        default=timedelta(seconds=30),
        description="A released job that nobody claimed for this long is looked up in the broker.",
    )
    retention: Duration = Field(
        default=timedelta(days=7), description="How long finished jobs are kept when nobody asked otherwise."
    )
    audit_retention: Duration = Field(
        default=timedelta(days=400), description="How long the changes of degradation levels are kept."
    )
    usage_retention: Duration = Field(
        default=timedelta(days=400), description="How long the sums of what was used are kept."
    )
    retention_chunk: PositiveInt = Field(default=500, description="Jobs deleted in one transaction.")
