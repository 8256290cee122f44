import pytest

from queues.requests.json_schemas import schema_problem
from queues.requests.patterns import pattern_problem


@pytest.mark.parametrize("pattern", ["^a{5,2}$", "^(ab){3,1}$", "x[a]{2,1}", "(a{2}){3,1}", r"\\{2,1}"])
def test_a_repetition_that_nothing_can_follow_is_named(pattern: str) -> None:
    problem = pattern_problem(pattern)

    assert problem is not None
    assert problem.startswith("repeats something at least")


@pytest.mark.parametrize("pattern", ["a{2001}", "a{1,3000}", "a{2001,}", "a{99999999999999999999}"])
def test_a_repetition_beyond_what_engines_take_is_named(pattern: str) -> None:
    assert "may 2000 times" in (pattern_problem(pattern) or "")


@pytest.mark.parametrize(
    "pattern",
    ["", "^a{2,5}$", "a{3}", "a{0,}", "[a{5,2}]", r"\{5,2\}", "{,5}", "a{x}", "[", "[]{5,2}]", "(?<n>a)"],
)
def test_what_is_possible_or_only_an_engine_can_judge_passes(pattern: str) -> None:
    assert pattern_problem(pattern) is None


def test_a_pattern_is_found_wherever_a_schema_has_it_and_not_among_examples() -> None:
    hopeless = {"type": "string", "pattern": "^a{5,2}$"}
    nested = {"type": "object", "properties": {"pattern": {"type": "array", "items": hopeless}}}

    assert schema_problem(nested) == (
        "No answer can follow it: a pattern repeats something at least 5 and at most 2 times."
    )
    assert schema_problem({"enum": [hopeless]}) is None
