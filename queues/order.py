"""The one order (architecture §3a): who goes next, at release and at dispatch. Pure.

Classes share by weight and token cost with start-time fair queueing (Goyal, Vin and Cheng, 1996).
Inside a class the first rule that tells two jobs apart decides:

1. aged      a job that waited beyond its class's bound goes first, the oldest of them first
2. tenant    the tenant that used the fewest tokens lately, in steps of a quantum
3. priority  9 first
4. deadline  one whose slack is short, the nearest first
5. prefix    the longest shared prefix, warm ones first; a group stays together (`queues.prefixes`)
6. arrival   first come, first served

Lines of a batch wait for its completion window and do not age. Batches of one tenant, and what it submits
beside them, share its turns by tokens: between rules 4 and 5 goes the batch that used the fewest lately.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from core.settings import OrderSettings
from models.service_class import ServiceClass
from queues.prefixes import COLD, Rank, Warm, ranks, unshared

RANKED: Final = tuple(ServiceClass)
# (class, tenant), and (class, tenant, batch) of those that have batches.
Owner = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """What the order needs to know of a job that waits. Times are seconds since 1970, costs tokens."""

    key: str
    service_class: str
    tenant: str
    priority: int
    cost: int
    arrived: float
    deadline: float | None = None
    prefix: str | None = None
    prefix_tokens: int = 0
    batch: str | None = None
    trail: str | None = None
    # Its rank as long as nothing around it matters: made once, though it is looked at many times.
    plain: "_Rank" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rank = (-self.priority, 1, 0.0, unshared(self), self.arrived, self.key)
        object.__setattr__(self, "plain", rank)


@dataclass(frozen=True, slots=True)
class Rules:
    """The order's settings as plain numbers; durations in seconds."""

    weights: Mapping[str, float]
    ageing: Mapping[str, float]
    tenant_quantum: int = 512
    tenant_half_life: float = 15.0
    deadline_slack: float = 10.0
    max_shared_prefix: int = 8192  # tokens

    @classmethod
    def of(cls, settings: OrderSettings) -> "Rules":
        return cls(
            weights={name: float(weight) for name, weight in settings.weights},
            ageing={name: bound.total_seconds() for name, bound in settings.ageing},
            tenant_quantum=settings.tenant_quantum,
            tenant_half_life=settings.tenant_half_life.total_seconds(),
            deadline_slack=settings.deadline_slack.total_seconds(),
            max_shared_prefix=settings.max_shared_prefix_tokens,
        )


@dataclass(frozen=True, slots=True)
class Shares:
    """What was given so far: the memory that makes sharing fair. A value; `choose` returns the next one."""

    virtual_time: float = 0.0
    finish: Mapping[str, float] = field(default_factory=dict)  # class → virtual finish time
    used: Mapping["Owner", float] = field(default_factory=dict)  # tokens
    as_of: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """What surrounds one choice: `limit` jobs in all, `unreserved` of them for others than premium.

    `most` bounds how many of a class may be among them, where it is named.
    `backlog` has the tokens that wait per class, also where the chooser does not see them;
    `warm` the prefixes that the engine holds now.
    """

    now: float
    limit: int
    unreserved: int
    backlog: Mapping[str, int] = field(default_factory=dict)
    warm: Warm = COLD
    most: Mapping[str, int] = field(default_factory=dict)


def choose(waiting: Sequence[Item], shares: Shares, rules: Rules, load: Load) -> tuple[list[Item], Shares]:
    """The next jobs, in their order, and the shares after them."""
    used = _decayed(shares, rules, load.now)
    lines = {name: _Line(items, used, rules, load) for name, items in _by_class(waiting).items()}
    weights = class_weights(lines, rules, load)
    finish, virtual_time = dict(shares.finish), shares.virtual_time
    chosen: list[Item] = []
    unreserved, room = load.unreserved, dict(load.most)
    while len(chosen) < load.limit:
        open_classes = [
            c
            for c in RANKED
            if c in lines and (c is ServiceClass.PREMIUM or unreserved > 0) and room.get(c, 1) > 0
        ]
        if not open_classes:
            break
        name = min(open_classes, key=lambda c: max(virtual_time, finish.get(c, 0.0)))
        item = lines[name].take()
        virtual_time = max(virtual_time, finish.get(name, 0.0))
        finish[name] = virtual_time + item.cost / weights[name]
        unreserved -= name is not ServiceClass.PREMIUM
        if name in room:
            room[name] -= 1
        chosen.append(item)
        if not lines[name]:
            del lines[name]
    next_shares = replace(shares, virtual_time=virtual_time, finish=finish, used=used, as_of=load.now)
    return chosen, next_shares


def class_weights(lines: "Mapping[str, _Line]", rules: Rules, load: Load) -> dict[str, float]:
    """The configured weights, lowered so that no class drains faster, for its backlog, than a better one.

    Without this, 400 bulk jobs behind 1,200 standard ones would have the same median start: a
    class's share is per class, but waiting is per job. A class with an aged job has its whole weight.
    """
    weights: dict[str, float] = {}
    ceiling = float("inf")  # share of its backlog that the class above drains, in units of its weight
    for name in (c for c in RANKED if c in lines):
        backlog = max(load.backlog.get(name, 0), lines[name].tokens, 1)
        scale = min(1.0, ceiling * backlog)
        weights[name] = rules.weights[name] * (1.0 if lines[name].has_aged else scale)
        ceiling = min(ceiling, scale / backlog)
    return weights


def _decayed(shares: Shares, rules: Rules, now: float) -> dict[Owner, float]:
    """Recent use: half of it is forgiven every half-life, and what is next to nothing is dropped."""
    factor = 0.5 ** (max(0.0, now - shares.as_of) / rules.tenant_half_life)
    return {tenant: tokens * factor for tenant, tokens in shares.used.items() if tokens * factor >= 1.0}


def _by_class(waiting: Iterable[Item]) -> dict[str, list[Item]]:
    classes: defaultdict[str, list[Item]] = defaultdict(list)
    for item in waiting:
        classes[item.service_class].append(item)
    return classes


class _Line:
    """The waiting jobs of one class while a choice is made; charges each job to its tenant."""

    def __init__(self, items: Sequence[Item], used: dict[Owner, float], rules: Rules, load: Load) -> None:
        self.tokens = sum(item.cost for item in items)
        self._used = used
        self._quantum = rules.tenant_quantum
        horizon = load.now - rules.ageing[items[0].service_class]
        aged = [item for item in items if item.batch is None and item.arrived <= horizon]
        # Reversed, so that the next one is popped from the end.
        self._aged = sorted(aged, key=lambda item: (item.arrived, item.key), reverse=True)
        self._tenants = _by_tenant(
            [item for item in items if item.batch is not None or item.arrived > horizon], rules, load
        )
        # Kept, for a turn changes only when its tenant takes one.
        self._turns = {tenant: self._turn(tenant) for tenant in self._tenants}
        self.has_aged = bool(aged)

    def __bool__(self) -> bool:
        return bool(self._aged or self._tenants)

    def take(self) -> Item:
        item = self._aged.pop() if self._aged else self._take_fair()
        for owner in ((item.service_class, item.tenant), _flow(item)):
            self._used[owner] = self._used.get(owner, 0.0) + item.cost
        if item.tenant in self._tenants:
            self._turns[item.tenant] = self._turn(item.tenant)
        return item

    def _take_fair(self) -> Item:
        tenant = min(self._turns, key=self._turns.__getitem__)
        flows = self._tenants[tenant]
        flow = (
            min(flows, key=lambda name: self._flow_turn(flows[name])) if len(flows) > 1 else next(iter(flows))
        )
        _, item = flows[flow].pop()
        if not flows[flow]:
            del flows[flow]
        if not flows:
            del self._tenants[tenant], self._turns[tenant]
        return item

    def _turn(self, tenant: str) -> "tuple[int, _FlowRank]":
        flows = self._tenants[tenant].values()
        service_class = next(iter(flows))[-1][1].service_class
        return self._steps((service_class, tenant)), min(map(self._flow_turn, flows))

    def _flow_turn(self, line: "_Queue") -> "_FlowRank":
        rank, item = line[-1]
        return rank[:3], self._steps(_flow(item)), rank[3:]

    def _steps(self, owner: Owner) -> int:
        return int(self._used.get(owner, 0.0) / self._quantum)


def _flow(item: Item) -> Owner:
    return (item.service_class, item.tenant, item.batch or "")


_Rank = tuple[int, int, float, Rank, float, str]
_FlowRank = tuple[tuple[int, int, float], int, tuple[Rank, float, str]]
_Queue = list[tuple[_Rank, Item]]


def _by_tenant(items: Sequence[Item], rules: Rules, load: Load) -> dict[str, dict[str | None, _Queue]]:
    """Each tenant's jobs, those of each batch apart, by the rules below their turns, the next one last."""
    alike = ranks(items, warm=load.warm, most=rules.max_shared_prefix)
    tenants: defaultdict[str, defaultdict[str | None, _Queue]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        beginning = alike.get(item.key)
        is_plain = beginning is None and item.deadline is None
        rank = item.plain if is_plain else _rank(item, beginning or unshared(item), rules, load.now)
        tenants[item.tenant][item.batch].append((rank, item))
    for flows in tenants.values():
        for line in flows.values():
            line.sort(key=lambda entry: entry[0], reverse=True)
    return {tenant: dict(flows) for tenant, flows in tenants.items()}


def _rank(item: Item, beginning: Rank, rules: Rules, now: float) -> _Rank:
    urgent = item.deadline is not None and item.deadline - now <= rules.deadline_slack
    return (
        -item.priority,
        0 if urgent else 1,
        item.deadline if urgent and item.deadline is not None else 0.0,
        beginning,
        item.arrived,
        item.key,
    )
