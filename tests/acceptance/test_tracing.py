"""One trace for each job, through every process, at a real OTLP receiver."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.fakes.webhook_receiver import WebhookReceiver
from tests.otlp import SeenSpan, spans
from tests.platform import running_platform, wait_for
from tests.services import Services

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CHAIN = ["POST /v1/jobs", "job.submit", "job.release", "job.run", "engine.generate"]


@dataclass
class Traced:
    client: httpx.Client
    collector: WebhookReceiver
    hooks: WebhookReceiver

    def spans_of(self, job_id: str, *names: str) -> list[SeenSpan]:
        """The job's trace, once these have come: each process sends its own after a while."""

        def arrived(received: list[Any]) -> bool:
            return set(names) <= {span.name for span in _trace_of(spans(received), job_id)}

        return _trace_of(spans(self.collector.wait_until(arrived, within=60)), job_id)


def _trace_of(seen: list[SeenSpan], job_id: str) -> list[SeenSpan]:
    traces = {span.trace for span in seen if span.attributes.get("penstock.job") == job_id}
    return [span for span in seen if span.trace in traces]


@pytest.fixture(scope="module")
def traced(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with WebhookReceiver() as collector, WebhookReceiver() as hooks:
        settings = {
            "TRACING__ENABLED": "true",
            "TRACING__ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "WEBHOOKS__ALLOW_HTTP": "true",
            "WEBHOOKS__ALLOWED_NETWORKS": '["127.0.0.0/8"]',
            "WEBHOOKS__PORTS": f"[443, {hooks.port}]",
        }
        with (
            running_platform(services, tmp_path_factory.mktemp("traced"), **settings) as platform,
            platform.client(platform.key("traced")) as client,
        ):
            yield Traced(client, collector, hooks)


def body(**changes: Any) -> dict[str, Any]:
    return {"prompt": "where is my order", "max_tokens": 8} | changes


def test_a_job_is_one_trace_from_the_callers_span_to_the_webhook(traced: Traced) -> None:
    webhook = {"url": traced.hooks.url, "events": ["job.completed"]}
    answer = traced.client.post("/v1/jobs", json=body(webhook=webhook), headers={"traceparent": CALLER})
    job_id = answer.raise_for_status().json()["id"]
    wait_for(traced.client, [job_id])

    seen = traced.spans_of(job_id, *CHAIN, "webhook.deliver")

    assert {span.trace for span in seen} == {CALLER.split("-")[1]}
    by_name = {span.name: span for span in seen}
    assert by_name["POST /v1/jobs"].parent == CALLER.split("-")[2]
    for parent, child in pairwise(CHAIN):
        assert by_name[child].parent == by_name[parent].id, child
    assert by_name["webhook.deliver"].parent == by_name["job.submit"].id
    assert {span.service for span in seen} == {
        "penstock-api", "penstock-relay", "penstock-worker", "penstock-deliver",
    }  # fmt: skip
    assert by_name["engine.generate"].attributes["penstock.completion_tokens"] == "8"
    [call] = [one for one in traced.hooks.wait(1) if one.event["data"]["id"] == job_id]
    assert call.headers["traceparent"].split("-")[1] == CALLER.split("-")[1]


def test_jobs_of_a_bulk_request_have_a_trace_each_that_names_the_request(traced: Traced) -> None:
    answer = traced.client.post("/v1/jobs/bulk", json={"jobs": [body(), body()]}).raise_for_status().json()
    ids = [one["job"]["id"] for one in answer["data"]]
    wait_for(traced.client, ids)

    first, second = (traced.spans_of(job_id, "bulk item", "job.run") for job_id in ids)

    assert len({span.trace for span in (*first, *second)}) == 2
    links = {link for span in (*first, *second) if span.name == "bulk item" for link in span.links}
    assert len(links) == 1


def test_no_span_says_what_was_asked_or_answered(traced: Traced) -> None:
    job_id = traced.client.post("/v1/jobs", json=body()).raise_for_status().json()["id"]
    traced.spans_of(job_id, *CHAIN)

    assert not [call for call in traced.collector.received if b"order" in call.body]
