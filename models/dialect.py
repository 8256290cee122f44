"""The few differences between PostgreSQL and SQLite, and the connection to either."""

import asyncio
import itertools
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import asyncpg
import orjson
from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Select,
    Table,
    event,
    exc,
    func,
    insert,
    select,
    types,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import TypeEngine

from core.errors import StoreUnavailable
from core.settings import DatabaseSettings
from models.dead_links import drop_dead_connections
from models.wakeups import LocalWakeups, PostgresWakeups, Wakeups

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

# Classes of SQLSTATE that pass: connection lost, rolled back for another (a deadlock), too many
# connections, starting or shutting down.
_PASSING: Final = frozenset({"08", "40", "53", "57"})
# COPY costs two round trips more than it saves with few rows.
_WORTH_A_COPY: Final = 8
_BELLS: Final = "penstock_bells"
_POSTGRESQL: Final[Dialect] = postgresql.dialect()  # type: ignore[no-untyped-call]

_ENGINE: Final[dict[str, Any]] = {
    # A refused statement is logged with its error; its parameters are prompts.
    "hide_parameters": True,
    "json_serializer": lambda value: orjson.dumps(value).decode(),
    "json_deserializer": orjson.loads,
}

# JSONB compares and indexes; SQLite keeps text.
Json = types.JSON().with_variant(postgresql.JSONB(), "postgresql")


class UtcDateTime(types.TypeDecorator[datetime]):
    """An instant: timestamptz on PostgreSQL, microseconds since 1970 on SQLite, which has no zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(BigInteger())
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if isinstance(value, int) and dialect.name == "sqlite":
            return _EPOCH + value * _MICROSECOND
        instant: datetime | None = value
        return instant


class Now(ColumnElement[datetime]):
    """The database's clock plus `offset`, so that leases do not depend on the workers' clocks."""

    type = UtcDateTime()
    # The offset is part of the compiled text, so it is part of the key of SQLAlchemy's statement cache;
    # without a key every statement with a clock in it would be compiled again each time.
    _traverse_internals = [("offset", InternalTraversal.dp_plain_obj)]  # noqa: RUF012 - SQLAlchemy's interface
    inherit_cache = True

    def __init__(self, offset: timedelta = timedelta()) -> None:
        self.offset = offset


@compiles(Now, "postgresql")
def _now_postgresql(element: Now, _compiler: object, **_: object) -> str:
    if not element.offset:
        return "now()"
    return f"(now() + interval '{element.offset // _MICROSECOND} microseconds')"


@compiles(Now, "sqlite")
def _now_sqlite(element: Now, _compiler: object, **_: object) -> str:
    # unixepoch('subsec') needs SQLite 3.42; julianday has microseconds enough since 3.0.
    micros = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
    return f"({micros} + {element.offset // _MICROSECOND})"


def writes_in_with(connection: AsyncConnection) -> bool:
    """Whether one statement may change several tables: WITH changed AS (UPDATE …) INSERT …"""
    return connection.dialect.name == "postgresql"


def skip_locked(statement: Select[Any]) -> Select[Any]:
    """Rows that another process holds are passed over. SQLite has one writer and ignores it."""
    return statement.with_for_update(skip_locked=True)


class Database:
    """One pool of connections. `begin()` for a write transaction, `read()` for a look."""

    def __init__(self, engine: AsyncEngine, wakeups: Wakeups) -> None:
        self.engine = engine
        self.wakeups = wakeups
        self._reads = engine if self.is_sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._rings: set[asyncio.Task[None]] = set()

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Commits at the end, rolls back on an error; raises `StoreUnavailable` when out of reach."""
        async with _translated(), self.engine.begin() as connection:
            connection.info.pop(_BELLS, None)
            yield connection
            bells: set[str] = connection.info.pop(_BELLS, set())
        for bell in bells:
            ring = asyncio.create_task(self.wakeups.ring(bell))
            self._rings.add(ring)
            ring.add_done_callback(self._rings.discard)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """For looks. On PostgreSQL each statement stands alone, which saves two round trips: at its usual
        isolation a transaction would see no more than they do. A server-side cursor needs `begin`.
        """
        async with _translated(), self._reads.connect() as connection:
            yield await connection.execution_options(penstock_read_only=True)

    @asynccontextmanager
    async def at_once(self) -> AsyncIterator[AsyncConnection]:
        """For what is one statement on PostgreSQL, where it is a transaction without a BEGIN and a COMMIT."""
        if self.is_sqlite:
            async with self.begin() as connection:
                yield connection
        else:
            async with _translated(), self._reads.connect() as connection:
                yield connection

    def insert(self, table: Table) -> "postgresql.Insert | sqlite.Insert":
        """An INSERT that knows ON CONFLICT, in this database's words."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    async def close(self) -> None:
        await asyncio.gather(*self._rings, return_exceptions=True)
        await self.wakeups.close()
        await self.engine.dispose()


def insert_in(dialect: str, table: Table) -> "postgresql.Insert | sqlite.Insert":
    """The same as `Database.insert`, where only a connection is at hand."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def ring_after_commit(connection: AsyncConnection, bell: str) -> None:
    """For a statement that makes work for somebody; the bell stays silent when its transaction fails."""
    connection.info.setdefault(_BELLS, set()).add(bell)


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (TimeoutError, exc.TimeoutError) as error:
        raise StoreUnavailable("the database did not answer in time, or had no free connection") from error
    except (exc.InterfaceError, exc.OperationalError, OSError) as error:
        raise StoreUnavailable("the database cannot be reached") from error
    except exc.DBAPIError as error:
        if error.connection_invalidated or str(getattr(error.orig, "sqlstate", ""))[:2] in _PASSING:
            raise StoreUnavailable(f"the database does not serve us now: {error.orig}") from error
        raise


def open_database(settings: DatabaseSettings, *, namespace: str = "penstock") -> Database:
    """Connects at the first use, with explicit connect and command timeouts."""
    url = make_url(settings.url)
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(
            url, connect_args={"timeout": settings.command_timeout.total_seconds()}, **_ENGINE
        )
        _prepare_sqlite(engine)
        return Database(engine, LocalWakeups(url.database or ""))
    engine = create_async_engine(
        url,
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.command_timeout.total_seconds(),
        pool_pre_ping=False,
        pool_recycle=1800,
        **_ENGINE,
        connect_args={
            "timeout": settings.connect_timeout.total_seconds(),
            "command_timeout": settings.command_timeout.total_seconds(),
            "server_settings": {"application_name": namespace},
        },
    )
    drop_dead_connections(engine)
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return Database(engine, PostgresWakeups(dsn, namespace, settings.connect_timeout))


def _prepare_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _pragmas(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "temp_store=MEMORY"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        # A deferred transaction that turns into a writer fails with SQLITE_BUSY_SNAPSHOT; take the lock now.
        read_only = connection.get_execution_options().get("penstock_read_only")
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


async def insert_rows(connection: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """A group of rows in the way that costs least for its size."""
    if len(rows) < _WORTH_A_COPY:
        await connection.execute(insert(table), list(rows))
    else:
        await copy_rows(connection, table, rows)


async def copy_rows(connection: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Many rows at once: COPY on PostgreSQL, one executemany on SQLite. Missing keys take the default."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        await connection.execute(insert(table), list(rows))
        return
    columns = [column for column in table.columns if column.name in rows[0]]
    dialect = connection.dialect
    encoders = [column.type.bind_processor(dialect) for column in columns]
    records = [
        tuple(
            encode(row[column.name]) if encode else row[column.name]
            for column, encode in zip(columns, encoders, strict=True)
        )
        for row in rows
    ]
    raw = await connection.get_raw_connection()
    driver: asyncpg.Connection = raw.driver_connection
    if not driver.is_in_transaction():
        # SQLAlchemy begins with the first statement that it sees, and does not see this one.
        await connection.execute(select(1))
    with _as_sqlalchemy_says("COPY"):
        await driver.copy_records_to_table(table.name, records=records, columns=[c.name for c in columns])


async def refresh_statistics(connection: AsyncConnection, *tables: Table) -> None:
    """After many rows came at once, in a transaction of its own: PostgreSQL itself looks within a minute, and
    until then it takes all that waits for next to nothing.
    """
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql(f"ANALYZE {', '.join(table.name for table in tables)}")


async def insert_together(
    connection: AsyncConnection, groups: Sequence[tuple[Table, Sequence[Mapping[str, Any]]]]
) -> None:
    """Rows of several tables: one statement on PostgreSQL, one for each table on SQLite.

    All rows of a table have the same keys. A table comes after those that its foreign keys name.
    """
    groups = [(table, rows) for table, rows in groups if rows]
    if connection.dialect.name == "sqlite":
        for table, rows in groups:
            await connection.execute(insert(table), list(rows))
        return
    dialect = connection.dialect
    statement = _insert_together(tuple((table, tuple(rows[0])) for table, rows in groups))
    given: list[list[Any]] = []
    for table, rows in groups:
        for name in rows[0]:
            encode = table.c[name].type.bind_processor(dialect)
            given.append([encode(row[name]) if encode else row[name] for row in rows])
    await connection.exec_driver_sql(statement, tuple(given))


@cache
def _insert_together(groups: tuple[tuple[Table, tuple[str, ...]], ...]) -> str:
    """WITH and INSERT … SELECT from one array for each column."""
    place = itertools.count(1)
    inserts = []
    for table, names in groups:
        arrays, values = [], []
        for name in names:
            passed, cast = _passed_as(table.c[name].type)
            arrays.append(f"${next(place)}::{passed}[]")
            values.append(f'"{name}"::{cast}' if cast else f'"{name}"')
        columns = ", ".join(f'"{name}"' for name in names)
        source = f"unnest({', '.join(arrays)}) AS given({columns})"
        inserts.append(f'INSERT INTO "{table.name}" ({columns}) SELECT {", ".join(values)} FROM {source}')  # noqa: S608 - names of our own tables and columns
    *first, last = inserts
    together = ", ".join(f"inserted_{number} AS ({one})" for number, one in enumerate(first))
    return f"WITH {together} {last}" if together else last


def _passed_as(kind: TypeEngine[Any]) -> tuple[str, str]:
    """The type of an array's items, and what they are cast to."""
    kind = kind.dialect_impl(_POSTGRESQL)
    if isinstance(kind, types.TypeDecorator):
        kind = kind.load_dialect_impl(_POSTGRESQL)
    match kind:
        case postgresql.JSONB():
            return "text", "jsonb"
        case types.JSON():
            return "text", "json"
        case types.String():
            return "text", ""  # A cast to varchar(64) would cut what the column refuses.
    return kind.compile(_POSTGRESQL), ""


@contextmanager
def _as_sqlalchemy_says(statement: str) -> Iterator[None]:
    """For what goes past SQLAlchemy to the driver: the errors are those of every other statement."""
    try:
        yield
    except asyncpg.IntegrityConstraintViolationError as error:
        raise exc.IntegrityError(statement, None, error) from error
    except asyncpg.DataError as error:
        raise exc.DataError(statement, None, error) from error
    except (asyncpg.InterfaceError, asyncpg.PostgresConnectionError) as error:
        raise exc.InterfaceError(statement, None, error) from error
    except asyncpg.PostgresError as error:
        raise exc.DBAPIError(statement, None, error) from error


class Leadership:
    """At most one process at a time holds each name; the death of its connection gives it up.

    PostgreSQL: a session's advisory lock. SQLite has one process, which leads.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._connection: AsyncConnection | None = None

    async def acquire(self) -> bool:
        """True while this process leads; call it before each round of work. Raises `StoreUnavailable`."""
        if self._database.is_sqlite:
            return True
        async with _translated():
            if self._connection is None:
                return await self._try_lock()
            try:
                await self._connection.exec_driver_sql("SELECT 1")
            except Exception:
                # The lock went with its session, and the next session must win it again.
                await self.release()
                raise
            return True

    async def _try_lock(self) -> bool:
        key = zlib.crc32(self._name.encode())
        connection = await self._database.engine.connect()
        try:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            if (await connection.execute(select(func.pg_try_advisory_lock(key)))).scalar_one():
                self._connection = connection
        finally:
            if self._connection is None:
                await connection.close()
        return self._connection is not None

    async def release(self) -> None:
        if self._connection is not None:
            # Returned to the pool, the session would keep its lock.
            await self._connection.invalidate()
            await self._connection.close()
            self._connection = None
