"""Reads what an OTLP exporter sent to a receiver of this process."""

from collections.abc import Iterable
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.fakes.webhook_receiver import Received


@dataclass(frozen=True, slots=True)
class SeenSpan:
    name: str
    service: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    attributes: dict[str, str]


def spans(received: Iterable[Received]) -> list[SeenSpan]:
    found = []
    for call in received:
        for resource in ExportTraceServiceRequest.FromString(call.body).resource_spans:
            about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                found += [_span(span, about["service.name"]) for span in scope.spans]
    return found


def _span(span: object, service: str) -> SeenSpan:
    return SeenSpan(
        name=span.name,  # type: ignore[attr-defined]
        service=service,
        trace=span.trace_id.hex(),  # type: ignore[attr-defined]
        id=span.span_id.hex(),  # type: ignore[attr-defined]
        parent=span.parent_span_id.hex(),  # type: ignore[attr-defined]
        links=tuple(link.trace_id.hex() for link in span.links),  # type: ignore[attr-defined]
        attributes={
            pair.key: pair.value.string_value or str(pair.value.int_value)
            for pair in span.attributes  # type: ignore[attr-defined]
        },
    )
