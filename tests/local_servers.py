"""Starts PostgreSQL, Redis and RabbitMQ from installed binaries, on free ports, below a temporary folder."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class NotInstalled(Exception):
    """No binary of that server on this machine."""


@contextmanager
def postgres(folder: Path) -> Iterator[int]:
    """PostgreSQL with the superuser `postgres`, trusted over loopback; gives its port."""
    binaries = _postgres_binaries()
    data, port = folder / "postgres", free_port()
    data.mkdir()
    user = _unprivileged("postgres", data)
    _call([*user, str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync"])
    options = [f"-cport={port}", "-clisten_addresses=127.0.0.1", f"-cunix_socket_directories={data}"]
    fast = ["-cfsync=off", "-csynchronous_commit=off", "-cmax_connections=200"]
    with _running([*user, str(binaries / "postgres"), "-D", str(data), *options, *fast], data / "server.log"):
        yield port


@contextmanager
def redis(folder: Path) -> Iterator[int]:
    port = free_port()
    command = [_binary("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with _running([*command, "--dir", str(folder)], folder / "redis.log"):
        yield port


@contextmanager
def rabbitmq(folder: Path) -> Iterator[tuple[int, int]]:
    """RabbitMQ with its management plugin; gives the AMQP port and the management port."""
    home, port, management = folder / "rabbitmq", free_port(), free_port()
    home.mkdir()
    (home / "enabled_plugins").write_text("[rabbitmq_management].\n")
    (home / "rabbitmq.conf").write_text(
        f"listeners.tcp.default = 127.0.0.1:{port}\n"
        f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n"
    )
    user = _unprivileged("rabbitmq", home)
    with _running([*user, *_rabbitmq_command()], home / "server.log", _rabbitmq_environment(home, port)):
        yield port, management


def _rabbitmq_environment(home: Path, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "HOME": str(home),
        "RABBITMQ_NODENAME": f"penstock-test-{port}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _binary(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise NotInstalled(f"{name} is not installed")
    return found


def _postgres_binaries() -> Path:
    # Debian keeps initdb out of PATH, in a folder for each version.
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    for folder in reversed(debian):
        if (folder / "initdb").exists():
            return folder
    return Path(_binary("initdb")).parent


def _rabbitmq_command() -> list[str]:
    # Debian's wrapper in PATH changes users and locks; the script behind it does not.
    behind = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    return [str(behind) if behind.exists() else _binary("rabbitmq-server")]


def _unprivileged(name: str, folder: Path) -> list[str]:
    """A prefix that runs a server as its own user: PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return []
    _call(["chown", "-R", name, str(folder)])
    # pytest keeps its folders to their owner, at every level.
    for parent in (folder, *folder.parents):
        if parent == Path(tempfile.gettempdir()):
            break
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    return [_binary("setpriv"), "--reuid", name, "--regid", name, "--clear-groups", "--"]


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")


@contextmanager
def _running(command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    with log.open("wb") as output:
        server = _spawn(command, output, environment)
        try:
            yield
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _spawn(
    command: list[str], output: IO[bytes], environment: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C in the terminal must not stop a server before its tests are done.
    return subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
