import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import ConfigurationMistake
from core.settings import TracingSettings
from core.tracing import Tracing, start_tracing, tracing
from queues.messages import JobEnvelope, encode

ROOT = Path(__file__).resolve().parents[2]
ENVELOPE = JobEnvelope("job_1", 0, "m", "bulk", "acme", 5, 10, 0.0)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_tracing_that_is_off_imports_no_exporter() -> None:
    # redis-py imports the SDK's metrics wherever they are installed; without the extra they are not.
    code = (
        "import sys, api.server, queues.relay, workers.app, workers.webhooks.app;"
        "from core.settings import TracingSettings; from core.tracing import start_tracing;"
        "start_tracing(TracingSettings(), 'test');"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk.trace')"
        " or name.startswith('opentelemetry.exporter')])"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_span_that_is_off_costs_nothing_and_continues_nothing() -> None:
    with Tracing().span("job.run", parent=TRACE) as span:
        span.note(job="job_1")

    assert span.traceparent is None
    assert Tracing().headers() == {}
    assert not tracing().is_on


def test_tracing_without_its_extra_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    with pytest.raises(ConfigurationMistake, match=r"penstock\[tracing\]"):
        start_tracing(TracingSettings(enabled=True), "test")


def test_a_traced_jobs_message_carries_its_trace_in_a_header_too() -> None:
    traced = JobEnvelope("job_1", 0, "m", "bulk", "acme", 5, 10, 0.0, trace=TRACE)

    assert encode(traced).headers["traceparent"] == TRACE
    assert "traceparent" not in encode(ENVELOPE).headers
