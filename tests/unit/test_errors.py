"""The tree of errors in HTTP: none is forgotten, and none says too much."""

from collections.abc import Iterator

import pytest
from fastapi.exceptions import RequestValidationError

from api.errors import STATUS, describe, status_of
from core import errors
from core.errors import ConfigurationMistake, PenstockError
from workers.engines import protocol  # noqa: F401 - subclasses anywhere in the code count


def tree(root: type[PenstockError] = PenstockError) -> Iterator[type[PenstockError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def of_the_platform() -> list[type[PenstockError]]:
    """What may reach the API: not what only the command line raises."""
    return [error for error in tree() if not error.__module__.startswith("cli.")]


@pytest.mark.parametrize("error", of_the_platform(), ids=lambda error: error.__name__)
def test_every_error_has_a_status_of_its_own_branch(error: type[PenstockError]) -> None:
    base = next(base for base in error.__mro__ if base in STATUS)

    assert base is not PenstockError or error is PenstockError
    assert 400 <= status_of(error) < 600


def test_every_error_is_drawn_in_the_tree() -> None:
    drawn = errors.__doc__ or ""

    missing = [
        error.__name__
        for error in tree()
        if error.__module__ == "core.errors" and error.__name__ not in drawn
    ]

    assert not missing


def test_what_nobody_foresaw_is_not_repeated() -> None:
    problem = describe(RuntimeError("password=hunter2"))

    assert problem.status == 500
    assert "hunter2" not in str(problem.body(instance="req_1"))


def test_a_value_is_not_repeated() -> None:
    found = [{"loc": ("query", "limit"), "msg": "Too large", "type": "x", "input": "hunter2"}]
    problem = describe(RequestValidationError(found))

    assert problem.errors == [{"field": "limit", "message": "Too large"}]
    assert "hunter2" not in str(problem)


def test_a_configuration_mistake_is_ours() -> None:
    assert status_of(ConfigurationMistake) == 500


def test_who_should_come_back_is_told_when() -> None:
    full = errors.OutboxFull("full")
    full.retry_after = 1000

    assert describe(full).headers == {"Retry-After": "120"}
    assert describe(errors.NotFinished("not yet")).headers == {"Retry-After": "1"}
    assert describe(errors.Conflict("never")).headers == {}


def test_a_field_is_named_wherever_its_mistake_is_told() -> None:
    body = describe(errors.InvalidField("deadline", "Is in the past.")).body(instance="req_1")

    assert body["detail"] == body["error"]["message"] == "deadline: Is in the past."
    assert body["error"]["param"] == "deadline"
    assert body["errors"] == [{"field": "deadline", "message": "Is in the past."}]
