"""What is measured of one model: what waits, how fast it goes, how busy the engines are. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from models.service_class import ServiceClass

# Bulk waits by its nature: how much of it there is says nothing about overload.
JUDGED: Final = (ServiceClass.PREMIUM.value, ServiceClass.STANDARD.value)


@dataclass(frozen=True, slots=True)
class Reading:
    """One class of a model. Costs are tokens, waits seconds, `rate` tokens a second that start of a queue.

    `wait` predicts when a job that is submitted now would start; None where no rate is known. `flow` and
    `arrivals` are the tokens a second that started and that came lately, whether any waited or not.
    """

    jobs: int = 0
    tokens: int = 0
    oldest: float = 0.0
    rate: float | None = None
    wait: float | None = None
    flow: float | None = None
    arrivals: float | None = None


@dataclass(frozen=True, slots=True)
class Pressure:
    """One model at one moment, `at` in seconds since 1970. None: nobody said, which is not "all is well".

    `first_token` is the mean time from submission to the first token, of those that lately had one;
    `offered` the tokens a second that premium and standard asked for, whatever they got; `capacity` what
    the engines do when every answer is whole. `growing` is by how many seconds the longest predicted wait
    grew each second, at the least of the last looks. `is_stale`: the numbers are older than they should be.
    """

    at: float
    slots: int = 0
    running: int = 0
    classes: Mapping[str, Reading] = field(default_factory=dict)
    first_token: float | None = None
    offered: float | None = None
    capacity: float | None = None
    gpu: float | None = None
    kv: float | None = None
    growing: float = 0.0
    is_stale: bool = False

    @property
    def beyond(self) -> int:
        """Premium and standard jobs that wait beyond the free slots."""
        waiting = sum(self.classes[name].jobs for name in JUDGED if name in self.classes)
        return max(0, waiting - max(0, self.slots - self.running))

    @property
    def growth(self) -> float:
        """Seconds that the longest predicted wait of the judged classes is; 0 where none is known."""
        waits = [self.classes[name].wait or 0.0 for name in JUDGED if name in self.classes]
        return max(waits, default=0.0)

    def wait(self, service_class: str) -> float | None:
        reading = self.classes.get(service_class)
        return reading.wait if reading is not None else None
