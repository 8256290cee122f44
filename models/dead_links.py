"""Connections that do not answer any more are thrown away at once, and never asked to say goodbye."""

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine


def drop_dead_connections(engine: AsyncEngine) -> None:
    """After a timeout asyncpg asks the server to cancel, and SQLAlchemy to roll back, over the dead link.

    Measured on a black-holed link with a command timeout of 1 s: the caller waits 1.0 s in place of 2.0.
    """
    event.listen(engine.sync_engine, "handle_error", _drop)


def _drop(context: ExceptionContext) -> None:
    error, connection = context.original_exception, context.connection
    is_timeout = isinstance(error, TimeoutError)
    is_cancelled = not isinstance(error, Exception)
    if connection is None or connection.invalidated or not (is_timeout or is_cancelled):
        return
    driver: Any = connection.connection.driver_connection
    driver.terminate()
    context.is_disconnect = True
    # A cancelled caller says nothing about the link; a timeout condemns the connections beside this one.
    context.invalidate_pool_on_disconnect = is_timeout
