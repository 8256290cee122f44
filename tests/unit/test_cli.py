import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main
from typer.testing import CliRunner

from cli import bulk, main
from cli.client import ApiRefused, Client, parse_events
from cli.flower_process import flower_command, flower_environment
from cli.main import app
from core.errors import BadInput, ConfigurationMistake, Unauthenticated
from core.settings import FlowerSettings, Settings, load_settings

runner = CliRunner()
Handler = Callable[[httpx.Request], httpx.Response]


def command_paths(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    children = getattr(command, "commands", {})
    found = [path] if path else []
    for name, child in children.items():
        found += command_paths(child, (*path, name))
    return found


def client(handler: Handler) -> Client:
    settings = load_settings({}, url="http://platform", key="sk-key_x-0123456789abcdef")
    return Client(settings, httpx.MockTransport(handler))


def job(status: str = "completed", **fields: Any) -> dict[str, Any]:
    output = {"text": "An answer."} if status == "completed" else None
    return {"id": "job_1", "status": status, "output": output, "error": None, **fields}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Callable[[Handler], None]:
    """Commands talk to a handler in place of the network."""

    def install(handler: Handler) -> None:
        monkeypatch.setattr("cli.jobs._client", lambda: client(handler))

    return install


@pytest.mark.parametrize("path", command_paths(typer.main.get_command(app)), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...]) -> None:
    result = runner.invoke(app, [*path, "--help"])

    assert result.exit_code == 0
    assert result.stdout


def run_main(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["penstock", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


def test_a_misspelt_setting_is_one_line_with_the_right_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_DATABSE__URL", "x")

    code = run_main(["migrate"], monkeypatch)

    assert code == 2
    error = capsys.readouterr().err
    assert "did you mean PENSTOCK_DATABASE__URL?" in error
    assert "Traceback" not in error


def test_a_database_in_no_folder_is_one_line_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PENSTOCK_DATABASE__URL", f"sqlite+aiosqlite:///{tmp_path}/no/such/folder.db")

    code = run_main(["tenants", "list"], monkeypatch)

    assert code == 2
    assert "PENSTOCK_DATABASE__URL" in capsys.readouterr().err


def test_an_old_schema_says_to_migrate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PENSTOCK_DATABASE__URL", f"sqlite+aiosqlite:///{tmp_path}/empty.db")

    code = run_main(["tenants", "list"], monkeypatch)

    assert code == 2
    assert "Run `penstock migrate`" in capsys.readouterr().err


def test_no_key_is_a_mistake_that_says_where_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PENSTOCK_KEY", raising=False)

    assert run_main(["get", "job_1"], monkeypatch) == 2
    assert "penstock keys create" in capsys.readouterr().err


def test_submit_prints_the_id_alone(api: Callable[[Handler], None]) -> None:
    sent: list[Any] = []

    def accept(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(202, json=job("queued"))

    api(accept)

    result = runner.invoke(app, ["submit", "Hello", "--class", "bulk", "--system", "Be short."])

    assert result.stdout == "job_1\n"
    assert sent[0]["service_class"] == "bulk"
    assert [message["role"] for message in sent[0]["messages"]] == ["system", "user"]


def test_submit_with_wait_prints_the_answer_alone(api: Callable[[Handler], None]) -> None:
    statuses = iter(["queued", "running", "completed"])
    api(lambda _: httpx.Response(200, json=job(next(statuses))))

    result = runner.invoke(app, ["submit", "Hello", "--wait"])

    assert (result.stdout, result.exit_code) == ("An answer.\n", 0)


def test_a_failed_job_gives_exit_code_1_and_its_reason(api: Callable[[Handler], None]) -> None:
    api(lambda _: httpx.Response(200, json=job("failed", error={"message": "three attempts failed"})))

    result = runner.invoke(app, ["get", "job_1"])

    assert result.exit_code == 1
    assert "three attempts failed" in result.stderr


def test_follow_prints_tokens_as_they_come(api: Callable[[Handler], None]) -> None:
    stream = (
        ": keep-alive\n\n"
        'id: 1-0\nevent: token\ndata: {"attempt": 1, "index": 0, "text": "An "}\n\n'
        'id: 2-0\nevent: token\ndata: {"attempt": 1, "index": 1, "text": "answer."}\n\n'
        'id: 3-0\nevent: done\ndata: {"status": "completed"}\n\n'
    )

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(200, text=stream)
        return httpx.Response(200, json=job())

    api(answer)

    result = runner.invoke(app, ["submit", "Hello", "--follow"])

    assert result.stdout == "An answer.\n"


def test_a_broken_stream_goes_on_where_it_stopped() -> None:
    resumed: list[str | None] = []
    parts = iter(
        [
            'id: 1-0\nevent: token\ndata: {"text": "An "}\n\n',
            'id: 2-0\nevent: token\ndata: {"text": "answer."}\n\nid: 3-0\nevent: done\ndata: {}\n\n',
        ]
    )

    def answer(request: httpx.Request) -> httpx.Response:
        resumed.append(request.headers.get("Last-Event-ID"))
        return httpx.Response(200, text=next(parts))

    kinds = [event.kind for event in client(answer).follow("job_1")]

    assert kinds == ["token", "token", "done"]
    assert resumed == [None, "1-0"]


def test_list_in_a_pipe_is_tab_separated(api: Callable[[Handler], None]) -> None:
    row = job(model="default", service_class="bulk", priority=5, created_at="2026-01-01T00:00:00Z")
    api(lambda _: httpx.Response(200, json={"data": [row], "last_id": "job_1", "has_more": False}))

    result = runner.invoke(app, ["list"])

    assert result.stdout == "job_1\tcompleted\tdefault\tbulk\t5\t2026-01-01T00:00:00Z\n"


_LISTING = """
import sys
from cli import jobs, main

row = {"id": "job_1", "text": "x" * 100}
page = {"data": [row] * 100, "last_id": "job_1", "has_more": True}
jobs._client = lambda: type("Stub", (), {"call": lambda *_, **__: page})()
sys.argv = ["penstock", "list", "--json", "--limit", sys.argv[1]]
main.main()
"""


@pytest.mark.parametrize("buffered", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("limit", [1, 2000], ids=["what fits a buffer", "more than a buffer"])
def test_a_reader_that_has_enough_ends_a_list_quietly(limit: int, buffered: dict[str, str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [sys.executable, "-c", _LISTING, str(limit)],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=environment | buffered,
        check=False,
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("piped", ["", " \n"])
def test_an_empty_standard_input_is_no_prompt(
    piped: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(piped))

    assert run_main(["submit", "-"], monkeypatch) == 1
    assert "no prompt came on standard input" in capsys.readouterr().err


def test_a_refusal_carries_the_reason_and_the_wait() -> None:
    problem = {"detail": "Too many jobs wait.", "code": "queue_full"}
    refusing = client(lambda _: httpx.Response(503, json=problem, headers={"Retry-After": "7"}))

    with pytest.raises(ApiRefused, match=r"Too many jobs wait\. \(503 queue_full\)") as refused:
        refusing.call("GET", "/v1/jobs")

    assert (refused.value.retryable, refused.value.wait) == (True, 7)


def test_an_unknown_key_is_told_apart() -> None:
    with pytest.raises(Unauthenticated):
        client(lambda _: httpx.Response(401, json={"detail": "Unknown key."})).call("GET", "/v1/jobs")


def test_events_may_have_several_data_lines() -> None:
    events = list(parse_events(["id: 1-0", "event: done", 'data: {"a":', "data: 1}", ""]))

    assert (events[0].kind, events[0].data) == ("done", {"a": 1})


def test_every_bad_line_of_a_file_is_named_and_nothing_is_sent() -> None:
    text = '{"prompt": "fine"}\n\n{"prompt"\n[1]\n{"model": "x"}\n{"prompt": "a", "messages": []}\n'

    with pytest.raises(BadInput) as refused:
        bulk.read_lines(text, {}, system=None)

    message = str(refused.value)
    assert all(f"line {number}:" in message for number in (3, 4, 5, 6))
    assert "line 1:" not in message


def test_a_line_overrides_the_terms_of_the_command() -> None:
    lines = bulk.read_lines(
        '{"prompt": "a", "priority": 9}\n', {"priority": 1, "max_tokens": 5}, system="Be short."
    )

    assert lines[0].body["priority"] == 9
    assert lines[0].body["max_tokens"] == 5
    assert lines[0].body["messages"][0] == {"role": "system", "content": "Be short."}


def test_chunks_stay_below_the_limits_of_number_and_size() -> None:
    many = [bulk.Line(number, {"prompt": "x"}) for number in range(2500)]
    large = [bulk.Line(number, {"prompt": "x" * 400_000}) for number in range(5)]

    assert [len(chunk) for chunk in bulk.chunks(many)] == [1000, 1000, 500]
    assert [len(chunk) for chunk in bulk.chunks(large)] == [2, 2, 1]


def test_flower_refuses_to_start_without_a_password() -> None:
    with pytest.raises(ConfigurationMistake, match="PENSTOCK_FLOWER__PASSWORD"):
        flower_command(FlowerSettings())


def test_flower_without_its_environment_says_how_to_build_it(tmp_path: Path) -> None:
    settings = FlowerSettings(password="secret", python=tmp_path / "python")

    with pytest.raises(ConfigurationMistake, match="make flower-env"):
        flower_command(settings)


def test_no_secret_is_on_the_command_line_of_flower(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.touch()
    settings = Settings(flower=FlowerSettings(password="unguessable", python=python))

    command = flower_command(settings.flower)
    environment = flower_environment(settings)

    assert "unguessable" not in " ".join(command)
    assert environment["FLOWER_BASIC_AUTH"] == "penstock:unguessable"
    assert "penstock.jobs.default.premium" in environment["PENSTOCK_QUEUES"]


@pytest.mark.parametrize(
    ("user", "password"), [("penstock", "a,b"), ("a:b", "secret"), ("penstock", "geheim-ü")]
)
def test_a_login_that_flower_would_misread_is_refused(user: str, password: str) -> None:
    settings = Settings(flower=FlowerSettings(user=user, password=password))

    with pytest.raises(ConfigurationMistake, match="PENSTOCK_FLOWER__"):
        flower_environment(settings)


def test_flower_is_given_no_secret_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_DATABASE__URL", "postgresql+asyncpg://penstock:unguessable@db/penstock")

    environment = flower_environment(Settings(flower=FlowerSettings(password="secret")))

    assert [name for name, value in environment.items() if "unguessable" in value] == []


@pytest.mark.parametrize("address", ["http://rabbitmq:15672/api", "http://rabbitmq:15672/api/"])
def test_the_management_api_ends_in_the_slash_that_flower_needs(address: str) -> None:
    settings = Settings(flower=FlowerSettings(password="secret", broker_api=address))

    assert flower_environment(settings)["FLOWER_BROKER_API"] == "http://rabbitmq:15672/api/"


def test_without_a_management_api_flower_is_told_of_none() -> None:
    settings = Settings(flower=FlowerSettings(password="secret", broker_api=""))

    assert "FLOWER_BROKER_API" not in flower_environment(settings)
