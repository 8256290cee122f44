import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app, main
from core.settings import load_settings
from models.dialect import open_database
from models.keys import is_secret_of, parse_key
from models.repositories import access
from tests.local_servers import free_port

runner = CliRunner()


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_DATABASE__URL", f"sqlite+aiosqlite:///{tmp_path}/access.db")
    run("migrate")


def run(*arguments: str) -> str:
    result = runner.invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def rows(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments, "--json").splitlines()]


def stored_key(key_id: str) -> access.KeyRow | None:
    """The key as the API would find it."""
    return asyncio.run(_stored_key(key_id))


async def _stored_key(key_id: str) -> access.KeyRow | None:
    database = open_database(load_settings().database)
    async with database.read() as connection:
        row = await access.find_key(connection, key_id)
    await database.close()
    return row


def test_the_clear_text_of_a_new_key_verifies_against_what_is_stored() -> None:
    run("tenants", "create", "acme")

    clear = run("keys", "create", "acme", "--max-class", "standard")

    parts = parse_key(clear)
    assert parts is not None
    row = stored_key(parts[0])
    assert row is not None
    assert is_secret_of(row, parts[1], load_settings().api.pepper)
    assert row.max_class == "standard"


def test_a_list_of_keys_shows_no_secret() -> None:
    run("tenants", "create", "acme")
    parts = parse_key(run("keys", "create", "acme"))
    assert parts is not None

    listed = run("keys", "list", "--json")

    assert parts[1] not in listed
    assert "secret_hash" not in listed


def test_a_revoked_key_is_not_found() -> None:
    run("tenants", "create", "acme")
    key = rows("keys", "create", "acme")[0]

    run("keys", "revoke", key["id"])

    assert stored_key(key["id"]) is None


def test_a_rotated_key_stays_good_for_the_overlap_only() -> None:
    run("tenants", "create", "acme")
    old = rows("keys", "create", "acme", "--scope", "admin")[0]

    new = rows("keys", "rotate", old["id"], "--overlap", "2h")[0]

    kept = stored_key(old["id"])
    assert kept is not None
    assert kept.expires_at is not None
    assert stored_key(new["id"]) is not None
    assert (new["scopes"], new["replaces"]) == (["admin"], old["id"])


def test_a_rotation_without_overlap_ends_the_old_key_at_once() -> None:
    run("tenants", "create", "acme")
    old = rows("keys", "create", "acme")[0]

    run("keys", "rotate", old["id"], "--overlap", "0s")

    assert stored_key(old["id"]) is None


def test_the_keys_of_a_disabled_tenant_are_not_found_until_it_is_enabled() -> None:
    run("tenants", "create", "acme")
    key = rows("keys", "create", "acme")[0]

    run("tenants", "disable", "acme")
    assert stored_key(key["id"]) is None
    run("tenants", "enable", "acme")

    assert stored_key(key["id"]) is not None


def test_a_tenant_shares_prefixes_until_it_is_isolated_and_again_when_it_shares() -> None:
    run("tenants", "create", "acme")

    private = []
    for verb in ("isolate", "share"):
        run("tenants", verb, "acme")
        private.append(rows("tenants", "list")[0]["private_prefixes"])

    assert private == [True, False]


def test_a_database_out_of_reach_is_one_line_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = f"postgresql+asyncpg://nobody:nothing@127.0.0.1:{free_port()}/nowhere"
    monkeypatch.setenv("PENSTOCK_DATABASE__URL", nobody)
    monkeypatch.setattr("sys.argv", ["penstock", "tenants", "list"])

    with pytest.raises(SystemExit) as ended:
        main()

    error = capsys.readouterr().err
    assert ended.value.code == 1
    assert "PENSTOCK_DATABASE__URL" in error
    assert "Traceback" not in error


def test_migrating_twice_changes_nothing() -> None:
    assert run("migrate").endswith("nothing to do")
    assert run("migrate", "--check").endswith("nothing to do")


def test_a_tenant_without_jobs_fills_no_queue() -> None:
    run("tenants", "create", "acme")

    assert rows("tenants", "load") == []


def test_limits_are_set_changed_lifted_and_reset() -> None:
    run("tenants", "create", "acme")
    clear = run("keys", "create", "acme")

    [first] = rows("tenants", "limit", "acme", "--requests-per-minute", "60", "--max-complexity", "medium")
    [changed] = rows("tenants", "limit", "acme", "--tokens-per-day", "1000")
    [shown] = rows("tenants", "limit", "acme")
    [of_key] = rows("keys", "limit", clear, "--concurrent-jobs", "0")
    [reset] = rows("tenants", "limit", "acme", "--reset")

    assert first["requests_per_minute"] == 60
    assert changed == {**first, "tokens_per_day": 1000} == shown
    assert of_key["concurrent_jobs"] == 0
    assert reset["requests_per_minute"] is None
    assert "default" in run("tenants", "limit", "acme")
