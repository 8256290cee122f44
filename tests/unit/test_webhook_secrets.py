import base64
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from cli.webhook_listener import make_server
from core.errors import ConfigurationMistake
from models.webhook_events import body, wants
from models.webhook_secrets import SecretRow, Vault, new_secret
from workers.webhooks.service import sign

NOW = datetime(2030, 1, 1, tzinfo=UTC)
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
        if "insert(_results)" in path.read_text(encoding="utf-8")
    ]

    assert writers == ["results.py"]


@pytest.fixture
def listener() -> Iterator[tuple[str, str]]:
    """`penstock webhooks listen`: its address and the secret it takes."""
    secret = new_secret()
    server = make_server([new_secret(), secret], host="127.0.0.1", port=0, as_json=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", secret
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_listener_prints_what_verifies_and_refuses_the_rest(
    listener: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    (url, secret), at = listener, datetime.now(UTC)
    content = body("evt_1", "job.completed", at, {"id": "job_1", "status": "completed"})
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": sign([secret], "evt_1", at, content),
    }

    taken = httpx.post(url, content=content, headers=headers)
    altered = httpx.post(url, content=content + " ", headers=headers)
    nonsense = httpx.post(url, content=b"\xff", headers={})

    assert (taken.status_code, altered.status_code, nonsense.status_code) == (204, 400, 400)
    said = capfd.readouterr()
    assert '"evt_1"' in said.out
    assert "refused: No matching signature found" in said.err


def test_a_listener_without_a_sound_secret_does_not_start() -> None:
    with pytest.raises(ConfigurationMistake):
        make_server(["whsec_!"], host="127.0.0.1", port=0, as_json=False)
