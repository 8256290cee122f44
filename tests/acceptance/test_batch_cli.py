"""`penstock batch` against the whole embedded platform, in a pipe as scripts use it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded import ROOT, Up, environment, up

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("up")) as running:
        yield running


def penstock(platform: Up, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "batch", *arguments],
        cwd=ROOT,
        env=environment(PENSTOCK_URL=platform.url, PENSTOCK_KEY=platform.key),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def write(path: Path, count: int, **changes: object) -> Path:
    lines = []
    for number in range(count):
        system = {"role": "system", "content": "You answer questions about a shop, kindly and briefly."}
        asked = {"role": "user", "content": f"where is my order A{1000 + number}"}
        body = {"model": "default", "messages": [system, asked], "max_tokens": 16, **changes}
        line = {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_file_is_submitted_watched_and_fetched(platform: Up, tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", 20)
    submitted = penstock(platform, "submit", str(file), "--metadata", "run=1", "--watch", "--json")
    changes = [json.loads(line) for line in submitted.stdout.splitlines()]
    batch_id = changes[-1]["id"]
    fetched = penstock(platform, "output", batch_id)
    listed = penstock(platform, "status")
    retried = penstock(platform, "retry", batch_id)

    assert submitted.returncode == 0, submitted.stderr
    assert changes[-1]["status"] == "completed"
    assert changes[-1]["request_counts"] == {"total": 20, "completed": 20, "failed": 0}
    assert changes[-1]["metadata"] == {"run": "1"}
    found = [json.loads(line) for line in fetched.stdout.splitlines()]
    assert [one["custom_id"] for one in found] == [f"c{n}" for n in range(20)]
    assert all(one["response"]["body"]["choices"][0]["message"]["content"] for one in found)
    assert listed.stdout.split("\t")[:3] == [batch_id, "completed", "20"]
    assert retried.returncode == 1
    assert "nothing to repeat" in retried.stderr


def test_a_bad_file_is_said_line_by_line(platform: Up, tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", 3, stream=True)
    submitted = penstock(platform, "submit", str(file), "--watch")
    estimated = penstock(platform, "estimate", str(file))

    for done in (submitted, estimated):
        assert done.returncode == 1
        assert all(f"line {n}: body.stream" in done.stderr for n in (1, 2, 3))


def test_a_batch_is_cancelled(platform: Up, tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", 400)
    batch_id = penstock(platform, "submit", str(file)).stdout.strip()
    cancelled = penstock(platform, "cancel", batch_id, "--watch")
    errors = penstock(platform, "output", batch_id, "--errors")
    state = json.loads(penstock(platform, "status", batch_id, "--json").stdout)

    assert cancelled.returncode == 1
    assert state["status"] == "cancelled"
    if state["request_counts"]["total"]:
        codes = {json.loads(line)["error"]["code"] for line in errors.stdout.splitlines()}
        assert codes == {"batch_cancelled"}


def test_what_a_file_would_cost_is_said_without_running_it(platform: Up, tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", 50)
    before = penstock(platform, "status", "--limit", "1", "--json").stdout
    done = penstock(platform, "estimate", str(file), "--rate", "100", "--json")
    after = penstock(platform, "status", "--limit", "1", "--json").stdout

    found = json.loads(done.stdout)
    assert (found["lines"], found["answer_tokens"], found["prefixes"]) == (50, 800, 1)
    assert 0 < found["shared"] < 1
    assert found["seconds"] == (found["prompt_tokens"] + found["answer_tokens"]) / 100
    assert before == after
