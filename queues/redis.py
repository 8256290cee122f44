"""The connection to Redis, or to the in-process one of the embedded profile."""

import threading
from typing import Final

from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from core.settings import RedisSettings

__all__ = ["REDIS_DOWN", "Redis", "is_in_process", "open_redis"]

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
