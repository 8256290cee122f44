"""Identifiers sort by time and do not repeat."""

from datetime import UTC, datetime

import pytest

from core.ids import first_id, new_id, numbered_id


def test_ids_sort_by_the_time_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    instants = iter([1, 1_700_000_000_000, 1_700_000_000_001, 2_000_000_000_000])
    monkeypatch.setattr("core.ids.time.time_ns", lambda: next(instants) * 1_000_000)
    made = [new_id("job") for _ in range(4)]
    assert made == sorted(made)


def test_ids_made_at_once_differ() -> None:
    assert len({new_id("job") for _ in range(10_000)}) == 10_000


def test_an_id_names_its_kind_and_is_short() -> None:
    assert new_id("key").startswith("key_")
    assert len(new_id("key")) == len("key_") + 22


def test_a_search_by_time_begins_before_every_id_of_that_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr("core.ids.time.time_ns", lambda: int(at.timestamp() * 1e9))
    made = new_id("job")
    monkeypatch.setattr("core.ids.time.time_ns", lambda: int(at.timestamp() * 1e9) - 1_000_000)
    before = new_id("job")

    assert before < first_id("job", at) < made


def test_numbered_ids_are_the_same_each_time_and_in_the_order_of_their_numbers() -> None:
    before, series, after = (new_id("job") for _ in range(3))
    numbers = [0, 1, 4095, 4096, 70_000, 2**24 - 1]
    made = [numbered_id("job", series, number) for number in numbers]

    assert made == sorted(set(made))
    assert made == [numbered_id("job", series, number) for number in numbers]
    assert not set(made) & {numbered_id("job", after, number) for number in numbers}
    assert all(len(one) == len(series) for one in made)
    assert before[:10] <= made[0][:10]
