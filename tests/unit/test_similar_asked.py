from typing import Any

import pytest

from queues.similar.asked import Asked, asked

CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How do I reset my password?"},
    ],
    "max_tokens": 64,
    "temperature": 0,
}


def of(changes: dict[str, Any] | None = None, *, model: str = "m", revision: str = "1") -> Asked:
    return asked({**CHAT, **(changes or {})}, model=model, revision=revision)


def chat(system: str, question: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
    }


def test_the_order_of_keys_and_what_changes_no_answer_make_no_difference() -> None:
    same = {"webhook": {"url": "https://x"}, "max_wait_ms": 5, "cache_key": "k", "degradation": {"allow": []}}

    assert of(same) == of()
    assert asked(dict(reversed(CHAT.items())), model="m", revision="1") == of()


def test_a_rewording_has_the_same_words_in_the_same_scope_and_is_another_request() -> None:
    other = of(chat("Be brief.", "please, how do I reset my password"))

    assert (other.scope, other.words) == (of().scope, of().words)
    assert other.exact != of().exact


@pytest.mark.parametrize(
    "changes",
    [
        chat("Be brief, please.", "How do I reset my password?"),
        {"temperature": 0.7},
        {"top_p": 0.5},
        {"response_format": {"type": "json_object"}},
        {"stop": ["\n"]},
        {"seed": 1},
        {"messages": [{"role": "assistant", "content": "Hi."}, *CHAT["messages"]]},  # type: ignore[misc]
    ],
)
def test_another_system_prompt_history_or_sampling_is_another_scope(changes: dict[str, Any]) -> None:
    assert of(changes).scope != of().scope


def test_another_model_or_revision_is_another_scope_and_request() -> None:
    for other in (of(model="n"), of(revision="2")):
        assert other.scope != of().scope
        assert other.exact != of().exact


def test_a_sampled_answer_is_exact_only_for_those_who_say_so() -> None:
    assert of().may_be_exact
    assert not of({"temperature": 0.7}).may_be_exact
    assert of({"temperature": 0.7, "cache": True}).may_be_exact
    assert not of({"temperature": None}).may_be_exact


def test_who_opts_out_is_neither_answered_nor_kept() -> None:
    assert not of({"cache": False}).may_be_exact
    assert not of({"cache": False}).may_be_similar


def test_what_does_not_end_with_a_question_is_compared_with_nothing() -> None:
    answered = {"messages": [*CHAT["messages"], {"role": "assistant", "content": "So:"}]}  # type: ignore[misc]

    assert not of(answered).may_be_similar
    assert of(answered).may_be_exact
