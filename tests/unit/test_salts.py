from datetime import UTC, datetime
from typing import Any

from models.lifecycle import Status
from models.repositories.execution import Claim
from models.views import JobView
from workers.prompts import to_prompt
from workers.salts import EVERYBODY, Salts

PRIVATE = Salts(b"secret", frozenset({"acme", "globex"}))


def claimed(**request: Any) -> Claim:
    view = JobView(
        id="job_1",
        tenant_id="acme",
        model="m",
        service_class="standard",
        priority=5,
        status=Status.RUNNING,
        version=1,
        created_at=datetime.now(UTC),
        attempt=1,
    )
    return Claim(view, request, None, 10)


def test_a_tenant_that_asked_for_it_has_a_salt_of_its_own() -> None:
    assert PRIVATE.of("acme") == PRIVATE.of("acme") != PRIVATE.of("globex")
    assert PRIVATE.of("acme") is not None


def test_the_others_share() -> None:
    assert PRIVATE.of("initech") is None
    assert Salts().of("acme") is None


def test_a_salt_needs_the_servers_secret() -> None:
    assert PRIVATE.of("acme") != Salts(b"another", frozenset({"acme"})).of("acme")


def test_a_star_names_everybody_and_still_keeps_them_apart() -> None:
    everybody = Salts(b"secret", frozenset({EVERYBODY}))

    assert None not in {everybody.of("acme"), everybody.of("globex")}
    assert everybody.of("acme") != everybody.of("globex")


def test_a_salt_that_the_request_names_reaches_no_engine() -> None:
    claim = claimed(prompt="hello", cache_salt="globex's", extra_key="x")

    assert to_prompt(claim, chat=True).cache_salt is None
    assert to_prompt(claim, chat=True, salt="ours").cache_salt == "ours"
