from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from models.dialect import Database
from models.repositories import access, fleet
from models.repositories.access import KeyRow, TenantRow
from models.repositories.fleet import Shift, WorkerRow
from tests.contracts.stores import HOUR, ago, now

ACME = TenantRow("ten_1", "acme", ago(days=1))
KEY = KeyRow("key_1", ACME.id, "ci", "hash", ["jobs", "admin"], "premium", ago(days=1))


@pytest.fixture
async def acme(database: Database) -> TenantRow:
    async with database.begin() as connection:
        await access.add_tenant(connection, ACME)
        await access.add_key(connection, KEY)
    return ACME


async def found(database: Database, key_id: str = KEY.id) -> KeyRow | None:
    async with database.read() as connection:
        return await access.find_key(connection, key_id)


async def test_a_key_is_found_as_it_was_added(database: Database, acme: TenantRow) -> None:
    assert await found(database) == KEY
    assert await found(database, "key_2") is None


async def test_a_tenant_is_found_by_name_and_by_id(database: Database, acme: TenantRow) -> None:
    async with database.read() as connection:
        looked_up = [await access.find_tenant(connection, name) for name in ("acme", "ten_1", "nobody")]
        assert await access.tenants(connection) == [acme]

    assert looked_up == [acme, acme, None]


async def test_a_revoked_key_is_not_found(database: Database, acme: TenantRow) -> None:
    async with database.begin() as connection:
        first = await access.revoke_key(connection, KEY.id)
        again = await access.revoke_key(connection, KEY.id)

    assert (first, again) == (True, False)
    assert await found(database) is None


async def test_an_expired_key_is_not_found(database: Database, acme: TenantRow) -> None:
    async with database.begin() as connection:
        await access.expire_key(connection, KEY.id, soon := now() + HOUR)
    still = await found(database)
    async with database.begin() as connection:
        await access.expire_key(connection, KEY.id, ago(seconds=1))

    assert still == replace(KEY, expires_at=soon)
    assert await found(database) is None


async def test_the_keys_of_a_disabled_tenant_are_not_found(database: Database, acme: TenantRow) -> None:
    async with database.begin() as connection:
        await access.set_tenant_disabled(connection, acme.id, disabled=True)
    disabled = await found(database)
    async with database.begin() as connection:
        await access.set_tenant_disabled(connection, acme.id, disabled=False)

    assert disabled is None
    assert await found(database) == KEY


async def test_what_is_not_there_is_not_changed(database: Database) -> None:
    async with database.begin() as connection:
        assert not await access.set_tenant_disabled(connection, "ten_9", disabled=True)
        assert not await access.revoke_key(connection, "key_9")
        assert not await access.expire_key(connection, "key_9", now())


async def test_a_key_that_is_put_again_has_the_new_word(database: Database, acme: TenantRow) -> None:
    changed = replace(KEY, secret_hash="other", max_class="bulk")

    for row in (changed, changed):
        async with database.begin() as connection:
            await access.put_key(database, connection, row)

    assert await found(database) == changed


async def test_keys_are_listed_by_tenant(database: Database, acme: TenantRow) -> None:
    other = TenantRow("ten_2", "other", now())
    second = replace(KEY, id="key_2", tenant_id=other.id, created_at=now())
    async with database.begin() as connection:
        await access.add_tenant(connection, other)
        await access.add_key(connection, second)

    async with database.read() as connection:
        assert await access.keys(connection) == [KEY, second]
        assert await access.keys(connection, other.id) == [second]


async def report(database: Database, name: str, slots: dict[str, int], state: str = "ready") -> None:
    async with database.begin() as connection:
        await fleet.report(database, connection, name=name, slots=slots, held={"tiny": 1}, state=state)


async def alive(database: Database, within: timedelta = HOUR) -> list[WorkerRow]:
    async with database.read() as connection:
        return await fleet.alive(connection, within=within)


async def test_a_worker_is_alive_by_its_last_heartbeat(database: Database) -> None:
    await report(database, "b", {"tiny": 4})
    await report(database, "a", {"tiny": 8})
    [_, before] = await alive(database)

    await report(database, "b", {"tiny": 2}, "draining")

    first, second = await alive(database)
    assert (first.name, first.slots, first.held, first.state) == ("a", {"tiny": 8}, {"tiny": 1}, "ready")
    assert (second.name, second.slots, second.state) == ("b", {"tiny": 2}, "draining")
    assert second.started_at == before.started_at
    assert second.seen_at >= before.seen_at


async def test_a_silent_worker_is_not_alive_and_is_forgotten(database: Database) -> None:
    await report(database, "a", {"tiny": 1})
    silent = await alive(database, timedelta(hours=-1))  # seen more than an hour after now

    async with database.begin() as connection:
        await fleet.forget_silent(connection, after=HOUR)
    kept = await alive(database)
    async with database.begin() as connection:
        await fleet.forget_silent(connection, after=timedelta(hours=-1))

    assert silent == []
    assert [worker.name for worker in kept] == ["a"]
    assert await alive(database) == []


async def test_a_worker_that_signs_off_is_gone(database: Database) -> None:
    for name in ("a", "b"):
        await report(database, name, {"tiny": 1})

    async with database.begin() as connection:
        await fleet.sign_off(connection, "a")

    assert [worker.name for worker in await alive(database)] == ["b"]


async def shifts(database: Database, *, alive_within: timedelta = HOUR) -> list[Shift]:
    async with database.read() as connection:
        found = await fleet.shifts(connection, datetime.now(UTC) - HOUR, alive_within=alive_within)
    return sorted(found, key=lambda shift: shift.models)


async def test_the_time_of_workers_that_have_gone_is_kept(database: Database) -> None:
    for name in ("a", "b", "c"):
        await report(database, name, {name: 1})
    seen = {worker.name: worker for worker in await alive(database)}

    async with database.begin() as connection:
        await fleet.sign_off(connection, "a")
    silent = await shifts(database, alive_within=-HOUR)
    [signed_off, _, still_there] = await shifts(database)
    async with database.begin() as connection:
        await fleet.forget_silent(connection, after=-HOUR)
    forgotten = await shifts(database)

    assert [shift.models for shift in silent] == [("a",), ("b",), ("c",)]
    assert (signed_off.started_at, silent[1].ended_at) == (seen["a"].started_at, seen["b"].seen_at)
    assert signed_off.ended_at > seen["a"].seen_at
    assert still_there.ended_at > seen["c"].seen_at
    assert forgotten == silent


async def test_the_time_of_workers_is_forgotten_after_a_while(database: Database) -> None:
    await report(database, "a", {"tiny": 1})
    async with database.begin() as connection:
        await fleet.sign_off(connection, "a")
        await fleet.forget_shifts(connection, before=datetime.now(UTC) - HOUR)
    kept = await shifts(database)

    async with database.begin() as connection:
        await fleet.forget_shifts(connection, before=datetime.now(UTC) + HOUR)

    assert len(kept) == 1
    assert await shifts(database) == []
