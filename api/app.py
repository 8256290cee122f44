"""The HTTP application, and the composition root that uvicorn starts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from redis.asyncio import Redis
from starlette_compress import CompressMiddleware, add_compress_type

from api import errors, openapi
from api.dependencies import Parts, assemble
from api.meter import RequestMeter
from api.middleware import BodyLimit, RequestContext
from api.routes import (
    answers_admin,
    batches,
    batches_admin,
    console,
    dead_letters,
    degradation,
    events,
    files,
    health,
    jobs,
    jobs_admin,
    limits_admin,
    models_admin,
    openai,
    overview,
    report,
    submission,
    templates_admin,
    tenants_admin,
    usage,
    webhook_deliveries,
    webhook_endpoints,
)
from core.clock import Clock, SystemClock
from core.logs import configure_logs
from core.metrics import Process
from core.metrics.port import open_port
from core.settings import Settings, load_settings
from core.tracing import start_tracing
from models.catalogue import Catalogue, find_catalogue
from models.dialect import Database, open_database
from models.repositories.schema import known_revisions
from queues.redis import open_redis

VERSION = "0.1.0"
_FORM = 65_536  # bytes of a form around its file


def build_app() -> FastAPI:
    """For `uvicorn --factory api.app:build_app`: reads the settings, and owns its database and Redis."""
    settings = load_settings()
    configure_logs(settings.log)
    open_port(settings.metrics, Process.API)
    start_tracing(settings.tracing, Process.API)
    return open_app(settings, find_catalogue(settings))


def open_app(settings: Settings, catalogue: Catalogue) -> FastAPI:
    """An application that opens what it needs and closes it at the end."""
    namespace = settings.broker.namespace
    return create_app(
        settings,
        database=open_database(settings.database, namespace=namespace),
        redis=open_redis(settings.redis, namespace),
        catalogue=catalogue,
        owns=True,
    )


def create_app(
    settings: Settings,
    *,
    database: Database,
    redis: Redis,
    catalogue: Catalogue,
    clock: Clock | None = None,
    owns: bool = False,
) -> FastAPI:
    """`owns`: database and Redis are closed with the application; else they are its caller's."""
    parts = assemble(
        settings, database=database, redis=redis, catalogue=catalogue, clock=clock or SystemClock()
    )
    app = FastAPI(
        title="Penstock",
        version=VERSION,
        description="Self-hosted asynchronous LLM inference.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(parts, owns=owns),
    )
    app.state.parts = parts
    app.state.settings = settings
    app.state.known_revisions = known_revisions()
    errors.install(app)
    openapi.install(app)
    _wrap(app, settings)
    for router in (
        submission.router,
        jobs.router,
        events.router,
        webhook_endpoints.router,
        webhook_deliveries.router,
        dead_letters.router,
        models_admin.router,
        degradation.router,
        openai.router,
        files.router,
        batches.router,
        limits_admin.router,
        tenants_admin.router,
        answers_admin.router,
        templates_admin.router,
        usage.router,
        overview.router,
        report.router,
        jobs_admin.router,
        batches_admin.router,
        console.router,
        health.router,
    ):
        app.include_router(router)
    return app


def _wrap(app: FastAPI, settings: Settings) -> None:
    # The last one added is the outermost.
    limits = {
        "/v1/jobs/bulk": settings.api.max_bulk_body,
        "/v1/files": settings.storage.largest_file + _FORM,
    }
    app.add_middleware(BodyLimit, default=settings.api.max_body, limits=limits)
    app.add_middleware(RequestContext)
    app.add_middleware(RequestMeter)
    compression = settings.api.compression
    add_compress_type("application/jsonl")
    app.add_middleware(
        CompressMiddleware,
        minimum_size=compression.minimum_size,
        zstd=False,
        brotli="br" in compression.encodings,
        brotli_quality=compression.brotli_quality,
        gzip="gzip" in compression.encodings,
        gzip_level=compression.gzip_level,
    )


def _lifespan(parts: Parts, *, owns: bool) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.gather(parts.events.start(), parts.notices.start(), parts.board.start())
        try:
            yield
        finally:
            await parts.board.close()
            await parts.overviews.feed.close()
            await parts.reader.drain()
            await parts.submission.close()
            await parts.cancels.close()
            await parts.notices.close()
            if owns:
                await parts.redis.aclose(close_connection_pool=True)
                await parts.database.close()

    return lifespan
