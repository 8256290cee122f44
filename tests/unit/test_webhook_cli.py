import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.webhook_listener import make_server
from core.errors import ConfigurationMistake
from models.webhook_events import body
from models.webhook_secrets import new_secret
from workers.webhooks.service import sign

ROW = {
    "id": "whd_1",
    "type": "job.completed",
    "state": "delivered",
    "attempts": 1,
    "last_status_code": 200,
    "job_id": "job_1",
    "endpoint_id": None,
    "created_at": "2030-01-01T00:00:00+00:00",
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """What the API was asked; it answers with one delivery."""
    made: list[tuple[str, str, Any]] = []

    def call(method: str, path: str, **request: Any) -> Any:
        made.append((method, path, request.get("params")))
        return {"data": [ROW]} if method == "GET" else ROW

    monkeypatch.setattr("cli.webhooks._call", call)
    return made


def test_deliveries_are_listed_by_job_endpoint_and_state(calls: list[tuple[str, str, Any]]) -> None:
    done = CliRunner().invoke(app, ["webhooks", "list", "--job", "job_1", "--state", "failed"])

    assert done.stdout.split("\t")[:3] == ["whd_1", "job.completed", "delivered"]
    assert calls == [("GET", "/v1/webhook_deliveries", {"job_id": "job_1", "state": "failed", "limit": 20})]


def test_each_delivery_named_is_sent_again(calls: list[tuple[str, str, Any]]) -> None:
    done = CliRunner().invoke(app, ["webhooks", "replay", "whd_1", "whd_2"])

    assert done.exit_code == 0
    assert [path for _, path, _ in calls] == [
        "/v1/webhook_deliveries/whd_1/redeliver",
        "/v1/webhook_deliveries/whd_2/redeliver",
    ]


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
