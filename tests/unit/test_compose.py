import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from api.app import create_app
from cli.main import app
from core.setting_types import parse_duration
from core.settings import DatabaseSettings, RedisSettings, Settings, setting_names
from models.catalogue import Catalogue, load_catalogue
from models.dialect import open_database
from queues.redis import open_redis

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
PROCESSES = {"migrate", "api", "relay", "upkeep", "worker", "deliver", "worker-gpu", "flower"}
# Three numbers, or two where the project has only two (PostgreSQL) or two name a branch of fixes (HAProxy).
PINNED = re.compile(r"^[a-z][a-z0-9./_-]*:v?\d+\.\d+(\.\d+)?(-[a-z0-9.-]+)?$")
PROBES = {"pg_isready", "redis-cli", "rabbitmq-diagnostics", "wget"}
FLOWER_ROUTES = {"/healthcheck"}


def health_routes() -> Iterator[tuple[str, int, str]]:
    for name, service in OURS.items():
        for word in service.get("healthcheck", {}).get("test", []):
            for port, path in re.findall(r"http://127\.0\.0\.1:(\d+)(/\w*)", word):
                yield name, int(port), path


def test_every_process_of_the_platform_is_a_service() -> None:
    assert set(OURS) == PROCESSES


@pytest.mark.parametrize("name", OURS)
def test_a_command_exists(name: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]

    assert OURS[name]["command"][0] in commands


@pytest.mark.parametrize("name", OURS)
def test_a_variable_is_a_known_setting(name: str) -> None:
    assert set(OURS[name]["environment"]) - set(setting_names()) == set()


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned(name: str) -> None:
    assert PINNED.match(SERVICES[name]["image"])


def test_every_base_image_is_pinned() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))
    bases = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - stages

    assert bases
    assert [base for base in bases if not PINNED.match(base)] == []
    assert {service["build"]["target"] for service in OURS.values()} == stages


async def test_a_health_check_of_ours_names_a_real_route() -> None:
    real = {"api": await api_routes(), "flower": FLOWER_ROUTES}

    checked = list(health_routes())

    assert {name for name, _, _ in checked} == {"api", "flower"}
    assert [(name, path) for name, _, path in checked if path not in real[name]] == []


async def api_routes() -> set[str]:
    settings = Settings(
        database=DatabaseSettings(url="sqlite+aiosqlite:///"), redis=RedisSettings(url="memory://")
    )
    database, redis = open_database(settings.database), open_redis(settings.redis, "test")
    api = create_app(settings, database=database, redis=redis, catalogue=Catalogue.bundled())
    await redis.aclose()
    await database.close()
    return set(api.openapi()["paths"])


def test_a_health_check_asks_the_port_that_the_process_listens_on() -> None:
    for name, port, _ in health_routes():
        assert OURS[name]["environment"][f"PENSTOCK_{name.upper()}__PORT"] == str(port)
        assert any(published.endswith(f":{port}") for published in OURS[name]["ports"])


@pytest.mark.parametrize("name", sorted(set(SERVICES) - PROCESSES))
def test_a_foreign_service_has_a_probe_of_its_own(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][1] in PROBES


@pytest.mark.parametrize("name", sorted(PROCESSES - {"migrate"}))
def test_a_process_waits_for_the_migration(name: str) -> None:
    assert OURS[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_a_gpu_worker_reserves_a_gpu_and_workers_have_replicas() -> None:
    devices = OURS["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]

    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert OURS["worker"]["deploy"]["replicas"] == 2


def test_the_proxy_knows_every_variable_that_it_is_given_and_finds_the_api() -> None:
    environment = SERVICES["proxy"]["environment"]
    text = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")
    known = dict(re.findall(r"\$\{(PROXY_\w+)(?:-([^}]*))?\}", text))

    assert set(environment) <= set(known)
    assert environment["PROXY_API"] == f"api:{SERVICES['api']['environment']['PENSTOCK_API__PORT']}"
    assert {name: value for name, value in known.items() if value and name in environment} == {
        name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", environment[name])
        for name in environment
        if name != "PROXY_CERTIFICATE"
    }


def test_the_proxy_waits_longer_than_the_api_and_the_api_keeps_connections_as_long() -> None:
    environment = SERVICES["proxy"]["environment"]
    waits, keeps = (
        parse_duration(re.sub(r"\$\{\w+:-(.*)\}", r"\1", environment[name]))
        for name in ("PROXY_ANSWER", "PROXY_KEEP_ALIVE")
    )

    assert waits > Settings().overload.interactive.wait  # type: ignore[operator]
    assert keeps <= Settings().api.keep_alive  # type: ignore[operator]


def test_nothing_is_published_beyond_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_every_mounted_file_exists() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    files = {re.sub(r"\$\{\w+:-(.*?)\}", r"\1", mount).split(":")[0] for mount in mounts}

    assert [file for file in files if file.startswith("./") and not (ROOT / file).exists()] == []


def test_the_catalogue_of_the_containers_is_sound() -> None:
    assert load_catalogue(ROOT / "deploy" / "models.toml").names == ("default",)


def test_what_the_image_copies_is_what_the_wheel_needs() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}

    packages = {"core", "models", "queues", "workers", "api", "cli", "migrations", "bundled"}
    files = {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "constraints-flower.txt"}

    assert kept == packages | files
