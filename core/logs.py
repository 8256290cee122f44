"""Structured logs: one event a line, JSON in production, readable in a terminal."""

import logging
import sys

import structlog
from structlog.typing import Processor

from core.settings import LogSettings


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def configure_logs(settings: LogSettings) -> None:
    """Route structlog and the standard library's logging through one formatter to standard error."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _renderer(settings.format),
            ],
        )
    )
    logging.captureWarnings(capture=True)  # else they are several lines of plain text
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for noisy in ("amqp", "aiosqlite", "asyncio", "celery.worker.strategy", "uvicorn.access"):
        logging.getLogger(noisy).setLevel("WARNING")


def _renderer(name: str) -> Processor:
    if name == "console" or (name == "auto" and sys.stderr.isatty()):
        # Plain: a traceback with its local variables would show prompts.
        return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    return structlog.processors.JSONRenderer()
