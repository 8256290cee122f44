"""Private PostgreSQL, Redis and RabbitMQ that a scenario may kill and start again; nobody else uses them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests import local_servers, services
from tests.services import Services

_PATIENCE: Final = 90.0


@dataclass
class Server:
    """One server process, with the folder and the port that it keeps over its lives."""

    command: list[str]
    log: Path
    answers: Callable[[], bool]
    environment: Mapping[str, str] | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, stdout=output, stderr=output, env=self.environment, start_new_session=True
            )
        end = time.monotonic() + _PATIENCE
        while not self.answers():
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f"{self.command[0]} did not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.1)  # a foreign process that only a probe can see

    def stop(self, number: int = signal.SIGKILL) -> None:
        """To the whole group that we started: RabbitMQ runs below a shell."""
        if self.process is None:
            return
        os.killpg(self.process.pid, number)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def restart(self, number: int = signal.SIGKILL) -> None:
        self.stop(number)
        self.start()


@dataclass(frozen=True, slots=True)
class Private:
    """The three, and where they listen."""

    postgres: Server
    redis: Server
    rabbitmq: Server
    postgres_port: int
    redis_port: int
    amqp_port: int


@contextmanager
def private_servers(folder: Path) -> Iterator[Private]:
    """Raises `NotInstalled` where a binary is missing."""
    postgres, postgres_port = _postgres(folder)
    redis, redis_port = _redis(folder)
    rabbitmq, amqp_port = _rabbitmq(folder)
    with ExitStack() as stack:
        for server in (rabbitmq, postgres, redis):
            stack.callback(server.stop)
            server.start()
        yield Private(postgres, redis, rabbitmq, postgres_port, redis_port, amqp_port)


@contextmanager
def private_services(private: Private, name: str) -> Iterator[Services]:
    """A database and a name space of its own on private servers."""
    with services._own_database(private.postgres_port, name.replace("-", "_")) as database_url:
        yield Services(
            database_url=database_url,
            redis_url=f"redis://127.0.0.1:{private.redis_port}/0",
            broker_url=f"amqp://guest:guest@127.0.0.1:{private.amqp_port}//",
            broker_api=None,
            namespace=name,
        )


def _postgres(folder: Path) -> tuple[Server, int]:
    """Commits are synchronous, as in production; fsync is off, since only processes die here."""
    binaries = local_servers._postgres_binaries()
    data, port = folder / "postgres", local_servers.free_port()
    data.mkdir()
    user = local_servers._unprivileged("postgres", data)
    options = ["-U", "postgres", "-A", "trust", "--no-sync"]
    local_servers._call([*user, str(binaries / "initdb"), "-D", str(data), *options])
    settings = [f"-cport={port}", "-clisten_addresses=127.0.0.1", f"-cunix_socket_directories={data}"]
    settings += ["-cfsync=off", "-cmax_connections=200"]
    command = [*user, str(binaries / "postgres"), "-D", str(data), *settings]
    ready = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return Server(
        command, folder / "postgres.log", lambda: subprocess.run(ready, check=False).returncode == 0
    ), port


def _redis(folder: Path) -> tuple[Server, int]:
    port = local_servers.free_port()
    command = [local_servers._binary("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--dir", str(folder)]
    url = f"redis://127.0.0.1:{port}/0"
    return Server(command, folder / "redis.log", lambda: services._redis_answers(url)), port


def _rabbitmq(folder: Path) -> tuple[Server, int]:
    home, port = folder / "rabbitmq", local_servers.free_port()
    home.mkdir()
    (home / "enabled_plugins").write_text("[].\n")
    (home / "rabbitmq.conf").write_text(f"listeners.tcp.default = 127.0.0.1:{port}\n")
    user = local_servers._unprivileged("rabbitmq", home)
    environment = local_servers._rabbitmq_environment(home, port)
    command = [*user, *local_servers._rabbitmq_command()]
    url = f"amqp://guest:guest@127.0.0.1:{port}//"
    return Server(command, folder / "rabbitmq.log", lambda: _broker_answers(port, url), environment), port


def _broker_answers(port: int, url: str) -> bool:
    return services._listens(port) and services._broker_answers(url)
