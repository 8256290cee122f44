"""Traces by OpenTelemetry: one for each job, from its request to its webhook. Off until it is asked for.

A trace travels as W3C's `traceparent`: in the job's row, in its message, to the engine and to the receiver.
Attributes name jobs, tenants and models; nothing that a caller wrote is ever one.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final

from core.errors import ConfigurationMistake
from core.settings import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Attributes = Mapping[str, str | int | float | bool]

_PARENT: Final = "traceparent"


class Span:
    """A span under way; `traceparent` is what continues it elsewhere. Off: does nothing."""

    traceparent: str | None = None

    def name(self, name: str) -> None: ...

    def note(self, **attributes: str | float | bool | None) -> None: ...

    def fail(self, code: str) -> None:
        """The work went wrong; `code` is ours, never a message."""


class _Recorded(Span):
    def __init__(self, span: Any) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._span = span
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        self.traceparent = carrier.get(_PARENT)

    def name(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, **attributes: str | float | bool | None) -> None:
        for name, value in attributes.items():
            if value is not None:
                self._span.set_attribute(f"penstock.{name}", value)

    def fail(self, code: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_status(StatusCode.ERROR, code)


class Tracing:
    """Spans of one process; `off` makes none and imports nothing."""

    def __init__(self, tracer: Any = None, provider: "TracerProvider | None" = None) -> None:
        self._tracer = tracer
        self._provider = provider

    @property
    def is_on(self) -> bool:
        return self._tracer is not None

    def span(
        self, name: str, kind: str = "internal", *, parent: str | None = None, apart: bool = False
    ) -> AbstractContextManager[Span]:
        """`parent` is a `traceparent` from elsewhere; without one, the span under way is the parent.

        `apart` begins a trace of its own that is linked to the span under way.
        """
        return _OFF if self._tracer is None else self._span(name, kind, parent=parent, apart=apart)

    @contextmanager
    def _span(self, name: str, kind: str, *, parent: str | None, apart: bool) -> Iterator[Span]:
        from opentelemetry.trace import SpanKind

        context, links = _origin(parent, apart=apart)
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=SpanKind[kind.upper()],
            links=links,
            # An exception's text may hold what a caller wrote.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            recorded = _Recorded(span)
            try:
                yield recorded
            except BaseException as error:
                recorded.fail(getattr(error, "code", type(error).__name__))
                raise

    def current(self) -> str | None:
        """The `traceparent` of the span under way."""
        if self._tracer is None:
            return None
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return carrier.get(_PARENT)

    def headers(self) -> dict[str, str]:
        """For a request to another server."""
        current = self.current()
        return {_PARENT: current} if current else {}

    def close(self) -> None:
        """Sends what is left."""
        if self._provider is not None:
            self._provider.shutdown()


def _origin(parent: str | None, *, apart: bool) -> tuple[Any, list[Any]]:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if apart:
        return Context(), [trace.Link(trace.get_current_span().get_span_context())]
    if parent is not None:
        return TraceContextTextMapPropagator().extract({_PARENT: parent}, context=Context()), []
    return None, []


_OFF: Final = nullcontext(Span())
_process: list[Tracing] = [Tracing()]


def tracing() -> Tracing:
    """This process's, as its composition root started it."""
    return _process[0]


def start_tracing(settings: TracingSettings, process: str) -> Tracing:
    """Once in a process. Raises `ConfigurationMistake` where the extra is not installed."""
    if not settings.enabled:
        return _process[0]
    with suppress(ImportError):
        _process[0] = _started(settings, process)
        return _process[0]
    raise ConfigurationMistake(
        "PENSTOCK_TRACING__ENABLED is set, and OpenTelemetry's SDK is not installed. "
        "Install penstock[tracing], or unset it."
    )


def _started(settings: TracingSettings, process: str) -> Tracing:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(
        resource=Resource.create({"service.name": f"penstock-{process}", "service.namespace": "penstock"}),
        # A trace that was begun is followed to its end by every process, or by none.
        sampler=ParentBased(TraceIdRatioBased(settings.sample)),
    )
    exporter = OTLPSpanExporter(
        endpoint=f"{settings.endpoint.rstrip('/')}/v1/traces",
        headers={"Authorization": settings.authorization.get_secret_value()}
        if settings.authorization
        else None,
        timeout=settings.timeout.total_seconds(),
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider.get_tracer("penstock"), provider)
