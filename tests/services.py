"""The real services for tests: those that answer, or else those that local binaries can start.

The fixture `services` gives addresses that belong to this test session alone: a database, a virtual host
and a Redis key prefix of its own. In CI a test that would be skipped for want of a service fails.
"""

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
import pytest
import redis
from kombu import Connection

from tests import local_servers
from tests.local_servers import NotInstalled

_PATIENCE: Final = 60.0
_ROLE: Final = "penstock"


@dataclass(frozen=True, slots=True)
class Services:
    """Addresses in the settings' own form, and a namespace that no other session uses."""

    database_url: str
    redis_url: str
    broker_url: str
    broker_api: str | None
    namespace: str

    def environment(self) -> dict[str, str]:
        """The same as environment variables, for processes that a test starts."""
        return {
            "PENSTOCK_DATABASE__URL": self.database_url,
            "PENSTOCK_REDIS__URL": self.redis_url,
            "PENSTOCK_BROKER__URL": self.broker_url,
            "PENSTOCK_BROKER__NAMESPACE": self.namespace,
        }


@contextmanager
def open_services() -> Iterator[Services]:
    """Raises `NotInstalled` when a service neither answers nor can be started."""
    name = f"test-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-services-")))
        postgres_port = _found(5432, "postgresql") or stack.enter_context(local_servers.postgres(folder))
        redis_port = _found(6379, "redis") or stack.enter_context(local_servers.redis(folder))
        amqp, management = _found(5672, "rabbitmq"), 15672
        if amqp is None:
            amqp, management = stack.enter_context(local_servers.rabbitmq(folder))
        redis_url = f"redis://127.0.0.1:{redis_port}/0"
        _until(lambda: _redis_answers(redis_url), "Redis")
        yield Services(
            database_url=stack.enter_context(_own_database(postgres_port, name.replace("-", "_"))),
            redis_url=redis_url,
            broker_url=stack.enter_context(_own_virtual_host(amqp, name)),
            broker_api=_management(management),
            namespace=name,
        )


def _found(port: int, name: str) -> int | None:
    """The usual port where something listens, unless PENSTOCK's tests are told to start their own."""
    if name in os.environ.get("TEST_START_OWN", "").split(","):
        return None
    return port if _listens(port) else None


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(ready: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not answer within {_PATIENCE:.0f} s")
        time.sleep(0.1)  # a foreign process that only a probe can see


def _redis_answers(url: str) -> bool:
    client = redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


@contextmanager
def _own_database(port: int, name: str) -> Iterator[str]:
    _until(lambda: _listens(port), "PostgreSQL")
    _until(lambda: asyncio.run(_prepare_role(port)), "PostgreSQL")
    address = f"{_ROLE}:{_ROLE}@127.0.0.1:{port}"
    asyncio.run(_execute(f"postgresql://{address}/postgres", f'CREATE DATABASE "{name}"'))
    try:
        yield f"postgresql+asyncpg://{address}/{name}"
    finally:
        asyncio.run(_execute(f"postgresql://{address}/postgres", f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _prepare_role(port: int) -> bool:
    """True once the test role can log in; makes it with the first superuser that lets us in."""
    if await _can_log_in(f"postgresql://{_ROLE}:{_ROLE}@127.0.0.1:{port}/postgres"):
        return True
    statement = f"CREATE ROLE {_ROLE} LOGIN CREATEDB PASSWORD '{_ROLE}'"
    for user in ("postgres", "root"):
        superuser = f"postgresql://{user}@127.0.0.1:{port}/postgres"
        if await _can_log_in(superuser):
            await _execute(superuser, statement)
            return True
    if os.getuid() == 0 and shutil.which("psql"):  # Debian trusts the user postgres on the socket only
        as_postgres = ["setpriv", "--reuid", "postgres", "--clear-groups"]
        command = [*as_postgres, "psql", "-p", str(port), "-c", statement]
        await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
    return False


async def _can_log_in(address: str) -> bool:
    try:
        await _execute(address, "SELECT 1")
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


async def _execute(address: str, statement: str) -> None:
    connection = await asyncpg.connect(address, timeout=5)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def _own_virtual_host(port: int, name: str) -> Iterator[str]:
    """A virtual host of its own where we may make one; else the default one, with our own namespace."""
    shared = f"amqp://guest:guest@127.0.0.1:{port}//"
    _until(lambda: _broker_answers(shared), "RabbitMQ")
    if port != 5672 or not _rabbitmqctl("add_vhost", name):
        yield shared
        return
    _rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    try:
        yield f"amqp://guest:guest@127.0.0.1:{port}/{name}"
    finally:
        _rabbitmqctl("delete_vhost", name)


def _broker_answers(url: str) -> bool:
    try:
        with Connection(url, connect_timeout=2) as connection:
            connection.connect()
    except OSError:
        return False
    return True


def _rabbitmqctl(*arguments: str) -> bool:
    tool = shutil.which("rabbitmqctl", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if tool is None:
        return False
    done = subprocess.run([tool, "-q", *arguments], capture_output=True, check=False, timeout=30)
    return done.returncode == 0


def _management(port: int) -> str | None:
    """The management API; its plugin is enabled where we may."""
    if not _listens(port):
        tool = shutil.which("rabbitmq-plugins", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if tool is None or port != 15672:
            return None
        subprocess.run([tool, "enable", "rabbitmq_management"], capture_output=True, check=False, timeout=60)
    return f"http://guest:guest@127.0.0.1:{port}/api/" if _listens(port) else None


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    with ExitStack() as stack:
        try:
            found = stack.enter_context(open_services())
        except NotInstalled as missing:
            if os.environ.get("CI"):
                pytest.fail(f"in CI the services must run: {missing}")
            pytest.skip(str(missing))
        yield found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    needed = next(filter(None, map(item.get_closest_marker, ("services", "browser", "sglang"))), None)
    if report.skipped and os.environ.get("CI") and needed:
        report.outcome = "failed"
        report.longrepr = f"in CI a test on the real {needed.name} may not be skipped: {report.longrepr}"
    return report
