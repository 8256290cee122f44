from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from models.lifecycle import Status
from models.repositories.execution import Claim
from models.views import JobView
from workers.engines.protocol import DEFAULT_PRIORITY
from workers.prompts import to_prompt
from workers.salts import Salts

SALTS = Salts(b"secret")


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
    mine, again, other = (SALTS.of(tenant, is_private=True) for tenant in ("acme", "acme", "globex"))

    assert mine is not None
    assert mine == again != other


def test_the_others_share() -> None:
    assert SALTS.of("acme", is_private=False) is None


def test_a_salt_needs_the_servers_secret() -> None:
    assert SALTS.of("acme", is_private=True) != Salts(b"another").of("acme", is_private=True)


def test_everybody_may_be_kept_apart_without_asking() -> None:
    salts = Salts(b"secret", everybody=True)

    mine, other = (salts.of(tenant, is_private=False) for tenant in ("acme", "globex"))

    assert None not in {mine, other}
    assert mine != other


def test_a_salt_that_the_request_names_reaches_no_engine() -> None:
    claim = claimed(prompt="hello", cache_salt="globex's", extra_key="x")

    assert to_prompt(claim, chat=True).cache_salt is None
    assert to_prompt(claim, chat=True, salt="ours").cache_salt == "ours"


def test_a_class_outranks_every_priority_of_the_classes_below() -> None:
    def rank(service_class: str, priority: int) -> int:
        claim = claimed(prompt="hello")
        view = replace(claim.view, service_class=service_class, priority=priority)
        return to_prompt(replace(claim, view=view), chat=True).priority

    order = [rank(name, priority) for name in ("bulk", "standard", "premium") for priority in range(10)]

    assert order == list(range(30))
    assert rank("standard", 5) == DEFAULT_PRIORITY
