"""The one order: each rule, and the promises that hold under any backlog."""

import random
from collections import Counter
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.settings import OrderSettings
from queues.order import Item, Load, Rules, Shares, choose
from queues.prefixes import Warm, trail_of

RULES = Rules.of(OrderSettings())
NOW = 1_000_000.0


def item(key: str, **changes: object) -> Item:
    values: dict[str, object] = {
        "service_class": "standard",
        "tenant": "acme",
        "priority": 5,
        "cost": 100,
        "arrived": NOW - 1,
    }
    return Item(key=key, **(values | changes))  # type: ignore[arg-type]


def order_of(
    waiting: list[Item], *, rules: Rules = RULES, shares: Shares | None = None, **load: object
) -> list[str]:
    settings_of_load: dict[str, object] = {"now": NOW, "limit": len(waiting), "unreserved": len(waiting)}
    chosen, _ = choose(waiting, shares or Shares(), rules, Load(**(settings_of_load | load)))  # type: ignore[arg-type]
    return [one.key for one in chosen]


def test_no_more_of_a_class_begin_than_are_allowed() -> None:
    waiting = [item(f"bulk-{n}", service_class="bulk") for n in range(5)] + [item("one")]

    assert order_of(waiting, most={"bulk": 2}) == ["one", "bulk-0", "bulk-1"]
    assert order_of(waiting[:5], most={"bulk": 0}) == []


def drain(waiting: list[Item], *, window: int = 1) -> list[Item]:
    """Everything, in the order it starts, as a worker of `window` slots would take it."""
    shares, started, left = Shares(), [], list(waiting)
    while left:
        load = Load(now=NOW, limit=window, unreserved=window)
        chosen, shares = choose(left, shares, RULES, load)
        taken = {one.key for one in chosen}
        left = [one for one in left if one.key not in taken]
        started += chosen
    return started


def mixed(counts: dict[str, int], seed: int = 0) -> list[Item]:
    dice = random.Random(seed)  # noqa: S311 - a repeatable mix
    return [
        item(f"{name}-{n}", service_class=name, cost=dice.randint(50, 500), arrived=NOW - dice.random())
        for name, count in counts.items()
        for n in range(count)
    ]


def test_first_come_is_first_served_when_nothing_else_tells_jobs_apart() -> None:
    assert order_of([item("b", arrived=NOW - 1), item("a", arrived=NOW - 2)]) == ["a", "b"]


def test_a_higher_priority_goes_first() -> None:
    assert order_of([item("low", priority=1, arrived=NOW - 9), item("high", priority=9)]) == ["high", "low"]


def test_a_deadline_with_short_slack_goes_before_one_with_time() -> None:
    waiting = [item("none"), item("later", deadline=NOW + 99), item("soon", deadline=NOW + 2)]
    assert order_of(waiting)[0] == "soon"


def test_priority_outranks_a_deadline() -> None:
    assert order_of([item("soon", deadline=NOW + 1), item("high", priority=9)])[0] == "high"


def test_jobs_that_share_a_prefix_stay_together_longest_first() -> None:
    waiting = [
        item("a1", prefix="a", prefix_tokens=100, arrived=NOW - 6),
        item("b1", prefix="b", prefix_tokens=500, arrived=NOW - 5),
        item("alone", arrived=NOW - 7),
        item("a2", prefix="a", prefix_tokens=100, arrived=NOW - 4),
        item("b2", prefix="b", prefix_tokens=500, arrived=NOW - 3),
    ]
    assert order_of(waiting) == ["b1", "b2", "a1", "a2", "alone"]


def test_a_warm_prefix_goes_before_a_longer_cold_one() -> None:
    waiting = [
        item("cold1", prefix="cold", prefix_tokens=900),
        item("cold2", prefix="cold", prefix_tokens=900),
        item("warm", prefix="warm", prefix_tokens=100),
    ]
    assert order_of(waiting, warm=Warm(frozenset({"warm"})))[0] == "warm"


def test_prompts_without_a_name_stay_together_as_far_as_they_begin_alike() -> None:
    trails = {name: trail_of([name[0] * 300, name]) for name in ("a1", "a2", "b1", "b2", "zero")}
    waiting = [
        item("b1", trail=trails["b1"], arrived=NOW - 6),
        item("zero", trail=trails["zero"], arrived=NOW - 7),
        item("a1", trail=trails["a1"], arrived=NOW - 5),
        item("b2", trail=trails["b2"], arrived=NOW - 4),
        item("a2", trail=trails["a2"], arrived=NOW - 3),
    ]

    assert order_of(waiting) == ["b1", "b2", "a1", "a2", "zero"]


def test_priority_and_turns_outrank_a_trail() -> None:
    trail = trail_of(["a" * 600])
    waiting = [item(f"kin{n}", trail=trail) for n in range(3)] + [item("high", priority=9)]

    assert order_of(waiting)[0] == "high"


def test_an_aged_job_goes_before_everything_in_its_class() -> None:
    waiting = [item("high", priority=9), item("old", priority=0, arrived=NOW - 301)]
    assert order_of(waiting) == ["old", "high"]


def test_a_newcomer_goes_before_the_tenant_that_used_much() -> None:
    shares = Shares(used={("standard", "greedy"): 50_000.0}, as_of=NOW)
    waiting = [item(f"g{n}", tenant="greedy", arrived=NOW - 9) for n in range(20)]
    waiting += [item(f"n{n}", tenant="newcomer") for n in range(10)]
    assert order_of(waiting, shares=shares)[:10] == [f"n{n}" for n in range(10)]


def test_what_a_tenant_used_is_forgiven_with_time() -> None:
    shares = Shares(used={("standard", "greedy"): 50_000.0}, as_of=NOW - 600)
    waiting = [item("g", tenant="greedy", arrived=NOW - 9), item("n", tenant="newcomer")]
    assert order_of(waiting, shares=shares) == ["g", "n"]


def test_backlogged_tenants_get_equal_tokens_whatever_their_jobs_cost() -> None:
    waiting = [item(f"small{n}", tenant="small", cost=100) for n in range(2000)]
    waiting += [item(f"large{n}", tenant="large", cost=2000) for n in range(200)]
    chosen, _ = choose(waiting, Shares(), RULES, Load(now=NOW, limit=1000, unreserved=1000))
    tokens: Counter[str] = Counter()
    for one in chosen:
        tokens[one.tenant] += one.cost
    assert abs(tokens["small"] - tokens["large"]) <= 2 * RULES.tenant_quantum


def test_reserved_slots_are_for_premium_alone() -> None:
    waiting = [item("s1"), item("s2"), item("p", service_class="premium")]
    assert order_of(waiting, limit=2, unreserved=0) == ["p"]


def test_all_backlogged_classes_share_by_weight() -> None:
    counts = {"premium": 4000, "standard": 4000, "bulk": 4000}
    waiting = [item(f"{c}{n}", service_class=c) for c, count in counts.items() for n in range(count)]
    chosen, _ = choose(waiting, Shares(), RULES, Load(now=NOW, limit=1200, unreserved=1200))
    started = Counter(one.service_class for one in chosen)
    assert {c: round(n / 100) for c, n in started.items()} == {"premium": 8, "standard": 3, "bulk": 1}


def test_premium_behind_a_bulk_backlog_is_next() -> None:
    backlog = [item(f"b{n}", service_class="bulk") for n in range(2000)]
    _, shares = choose(backlog, Shares(), RULES, Load(now=NOW, limit=500, unreserved=500))
    waiting = [*backlog[500:], item("p", service_class="premium", arrived=NOW)]
    assert order_of(waiting, shares=shares, limit=1)[0] == "p"


@settings(max_examples=25, deadline=None)
@given(
    st.fixed_dictionaries({c: st.integers(20, 150) for c in ("premium", "standard", "bulk")}),
    st.integers(0, 9),
    st.sampled_from([1, 8]),
)
def test_the_median_start_is_ordered_by_class_under_any_backlog(
    counts: dict[str, int], seed: int, window: int
) -> None:
    started = drain(mixed(counts, seed), window=window)
    starts = {c: [n for n, one in enumerate(started) if one.service_class == c] for c in counts}
    assert median(starts["premium"]) < median(starts["standard"]) < median(starts["bulk"])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 100), st.integers(0, 9))
def test_a_choice_is_a_subset_without_repeats_as_long_as_the_limit_allows(
    premium: int, standard: int, bulk: int, limit: int, seed: int
) -> None:
    waiting = mixed({"premium": premium, "standard": standard, "bulk": bulk}, seed)
    chosen = order_of(waiting, limit=limit, unreserved=limit)
    assert len(chosen) == len(set(chosen)) == min(limit, len(waiting))
    assert set(chosen) <= {one.key for one in waiting}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 9))
def test_the_order_does_not_depend_on_how_the_rows_came(count: int, seed: int) -> None:
    waiting = mixed({"premium": count, "standard": count, "bulk": count}, seed)
    shuffled = random.Random(seed + 1).sample(waiting, len(waiting))  # noqa: S311
    assert order_of(shuffled) == order_of(waiting)


@pytest.mark.parametrize("flood", ["premium", "standard"])
def test_an_aged_class_gets_its_whole_weight_beside_a_flood(flood: str) -> None:
    waiting = [item(f"f{n}", service_class=flood) for n in range(3000)]
    waiting += [item(f"b{n}", service_class="bulk", arrived=NOW - 1801) for n in range(10)]
    chosen, _ = choose(waiting, Shares(), RULES, Load(now=NOW, limit=150, unreserved=150))
    assert sum(one.service_class == "bulk" for one in chosen) == 10


def test_batches_of_one_tenant_take_turns_by_tokens() -> None:
    first = [item(f"a{n:02}", batch="batch_a", cost=512) for n in range(6)]
    second = [item(f"b{n:02}", batch="batch_b", cost=512) for n in range(6)]

    chosen, _ = choose([*first, *second], Shares(), RULES, Load(now=NOW, limit=4, unreserved=4))

    assert sorted(one.batch or "" for one in chosen) == ["batch_a", "batch_a", "batch_b", "batch_b"]


def test_a_line_of_a_batch_does_not_overtake_by_its_age() -> None:
    old = item("old", tenant="a", batch="batch_a", arrived=NOW - 100_000, cost=512)
    used = {("standard", "a"): 5_000.0, ("standard", "a", "batch_a"): 5_000.0}
    fresh = item("fresh", tenant="b")

    chosen, _ = choose(
        [old, fresh], Shares(used=used, as_of=NOW), RULES, Load(now=NOW, limit=1, unreserved=1)
    )

    assert [one.key for one in chosen] == ["fresh"]
