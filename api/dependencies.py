"""What routes need, made once per application, and the caller of a request."""

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Request
from redis.asyncio import Redis

from api import sessions
from api.auth import Caller, KeyRing
from api.cancelling import Canceller
from api.limits import Door, default_bounds
from api.overview import Overviews
from api.watchers import Watchers
from core.clock import Clock
from core.settings import Settings
from models.catalogue import Catalogue
from models.dialect import Database
from models.keys import ADMIN, JOBS
from models.webhook_secrets import Vault
from queues.admission import Admission
from queues.answerers import Answerer
from queues.batches.service import Batches
from queues.event_reader import EventReader
from queues.event_writer import EventWriter
from queues.files import Files
from queues.hot_jobs import HotJobs
from queues.job_reader import JobReader
from queues.limits.quota import Quota
from queues.limits.rates import RateLimits
from queues.observer import Observer
from queues.pressure_board import PressureBoard
from queues.prompts import PromptMeter
from queues.ready_answers import answerers
from queues.similar.embedder import Embedder, open_embedder
from queues.similar.index import AnswerIndex
from queues.storage import open_storage
from queues.submission import Submission
from queues.targets import Targets
from queues.template_book import TemplateBook
from queues.templates import find_templates
from queues.webhooks import Webhooks


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything behind the routes."""

    settings: Settings
    clock: Clock
    database: Database
    redis: Redis
    catalogue: Catalogue
    keys: KeyRing
    door: Door
    meter: PromptMeter
    submission: Submission
    hot: HotJobs
    events: EventReader
    notices: EventWriter
    reader: JobReader
    webhooks: Webhooks
    answers: AnswerIndex
    board: PressureBoard
    templates: TemplateBook
    embedder: Embedder | None
    admission: Admission
    files: Files
    overviews: Overviews
    batches: Batches
    watchers: Watchers
    cancels: Canceller


def assemble(
    settings: Settings, *, database: Database, redis: Redis, catalogue: Catalogue, clock: Clock
) -> Parts:
    namespace = settings.broker.namespace
    storage = open_storage(settings.storage)
    hot = HotJobs(redis, namespace=namespace, result_ttl=settings.redis.result_ttl)
    events = EventReader(redis, namespace=namespace)
    answers = AnswerIndex(redis, namespace=namespace, settings=settings.answers)
    board = PressureBoard(redis, namespace=namespace, stale=settings.overload.stale)
    templates = _templates(settings, database)
    embedder = open_embedder(settings.answers.embedder)
    who = answerers(settings, answers, templates, revisions=catalogue.revisions, embedder=embedder)
    notices = EventWriter(
        redis, namespace=namespace, settings=settings.redis, flush_every=settings.worker.event_flush
    )
    return Parts(
        settings=settings,
        clock=clock,
        database=database,
        redis=redis,
        catalogue=catalogue,
        keys=KeyRing(
            database,
            clock,
            pepper=settings.api.pepper,
            fresh=settings.api.key_cache,
            defaults=default_bounds(settings),
        ),
        door=Door(
            settings,
            RateLimits(redis, namespace=namespace, settings=settings.limits),
            Quota(database, clock),
        ),
        meter=PromptMeter(),
        submission=Submission(database, max_queued=settings.api.max_queued),
        hot=hot,
        events=events,
        notices=notices,
        reader=JobReader(database, hot, events),
        webhooks=Webhooks(
            database,
            targets=Targets(settings.webhooks),
            vault=Vault(settings.api.pepper),
            overlap=settings.webhooks.secret_overlap,
        ),
        answers=answers,
        board=board,
        templates=templates,
        embedder=embedder,
        admission=_admission(settings, board, who, catalogue, clock),
        overviews=Overviews(database, Observer(database, redis, settings, ()), hot, catalogue.names),
        files=Files(database, storage, settings.storage),
        batches=Batches(database, storage),
        watchers=Watchers(),
        cancels=Canceller(settings, database=database, redis=redis, notices=notices, clock=clock),
    )


def with_catalogue(parts: Parts, catalogue: Catalogue) -> Parts:
    """The same parts for another catalogue; templates are read again. Raises `ConfigurationMistake`."""
    templates = _templates(parts.settings, parts.database)
    who = answerers(
        parts.settings,
        parts.answers,
        templates,
        revisions=catalogue.revisions,
        embedder=parts.embedder,
    )
    admission = _admission(parts.settings, parts.board, who, catalogue, parts.clock)
    parts.overviews.models = catalogue.names
    return replace(parts, catalogue=catalogue, templates=templates, admission=admission)


def _templates(settings: Settings, database: Database) -> TemplateBook:
    return TemplateBook(database, find_templates(settings.overload.templates))


def _admission(
    settings: Settings, board: PressureBoard, who: tuple[Answerer, ...], catalogue: Catalogue, clock: Clock
) -> Admission:
    return Admission(
        board,
        who,
        catalogue,
        clock,
        policy=settings.overload,
        keep=settings.upkeep.retention,
    )


def parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


async def authenticate(request: Request) -> Caller:
    """Before a body is read: strangers do not make us hold a megabyte."""
    parts, given = parts_of(request), request.headers.get("authorization")
    token = sessions.token_of(request, parts.settings.api.public_url) if given is None else None
    return await (parts.keys.verify(given) if token is None else parts.keys.verify_session(token))


async def jobs_caller(request: Request) -> Caller:
    caller = await authenticate(request)
    caller.require(JOBS)
    return caller


async def admin_caller(request: Request) -> Caller:
    caller = await authenticate(request)
    caller.require(ADMIN)
    return caller


JobsCaller = Annotated[Caller, Depends(jobs_caller)]
AdminCaller = Annotated[Caller, Depends(admin_caller)]
