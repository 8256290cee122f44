"""The connection to Redis, or to the in-process one of the embedded profile."""

import threading
from collections.abc import Sequence
from typing import Final

import orjson
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from core.settings import RedisSettings

__all__ = ["REDIS_DOWN", "Batch", "Command", "Redis", "is_in_process", "open_redis"]

# What a command raises when Redis is out of reach; `OSError` covers refused and reset connections.
REDIS_DOWN: Final = (RedisError, OSError, TimeoutError)

_CONNECTIONS: Final = 32

_servers: Final[dict[str, FakeServer]] = {}
_servers_lock: Final = threading.Lock()


def open_redis(settings: RedisSettings, namespace: str) -> Redis:
    """Connects at the first use. A broken connection is tried once more, never for long."""
    if settings.url.startswith("memory://"):
        client: Redis = FakeAsyncRedis(server=_shared_server(namespace))
        return client
    command_timeout = settings.command_timeout.total_seconds()
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        settings.url,
        max_connections=_CONNECTIONS,
        timeout=command_timeout,
        socket_connect_timeout=settings.connect_timeout.total_seconds(),
        socket_timeout=command_timeout,
        socket_keepalive=True,
        # A connection that a restarted server dropped fails once; the second attempt is on a new one.
        retry=Retry(NoBackoff(), 1),
        client_name=namespace,
    )
    return Redis.from_pool(pool)


def is_in_process(redis: Redis) -> bool:
    """True for the embedded profile's: nothing outside this process sees it."""
    return isinstance(redis, FakeAsyncRedis)


def _shared_server(namespace: str) -> FakeServer:
    """Every part of one process sees the same data, on whatever loop or thread it runs."""
    with _servers_lock:
        return _servers.setdefault(namespace, FakeServer())


Command = tuple[str, ...]

_RUN_ALL: Final = """
local failed
for _, command in ipairs(cjson.decode(ARGV[1])) do
  local answer = redis.pcall(unpack(command))
  if type(answer) == 'table' and answer.err then failed = answer end
end
return failed
"""


class Batch:
    """Many commands whose answers nobody needs, as one: the client's work on each costs more than they do.

    All are tried. Raises what the last of those that failed said.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._run_all = redis.register_script(_RUN_ALL)

    async def run(self, commands: Sequence[Command]) -> None:
        if not commands:
            return
        if not is_in_process(self._redis):
            await self._run_all(args=[orjson.dumps(commands)])
            return
        # The in-process Redis would start an interpreter for each script.
        async with self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            await pipeline.execute()
