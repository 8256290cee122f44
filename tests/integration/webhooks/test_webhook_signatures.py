"""What we send, judged by the official libraries: PyPI's and npm's standardwebhooks, and openai."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from standardwebhooks import Webhook, WebhookVerificationError

from core.settings import Settings
from models.dialect import Database
from models.webhook_events import body
from tests.fakes.webhook_receiver import Received, WebhookReceiver
from tests.platform_fixtures import SimulatedWorker
from tests.webhooks import open_deliverer
from workers.webhooks.service import sign

Verify = Callable[[str, bytes, Mapping[str, str]], Any]

# Verifies each message of standard input with the official package, and says for each what came of it.
NODE = """
const { Webhook } = require("standardwebhooks");
const lines = require("fs").readFileSync(0, "utf8").trim().split("\\n");
for (const line of lines) {
  const { secret, body, headers } = JSON.parse(line);
  try { console.log(JSON.stringify({ event: new Webhook(secret).verify(body, headers) })); }
  catch (error) { console.log(JSON.stringify({ refused: error.constructor.name })); }
}
"""


class Refused(Exception):
    """The library said no."""


def by_pypi(secret: str, content: bytes, headers: Mapping[str, str]) -> Any:
    try:
        return Webhook(secret).verify(content, dict(headers))
    except WebhookVerificationError as error:
        raise Refused from error


def by_openai(secret: str, content: bytes, headers: Mapping[str, str]) -> Any:
    client = OpenAI(api_key="unused", webhook_secret=secret)
    try:
        return client.webhooks.unwrap(content, dict(headers)).to_dict(mode="json")
    except InvalidWebhookSignatureError as error:
        raise Refused from error
    finally:
        client.close()


@pytest.fixture(scope="session")
def npm_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("node") is None or shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("in CI node and npm must be there")
        pytest.skip("no node or npm")
    folder = tmp_path_factory.mktemp("npm")
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent", "standardwebhooks@1"]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=100)
    (folder / "verify.js").write_text(NODE)
    return folder


@pytest.fixture(params=["pypi", "npm", "openai"])
def verify(request: pytest.FixtureRequest) -> Verify:
    if request.param != "npm":
        return {"pypi": by_pypi, "openai": by_openai}[request.param]
    folder: Path = request.getfixturevalue("npm_package")

    def by_npm(secret: str, content: bytes, headers: Mapping[str, str]) -> Any:
        line = json.dumps({"secret": secret, "body": content.decode(), "headers": dict(headers)})
        command = ["node", "verify.js"]
        done = subprocess.run(command, cwd=folder, input=line, capture_output=True, text=True, check=True)
        said = json.loads(done.stdout)
        if "refused" in said:
            raise Refused(said["refused"])
        return said["event"]

    return by_npm


@dataclass(frozen=True, slots=True)
class Sent:
    call: Received
    old: str
    new: str | None


@pytest.fixture(params=["steady", "rotating"])
async def sent(  # noqa: PLR0917
    request: pytest.FixtureRequest,
    api_client: httpx.AsyncClient,
    database: Database,
    settings: Settings,
    worker: SimulatedWorker,
    receiver: WebhookReceiver,
) -> Sent:
    """A message as it arrived, before or during a rotation of its secret."""
    endpoint = (await api_client.post("/v1/webhook_endpoints", json={"url": receiver.url})).json()
    new = None
    if request.param == "rotating":
        rotated = await api_client.post(f"/v1/webhook_endpoints/{endpoint['id']}/rotate_secret")
        new = rotated.json()["secret"]
    job = (await api_client.post("/v1/jobs", json={"prompt": "Grüße", "metadata": {"ключ": "值 🌍"}})).json()
    await worker.run(job["id"], text="Grüße, 世界 🌍 \u2028 </script>")
    async with open_deliverer(database, settings) as deliverer:
        assert await deliverer.run_all() == ["delivered"]
    return Sent(receiver.received[0], endpoint["secret"], new)


def test_what_arrives_verifies_with_every_live_secret(sent: Sent, verify: Verify) -> None:
    for secret in filter(None, (sent.old, sent.new)):
        event = verify(secret, sent.call.body, sent.call.headers)

        assert event["type"] == "job.completed"
        assert event["data"]["output"]["text"] == "Grüße, 世界 🌍 \u2028 </script>"
        assert event["id"] == sent.call.event_id


def test_what_was_altered_is_refused(sent: Sent, verify: Verify) -> None:
    headers = sent.call.headers
    later = str(int(headers["webhook-timestamp"]) + 1)
    altered = [
        (sent.old, sent.call.body.replace(b"completed", b"cancelled"), headers),
        (sent.old, sent.call.body + b" ", headers),
        (sent.old, sent.call.body, headers | {"webhook-id": "evt_other"}),
        (sent.old, sent.call.body, headers | {"webhook-timestamp": later}),
        (sent.old, sent.call.body, headers | {"webhook-signature": "v1," + "A" * 43 + "="}),
        ("whsec_" + "A" * 43 + "=", sent.call.body, headers),
    ]

    for secret, content, given in altered:
        with pytest.raises(Refused):
            verify(secret, content, given)


@pytest.mark.parametrize("age", [timedelta(minutes=6), timedelta(minutes=-6)])
def test_what_is_replayed_later_is_refused(verify: Verify, age: timedelta) -> None:
    secret, at = "whsec_" + "B" * 43 + "=", datetime.now(UTC) - age
    content = body("evt_1", "job.completed", at, {"id": "job_1"})
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": sign([secret], "evt_1", at, content),
    }

    with pytest.raises(Refused):
        verify(secret, content.encode(), headers)
