from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DeadlineUnreachable, QueueFull, QueueTimeout
from core.overload_settings import InteractiveSettings, OverloadSettings
from models.degradation import ALL, NONE, Level, Terms, terms
from models.waiting import Waiting
from queues.policy.admission import Demand, interactive_limit, predicted_wait, refuse, truncate
from queues.policy.meter import Look, Meter, measure
from queues.policy.pressure import Pressure, Reading
from queues.policy.rules import advance
from queues.policy.state import State, Verdict

SETTINGS = OverloadSettings()
NOW = datetime(2030, 1, 1, tzinfo=UTC)
TICK = 0.5
CALM = State()


def pressed(waiting: int, **more: object) -> Pressure:
    classes = {"standard": Reading(jobs=waiting, tokens=waiting * 100, rate=1000.0, wait=waiting / 100)}
    return replace(Pressure(at=0.0, slots=8, running=8, classes=classes), **more)  # type: ignore[arg-type]


def play(waits: list[int], state: State = CALM, **more: object) -> list[State]:
    states = []
    for tick, waiting in enumerate(waits):
        state = advance(state, pressed(waiting, **more), SETTINGS, now=1000 + tick * TICK)
        states.append(state)
    return states


@pytest.mark.parametrize(
    ("waiting", "level"),
    [(50, Level.FULL), (51, Level.TRUNCATE), (101, Level.TEMPLATE), (201, Level.SIMILAR)],
)
def test_the_level_follows_what_waits_beyond_the_slots(waiting: int, level: Level) -> None:
    [state] = play([waiting])

    assert state.level is level


@pytest.mark.parametrize(("wait", "level"), [(1.0, 0), (1.1, 1), (2.1, 2), (4.1, 3)])
def test_the_level_follows_how_long_what_comes_now_would_wait(wait: float, level: int) -> None:
    classes = {"standard": Reading(jobs=9, tokens=900, rate=900 / wait, wait=wait)}
    pressure = Pressure(at=0.0, slots=8, running=8, classes=classes)

    state = advance(State(), pressure, SETTINGS, now=1.0)

    assert state.level == level
    assert state.rule == ("predicted_wait" if level else "none")


@pytest.mark.parametrize(
    ("growing", "waiting", "level"),
    [
        (0.0, 9, Level.FULL),
        (0.05, 9, Level.FULL),
        (0.3, 9, Level.TRUNCATE),
        (0.9, 9, Level.SIMILAR),
        (2.0, 7, Level.FULL),
    ],
)
def test_a_wait_that_grows_raises_the_level_before_it_is_long(
    growing: float, waiting: int, level: Level
) -> None:
    [state] = play([waiting], growing=growing)

    assert state.level is level
    assert state.rule == ("growing_wait" if level else "none")


@pytest.mark.parametrize(
    ("waits", "growing"),
    [([0, 30, 60, 90], 6.0), ([0, 90, 90, 90], 0.0), ([0, 90, 60, 30], 0.0), ([0, 30, 40, 90], 2.0)],
    ids=["steadily", "at once", "and was worked off", "as slowly as at the least look"],
)
def test_a_queue_grows_when_it_grew_at_each_of_the_last_looks(waits: list[int], growing: float) -> None:
    meter = Meter()
    for tick, jobs in enumerate(waits):
        look = Look(
            at=tick * TICK,
            slots=8,
            running=8,
            waiting={"standard": Waiting(jobs, 100 * jobs, 1.0)},
            counters={"started/standard": 500 * tick},
            is_whole=True,
        )
        meter, pressure = measure(meter, look)

    assert pressure.growing == pytest.approx(growing, rel=0.01)


def test_a_predicted_wait_of_fewer_than_there_are_slots_is_no_overload() -> None:
    classes = {"standard": Reading(jobs=7, tokens=700, rate=70.0, wait=10.0)}
    pressure = Pressure(at=0.0, slots=8, running=8, classes=classes)

    assert advance(State(), pressure, SETTINGS, now=1.0).level is Level.FULL


def test_bulk_alone_is_no_overload() -> None:
    pressure = Pressure(at=0.0, slots=8, running=8, classes={"bulk": Reading(jobs=10_000, wait=900.0)})

    assert advance(State(), pressure, SETTINGS, now=1.0).level is Level.FULL


def test_a_busy_gpu_alone_is_no_overload() -> None:
    assert advance(State(), pressed(3, gpu=1.0), SETTINGS, now=1.0).level is Level.FULL


def test_pressure_that_lasts_raises_the_level_by_one_a_dwell() -> None:
    levels = [state.level for state in play([60] * 22)]

    assert levels[0] is Level.TRUNCATE
    assert levels[10] is Level.TEMPLATE
    assert levels[20] is Level.SIMILAR
    assert levels == sorted(levels)


def test_calm_brings_the_level_back_to_zero_and_it_stays() -> None:
    states = play([300] * 4 + [0] * 200)

    levels = [state.level for state in states]
    assert (levels[3], levels[-1]) == (Level.SIMILAR, Level.FULL)
    assert levels[4:] == sorted(levels[4:], reverse=True)


def test_a_queue_that_is_short_because_it_is_degraded_is_no_calm() -> None:
    states = play([60] + [0] * 100, offered=3000.0, capacity=1000.0)

    assert states[-1].level is Level.TRUNCATE


def test_a_stale_reading_never_lowers_the_level() -> None:
    states = play([300] + [0] * 200, is_stale=True)

    assert states[-1].level is Level.SIMILAR


def test_a_pin_wins_over_every_rule_until_it_ends() -> None:
    pinned = State(level=Level.FULL, pinned_until=1010.0)

    states = play([500] * 30, pinned)

    assert all(state.level is Level.FULL for state in states[:20])
    assert states[-1].level is Level.SIMILAR


def test_full_gpus_and_a_growing_wait_turn_the_lowest_class_away_first() -> None:
    states = play([300 + n for n in range(40)], gpu=0.95)

    shed = [state.shed for state in states]
    assert frozenset({"bulk"}) in shed
    assert shed[-1] == {"bulk", "standard"}
    assert all("premium" not in one for one in shed)


@given(st.lists(st.integers(0, 400), min_size=100, max_size=400))
def test_whatever_comes_the_level_does_not_flap(waits: list[int]) -> None:
    states = play(waits)

    falls = [n for n in range(1, len(states)) if states[n].level < states[n - 1].level]
    assert all(states[n].level == states[n - 1].level - 1 for n in falls)
    apart = SETTINGS.calm.total_seconds() / TICK
    assert all(later - earlier >= apart for earlier, later in pairwise(falls))


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_more_pressure_never_means_less_degradation(one: int, other: int) -> None:
    less, more = sorted((one, other))

    assert play([less])[0].level <= play([more])[0].level


@given(
    st.sampled_from(list(Level)),
    st.frozensets(st.sampled_from([Level.TRUNCATE, Level.TEMPLATE, Level.SIMILAR])),
    st.integers(1, 4000),
)
def test_who_refuses_to_be_cut_short_is_not(level: Level, allow: frozenset[Level], asked: int) -> None:
    verdict = Verdict(State(level=level), Pressure(at=0.0))

    cut = truncate(
        verdict, Terms(allow), service_class="standard", asked=asked, thinks=False, policy=SETTINGS
    )

    assert (cut is not None) == (level >= 1 and Level.TRUNCATE in allow and asked > 128)
    assert cut is None or (cut.max_tokens, cut.level) == (128, Level.TRUNCATE)


def test_bulk_and_batches_refuse_everything_unless_they_say_otherwise() -> None:
    assert terms({}, service_class="standard").allow == ALL
    assert terms({}, service_class="bulk").allow == NONE
    assert terms({}, service_class="standard", batch_id="batch_1").allow == NONE
    assert terms({"degradation": {"allow": []}}, service_class="premium").allow == NONE
    assert terms({"degradation": {"allow": ["truncate"]}}, service_class="bulk").allow == {Level.TRUNCATE}


def verdict_of(wait: float, **state: object) -> Verdict:
    classes = {"standard": Reading(jobs=10, tokens=round(100 * wait), rate=100.0, wait=wait)}
    return Verdict(State(**state), Pressure(at=0.0, classes=classes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("demand", "kind"),
    [
        (Demand("standard", NOW, queue_deadline=NOW + timedelta(seconds=30)), QueueTimeout),
        (Demand("standard", NOW, deadline=NOW + timedelta(seconds=30)), DeadlineUnreachable),
        (Demand("standard", NOW, queue_deadline=NOW + timedelta(seconds=50)), None),
        (Demand("standard", NOW, queue_deadline=NOW + timedelta(seconds=50), ahead=2000), QueueTimeout),
        (Demand("standard", NOW), None),
    ],
)
def test_what_would_wait_in_vain_is_told_when_to_come_again(
    demand: Demand, kind: type[QueueFull] | None
) -> None:
    error = refuse(verdict_of(40.0), demand)

    assert (None if error is None else type(error)) is kind
    if error is not None:
        assert error.retry_after is not None
        assert 1 <= error.retry_after <= 120


def test_a_shed_class_is_turned_away_and_an_unknown_wait_is_not() -> None:
    assert isinstance(
        refuse(verdict_of(1.0, shed=frozenset({"standard"})), Demand("standard", NOW)), QueueFull
    )
    assert refuse(None, Demand("standard", NOW, queue_deadline=NOW)) is None


def test_the_strict_preset_allows_milliseconds() -> None:
    strict = InteractiveSettings(preset="strict")

    assert interactive_limit(strict, "premium") == timedelta(milliseconds=50)
    assert interactive_limit(strict, "standard") == timedelta(milliseconds=200)
    assert interactive_limit(InteractiveSettings(), "premium") == timedelta(seconds=10)


@pytest.mark.parametrize(
    ("age", "wait"), [(0.0, 40.0), (0.5, 39.5), (60.0, 39.0)], ids=["new", "of the last look", "long ago"]
)
def test_what_started_since_the_reading_is_ahead_no_longer(age: float, wait: float) -> None:
    found = verdict_of(40.0)
    read = replace(found, pressure=replace(found.pressure, at=NOW.timestamp() - age))

    assert predicted_wait(read, Demand("standard", NOW)) == pytest.approx(wait)


def test_what_comes_and_what_starts_is_known_of_each_class() -> None:
    meter = Meter()
    for tick in range(200):
        look = Look(
            at=tick * TICK,
            slots=8,
            running=8,
            waiting={"standard": Waiting(40, 4000 + 100 * tick, 3.0), "premium": Waiting(0, 0, 0.0)},
            counters={"started/standard": 500 * tick, "started/premium": 50 * tick},
            is_whole=True,
        )
        meter, pressure = measure(meter, look)

    standard, premium = pressure.classes["standard"], pressure.classes["premium"]
    assert (standard.flow, standard.arrivals) == (
        pytest.approx(1000, rel=0.01),
        pytest.approx(1200, rel=0.01),
    )
    assert (premium.flow, premium.arrivals) == (pytest.approx(100, rel=0.01), pytest.approx(100, rel=0.01))


def test_the_wait_is_the_tokens_ahead_at_the_rate_at_which_they_start() -> None:
    meter, started = Meter(), 0
    for tick in range(80):
        started += 500  # 1,000 tokens a second
        look = Look(
            at=tick * TICK,
            slots=8,
            running=8,
            waiting={"standard": Waiting(40, 4000, 3.0)},
            counters={"started/standard": started, "firsts": tick, "first_ms": tick * 2000},
            is_whole=True,
        )
        meter, pressure = measure(meter, look)

    assert pressure.wait("standard") == pytest.approx(4.0, rel=0.01)
    assert pressure.capacity == pytest.approx(1000, rel=0.01)
    assert pressure.first_token == pytest.approx(2.0, rel=0.01)


def test_without_counters_the_last_rates_stand_and_are_marked_stale() -> None:
    meter = Meter(at=1.0, rates={"standard": 100.0})
    look = Look(
        at=2.0, slots=8, running=8, waiting={"standard": Waiting(9, 500, 1.0)}, counters=None, is_whole=True
    )

    _, pressure = measure(meter, look)

    assert pressure.is_stale
    assert pressure.wait("standard") == 5.0
