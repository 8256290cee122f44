"""Which scenarios are played on which stage, and which of them must notice which mutant."""

from dataclasses import dataclass
from typing import Final

from tests.faults import outages, processes, races, rollout
from tests.faults.fleet import Shape
from tests.faults.stage import Scenario


@dataclass(frozen=True, slots=True)
class Part:
    """One stage and its scenarios; `private` stages have servers of their own, which may be killed.

    `shows` is what a mutant must be caught at: one that merely does not work proves nothing. A part that is
    `beside` the one before it is played at the same time: both mostly wait, for leases or for timeouts.
    """

    name: str
    shape: Shape
    scenarios: tuple[Scenario, ...]
    private: bool = False
    patience: float = 60.0
    shows: str = "stuck"
    beside: bool = False


_PROCESSES: Final = (
    processes.api_before_commit,
    processes.api_after_commit,
    processes.relay_before_publish,
    processes.relay_before_release,
    processes.worker_before_commit,
    processes.worker_after_commit,
    processes.worker_killed,
    processes.worker_paused,
    processes.worker_cut_off,
    processes.engine_killed,
    processes.upkeep_killed,
    processes.rolling_restart,
    processes.model_drained,
)
_RACES: Final = (
    races.cancel_races_finish,
    races.expiry_races_finish,
    races.poison_among_good,
    outages.messages_tripled,
    outages.messages_of_the_next_version,
    outages.queue_purged,
    outages.backends_terminated,
)
_LINKS: Final = (
    outages.links_cut,
    outages.links_slowed,
    outages.links_half_open,
    outages.links_black_holed,
)
_SERVERS: Final = (
    outages.broker_killed,
    outages.broker_restarted,
    outages.broker_outage,
    outages.redis_flushed,
    outages.redis_outage,
    outages.postgres_restarted,
)
_ROLLOUT: Final = (rollout.versions_side_by_side, rollout.rolling_upgrade)
_LARGE: Final = (processes.bulk_of_twenty_thousand, races.cancel_of_twenty_thousand)
# Two heartbeats of the broker's tell a worker that its link is half open: seconds in place of twenty.
_ATTENTIVE: Final = {"BROKER__HEARTBEAT": "4s"}

FULL: Final = (
    Part("processes", Shape(), (*_PROCESSES, *_RACES)),
    Part("links", Shape(settings=_ATTENTIVE), _LINKS),
    Part("servers", Shape(), _SERVERS, private=True, beside=True),
    Part("recovery", Shape(workers=4, slots=8, brisk=False), (processes.recovery,)),
    Part("large", Shape(slots=64), _LARGE, patience=120),
    Part("rollout", Shape(relays=2, outdated=True), _ROLLOUT),
    Part(
        "llama.cpp",
        Shape(apis=1, upkeeps=1, workers=2, llamacpp=True),
        (processes.llamacpp_killed,),
        beside=True,
    ),
)
SLICE: Final = (
    Part(
        "slice",
        Shape(),
        (
            processes.api_after_commit,
            processes.relay_before_release,
            processes.worker_killed,
            processes.worker_paused,
            races.cancel_races_finish,
            outages.messages_tripled,
            outages.queue_purged,
            outages.backends_terminated,
        ),
    ),
)
# Nothing is lost without late acknowledgement, because the reconciler restores it; but what the dead worker
# held waits for that, and not for the broker: it counts as stuck.
_PATIENT: Final = {"UPKEEP__RECONCILE_AFTER": "60s"}
MUTANTS: Final = (
    Part("fence", Shape(mutant="fence"), (processes.worker_paused,), patience=20, shows="doubled"),
    Part("reaper", Shape(mutant="reaper"), (processes.worker_killed,), patience=20, beside=True),
    Part("outbox", Shape(mutant="outbox"), (outages.queue_purged,), patience=20),
    Part(
        "late acknowledgement",
        Shape(mutant="late acknowledgement", settings=_PATIENT),
        (processes.worker_killed,),
        patience=20,
        beside=True,
    ),
)
SLICE_MUTANTS: Final = MUTANTS[:1]
