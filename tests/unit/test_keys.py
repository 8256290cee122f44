"""API keys: what is one, and whose."""

from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from core.errors import ConfigurationMistake
from models.keys import is_secret_of, new_key, parse_key

PEPPER = SecretStr("pepper")
NOW = datetime.now(UTC)


def test_a_new_key_is_recognised_and_its_secret_is_not_kept() -> None:
    for _ in range(200):  # secrets with hyphens and underscores anywhere
        row, clear = new_key("t", "n", pepper=PEPPER, created_at=NOW)
        parts = parse_key(clear)

        assert parts is not None
        assert parts[0] == row.id
        assert is_secret_of(row, parts[1], PEPPER)
        assert parts[1] not in str(row)


def test_another_secret_or_pepper_is_refused() -> None:
    row, clear = new_key("t", "n", pepper=PEPPER, created_at=NOW)
    _, secret = parse_key(clear) or ("", "")

    assert not is_secret_of(row, secret + "x", PEPPER)
    assert not is_secret_of(row, secret, SecretStr("other"))


def test_a_given_key_is_taken_and_a_poor_one_refused() -> None:
    given = "sk-dev-0123456789abcdef"

    assert new_key("t", "n", pepper=PEPPER, created_at=NOW, clear_text=given)[1] == given
    with pytest.raises(ConfigurationMistake):
        new_key("t", "n", pepper=PEPPER, created_at=NOW, clear_text="secret")


@pytest.mark.parametrize("text", ["", "sk-", "sk-a", "sk-a-b", "a b c d e f g", "sk-a-0123456789abcde\u0661"])
def test_what_is_no_key_is_none(text: str) -> None:
    assert parse_key(text) is None


def test_a_chosen_key_of_another_form_has_an_id_that_does_not_show_it() -> None:
    row, clear = new_key("t", "n", pepper=PEPPER, created_at=NOW, clear_text="local-development")

    assert parse_key(clear) == (row.id, "local-development")
    assert "local" not in row.id
