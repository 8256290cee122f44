"""The platform's processes, each with failing links of its own, and what a scenario may do to them."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import orjson

from tests.faults.history import ROOT, unpack, version_before
from tests.faults.proxy import Link
from tests.local_servers import free_port
from tests.services import Services

MUTANTS: Final = Path(__file__).resolve().parent / "mutants"
# What each kind of process talks to.
LINKS: Final = {
    "api": ("postgresql", "redis"),
    "relay": ("postgresql", "redis", "rabbitmq"),
    "upkeep": ("postgresql", "rabbitmq"),
    "worker": ("postgresql", "redis", "rabbitmq", "engine"),
}
_SETTINGS: Final = {
    "postgresql": "PENSTOCK_DATABASE__URL",
    "redis": "PENSTOCK_REDIS__URL",
    "rabbitmq": "PENSTOCK_BROKER__URL",
}
_DELIVERED: Final = re.compile(rb'"job":\{"id":"([^"]+)","generation":(\d+)')
_PATIENCE: Final = 90.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How many of each, and how fast they give each other up. `brisk` leases save a scenario's time."""

    apis: int = 2
    relays: int = 1
    upkeeps: int = 2
    workers: int = 2
    slots: int = 16
    llamacpp: bool = False
    brisk: bool = True
    mutant: str = ""
    outdated: bool = False  # they begin as the version before this one
    settings: Mapping[str, str] = field(default_factory=dict)

    def members(self) -> Iterator[tuple[str, str]]:
        counts = {"api": self.apis, "relay": self.relays, "upkeep": self.upkeeps, "worker": self.workers}
        return ((f"{kind}-{n}", kind) for kind, count in counts.items() for n in range(count))

    def environment(self) -> dict[str, str]:
        settings = {"DATABASE__POOL_SIZE": "4"} | (_BRISK if self.brisk else {}) | dict(self.settings)
        environment = {f"PENSTOCK_{name}": value for name, value in settings.items()}
        if self.mutant:
            environment |= {"FAULTS_MUTANT": self.mutant, "PYTHONPATH": f"{MUTANTS}:{ROOT}"}
        return environment


_BRISK: Final = {
    "WORKER__LEASE": "5s",
    "WORKER__HEARTBEAT": "1s",
    "WORKER__JOB_STALL": "20s",
    "UPKEEP__REAP_EVERY": "500ms",
    "UPKEEP__RECONCILE_AFTER": "5s",
}


@dataclass
class Member:
    """One process in all its lives."""

    name: str
    kind: str
    log: Path
    links: dict[str, Link]
    port: int = 0
    source: Path = ROOT  # whose code it runs
    lives: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    engine: "EngineServer | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self.process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self.process.pid

    def kill(self, number: int = signal.SIGKILL) -> float:
        """When it was done, by the wall clock."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        if number == signal.SIGKILL and self.process is not None:
            self.process.wait(10)
        return time.time()


class EngineServer:
    """A simulated engine behind HTTP; its supervisor restarts what is killed."""

    def __init__(self, folder: Path, number: int, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self.log = folder / f"starts-{number}.log"
        self._said = folder / f"engine-{number}.log"
        command = [sys.executable, "-m", "tests.fakes.openai_server", "--port", str(self.port)]
        complaints = folder / f"engine-{number}-complaints.log"
        with self._said.open("ab") as output, complaints.open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, "--log", str(self.log)], cwd=ROOT, stdout=output, stderr=errors, env=environment
            )

    def kill(self) -> float:
        with suppress(ProcessLookupError):
            os.kill(int(self._said.read_text().split()[-1]), signal.SIGKILL)
        return time.time()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def first_tokens(self) -> Iterator[tuple[float, str]]:
        """When the answer to which label began."""
        if self.log.exists():
            for line in self.log.read_text().splitlines():
                at, label, _ = line.split()
                yield float(at), label


class Fleet:
    """Starts, kills and mends; every process speaks to the services through links that can fail."""

    def __init__(self, services: Services, folder: Path, shape: Shape, *, before: str = "") -> None:
        self.services = services
        self.folder = folder
        self.shape = shape
        self.before = ROOT  # the folder of the version before
        self.schema = ROOT  # whose schema the database has
        self._commit = before
        self.members: dict[str, Member] = {}
        self.front = Link("front", [])
        self._links: list[Link] = [self.front]

    async def open(self) -> None:
        if self.shape.outdated:
            commit = self._commit or await asyncio.to_thread(version_before)
            self.before = await asyncio.to_thread(unpack, commit, self.folder / "before")
        for name, kind in self.shape.members():
            await self._prepare(name, kind)
        await self.front.open()
        await asyncio.to_thread(self.migrate, self.before)

    async def start_all(self) -> None:
        for name in self.members:
            self.start(name)
        await self.until_ready()

    async def close(self) -> None:
        for member in self.members.values():
            if member.process is not None:
                member.kill(signal.SIGCONT)
                member.kill(signal.SIGTERM)
        await asyncio.to_thread(self._reap)
        for link in self._links:
            await link.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.front.port}"

    def workers(self) -> list[Member]:
        return [member for member in self.members.values() if member.kind == "worker"]

    def deliveries(self) -> Counter[tuple[bytes, ...]]:
        """How often each (job, generation) reached a worker."""
        return sum((worker.links["rabbitmq"].hits for worker in self.workers()), Counter())

    def start(self, name: str) -> Member:
        member = self.members[name]
        member.lives += 1
        arguments = ["--hostname", f"{name}-{member.lives}@%h"] if member.kind == "worker" else []
        with member.log.open("ab") as log:
            member.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", member.kind, *arguments],
                env=self._environment(member),
                stdout=log,
                stderr=log,
                cwd=member.source,
            )
        return member

    def migrate(self, source: Path) -> None:
        """The database gets the schema of that version."""
        self._call(source, "migrate")
        self.schema = source

    def tenant(self, name: str) -> tuple[str, str]:
        """A new tenant's id and key, by the command line of the version that the schema is of."""
        made = orjson.loads(self._call(self.schema, "tenants", "create", name, "--json"))
        key = orjson.loads(self._call(self.schema, "keys", "create", made["id"], "--json"))
        return made["id"], key["key"]

    async def mend(self) -> None:
        """Everything runs and every link works."""
        for link in self._links:
            link.trap = None
            link.heal()
        for member in self.members.values():
            member.kill(signal.SIGCONT)
            if member.process is None or member.process.poll() is not None:
                self.start(member.name)
        await self.until_ready()

    async def until_ready(self, within: float = _PATIENCE) -> None:
        end = time.monotonic() + within
        while missing := await self._missing():
            dead = [m.name for m in self.members.values() if m.process and m.process.poll() is not None]
            if dead or time.monotonic() > end:
                tail = "".join(self.members[name].log.read_text()[-1500:] for name in dead or missing)
                raise RuntimeError(f"not ready: {missing}, ended: {dead}: {tail}")
            await asyncio.sleep(0.1)  # foreign processes that only a probe can see

    async def terminate(self, name: str, within: float = 40.0) -> int:
        """SIGTERM, and how the process ended."""
        member = self.members[name]
        member.kill(signal.SIGTERM)
        if member.process is None:
            return 0
        return await asyncio.to_thread(member.process.wait, within)

    def lines(self, event: str) -> int:
        """How often the processes logged that event."""
        return sum(
            m.log.read_text(errors="replace").count(event) for m in self.members.values() if m.log.exists()
        )

    async def _missing(self) -> list[str]:
        async with httpx.AsyncClient(timeout=2) as client:
            apis = [m for m in self.members.values() if m.kind == "api"]
            missing = []
            for member in apis:
                # Whether an old one is ready beside a new schema is a scenario's own question.
                path = "ready" if member.source == self.schema else "health"
                try:
                    answer = await client.get(f"{member.url}/{path}")
                except httpx.TransportError:
                    missing.append(member.name)
                else:
                    missing += [member.name] if answer.status_code != httpx.codes.OK else []
        alive = await self._alive()
        return missing + [w.name for w in self.workers() if not any(f"-{w.pid}@" in name for name in alive)]

    async def _alive(self) -> list[str]:
        connection = await asyncpg.connect(plain(self.services.database_url), timeout=5)
        try:
            rows = await connection.fetch(
                "SELECT name FROM workers WHERE state = 'ready' AND seen_at > now() - interval '8 seconds'"
            )
        finally:
            await connection.close()
        return [row["name"] for row in rows]

    async def _prepare(self, name: str, kind: str) -> None:
        member = Member(name, kind, self.folder / f"{name}.log", {}, source=self.before)
        addresses = {
            "postgresql": self.services.database_url,
            "redis": self.services.redis_url,
            "rabbitmq": self.services.broker_url,
        }
        for service in LINKS[kind]:
            if service == "engine":
                if self.shape.llamacpp:
                    continue
                member.engine = EngineServer(self.folder, len(self.workers()), self._inherited())
                upstream = member.engine.port
            else:
                upstream = urlsplit(addresses[service]).port or 0
            deliveries = _DELIVERED if (kind, service) == ("worker", "rabbitmq") else None
            link = Link(f"{name} - {service}", [upstream], count=deliveries)
            await link.open()
            self._links.append(link)
            member.links[service] = link
        if kind == "api":
            member.port = free_port()
            self.front.upstream.append(member.port)
        self.members[name] = member

    def _environment(self, member: Member, source: Path | None = None) -> dict[str, str]:
        environment = self._inherited() | self.services.environment() | self.shape.environment()
        source = source or member.source
        if source != ROOT:
            environment["PYTHONPATH"] = str(source)  # before what is installed
        for service, setting in _SETTINGS.items():
            if service in member.links:
                environment[setting] = _through(environment[setting], member.links[service].port)
        environment |= {"PENSTOCK_API__PORT": str(member.port)} if member.port else {}
        if not self.shape.llamacpp:
            environment["PENSTOCK_CATALOGUE"] = str(self._catalogue(member))
        return environment

    def _inherited(self) -> dict[str, str]:
        """Nothing of the developer's settings; compiled modules are kept, since many processes start here."""
        left_out = ("PENSTOCK_", "PYTHONDONTWRITEBYTECODE")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        return inherited | {"PYTHONPYCACHEPREFIX": str(self.folder.parent / "compiled")}

    def _catalogue(self, member: Member) -> Path:
        port = member.links["engine"].port if member.kind == "worker" else 1
        path = self.folder / f"{member.name}.toml"
        path.write_text(
            f'[[model]]\nname = "default"\nengine = "openai"\nurl = "http://127.0.0.1:{port}"\n'
            f"slots = {self.shape.slots}\n"
        )
        return path

    def _call(self, source: Path, *arguments: str) -> bytes:
        """One `penstock` command of that version."""
        environment = self._environment(next(iter(self.members.values())), source)
        environment["PENSTOCK_DATABASE__URL"] = self.services.database_url
        command = [sys.executable, "-m", "cli.main", *arguments]
        done = subprocess.run(command, env=environment, cwd=source, check=False, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"penstock {arguments[0]}: {done.stderr.decode(errors='replace')[-1500:]}")
        return done.stdout

    def _reap(self) -> None:
        for member in self.members.values():
            if member.process is not None:
                try:
                    member.process.wait(15)
                except subprocess.TimeoutExpired:
                    member.process.kill()
                    member.process.wait()
            if member.engine is not None:
                member.engine.close()


def plain(url: str) -> str:
    """The address as asyncpg takes it."""
    return url.replace("postgresql+asyncpg://", "postgresql://")


def _through(url: str, port: int) -> str:
    parts = urlsplit(url)
    host = f"127.0.0.1:{port}"
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@{host}" if user else host))
