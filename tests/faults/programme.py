"""Which scenarios are played on which stage, and which of them must notice which mutant."""

from dataclasses import dataclass
from typing import Final

from tests.faults import outages, processes, races
from tests.faults.fleet import Shape
from tests.faults.stage import Scenario


@dataclass(frozen=True, slots=True)
class Part:
    """One stage and its scenarios; `private` stages have servers of their own, which may be killed.

    `shows` is what a mutant must be caught at: one that merely does not work proves nothing.
    """

    name: str
    shape: Shape
    scenarios: tuple[Scenario, ...]
    private: bool = False
    patience: float = 60.0
    shows: str = "stuck"


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
)
_RACES: Final = (
    races.cancel_races_finish,
    races.expiry_races_finish,
    races.poison_among_good,
    outages.messages_tripled,
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
_LARGE: Final = (processes.bulk_of_twenty_thousand, races.cancel_of_twenty_thousand)

FULL: Final = (
    Part("processes", Shape(), (*_PROCESSES, *_RACES)),
    Part("links", Shape(), _LINKS),
    Part("servers", Shape(), _SERVERS, private=True),
    Part("recovery", Shape(workers=4, slots=8, brisk=False), (processes.recovery,)),
    Part("large", Shape(slots=64), _LARGE, patience=120),
    Part("llama.cpp", Shape(apis=1, upkeeps=1, workers=2, llamacpp=True), (processes.llamacpp_killed,)),
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
    Part("reaper", Shape(mutant="reaper"), (processes.worker_killed,), patience=20),
    Part("outbox", Shape(mutant="outbox"), (outages.queue_purged,), patience=20),
    Part(
        "late acknowledgement",
        Shape(mutant="late acknowledgement", settings=_PATIENT),
        (processes.worker_killed,),
        patience=20,
    ),
)
SLICE_MUTANTS: Final = MUTANTS[:1]
