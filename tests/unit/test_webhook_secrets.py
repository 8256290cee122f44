import base64
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.errors import ConfigurationMistake
from models.webhook_events import wants
from models.webhook_secrets import SecretRow, Vault, new_secret

NOW = datetime(2030, 1, 1, tzinfo=UTC)
# Whatever the way: insert(_results), insert_rows(connection, _results, …), copy_rows(…).
_WRITES_RESULTS = re.compile(r"(?:insert|insert_rows|copy_rows)\((?:connection, )?_results\b")
VAULT = Vault(SecretStr("a pepper"))
ROOT = Path(__file__).resolve().parents[2]


def test_a_secret_is_32_bytes_in_padded_base64() -> None:
    secret = new_secret()

    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret != new_secret()


def test_a_sealed_secret_opens_for_its_owner_under_its_pepper_only() -> None:
    secret = new_secret()
    sealed = VAULT.seal(secret, "whep_1")

    assert VAULT.open(sealed, "whep_1") == secret
    assert secret.removeprefix("whsec_") not in sealed
    assert VAULT.seal(secret, "whep_1") != sealed
    for vault, owner in ((VAULT, "whep_2"), (Vault(SecretStr("another")), "whep_1")):
        with pytest.raises(ConfigurationMistake):
            vault.open(sealed, owner)


def test_the_previous_secret_signs_until_its_time_is_over() -> None:
    row = SecretRow("o", "t", VAULT.seal("new", "o"), VAULT.seal("old", "o"), NOW + timedelta(hours=24))

    assert VAULT.live(row, NOW) == ["new", "old"]
    assert VAULT.live(row, NOW + timedelta(hours=24)) == ["new"]
    assert VAULT.live(SecretRow("o", "t", row.current), NOW) == ["new"]


def test_an_empty_filter_wants_all_and_a_test_is_always_wanted() -> None:
    assert wants([], "job.failed")
    assert wants(["job.failed"], "job.failed")
    assert not wants(["job.failed"], "job.completed")
    assert wants(["job.failed"], "webhook.test")


def test_one_module_alone_writes_down_how_a_job_ended() -> None:
    """So that no way to end can forget whom to tell."""
    writers = [
        path.name
        for path in (ROOT / "models").rglob("*.py")
        if _WRITES_RESULTS.search(path.read_text(encoding="utf-8"))
    ]

    assert writers == ["results.py"]
