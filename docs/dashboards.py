"""Writes the dashboards: `make docs`. A test keeps them true, and their queries to existing metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

FOLDER: Final = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards"
_SOURCE: Final = {"type": "prometheus", "uid": "penstock-prometheus"}
_WIDTH: Final = 24
_HEIGHT: Final = 8


@dataclass(frozen=True, slots=True)
class Panel:
    """`queries` are pairs of an expression and a legend; `about` is what a reader should make of it."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    about: str = ""
    kind: str = "timeseries"
    width: int = 8
    red_above: float | None = None

    def document(self, number: int, x: int, y: int) -> dict[str, Any]:
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        if self.red_above is not None:
            steps.append({"color": "red", "value": self.red_above})
        options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom"}}
        if self.kind == "stat":
            options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}
        return {
            "id": number,
            "title": self.title,
            "description": self.about,
            "type": self.kind,
            "datasource": _SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": _HEIGHT},
            "fieldConfig": {
                "defaults": {"unit": self.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}},
                "overrides": [],
            },
            "options": options,
            "targets": [
                {"refId": chr(65 + n), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
                for n, (expression, legend) in enumerate(self.queries)
            ],
        }


def quantiles(metric: str, by: str = "service_class") -> list[tuple[str, str]]:
    return [
        (
            f"histogram_quantile({q}, sum by (le, {by}) (rate({metric}_bucket[5m])))",
            f"{{{{{by}}}}} p{int(q * 100)}",
        )
        for q in (0.5, 0.95)
    ]


def spread(metric: str, labels: str = "") -> list[tuple[str, str]]:
    return [
        (f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{labels}[5m])))", f"p{int(q * 100)}")
        for q in (0.5, 0.99)
    ]


def share(part: str, whole: str) -> list[tuple[str, str]]:
    return [(f"{part} / {whole}", "")]


def rate(metric: str, by: str, labels: str = "") -> tuple[str, str]:
    return f"sum by ({by}) (rate({metric}{labels}[1m]))", f"{{{{{by}}}}}"


def mean(metric: str, by: str) -> tuple[str, str]:
    return (
        f"sum by ({by}) (rate({metric}_sum[5m])) / sum by ({by}) (rate({metric}_count[5m]))",
        f"{{{{{by}}}}}",
    )


_WAITING: Final = Panel(
    "Jobs waiting",
    [("sum by (model, service_class) (penstock_jobs_waiting)", "{{model}} {{service_class}}")],
    about="Outbox and broker together. More than 50 of premium and standard is an alert.",
)
_LONGEST: Final = Panel(
    "Oldest wait",
    [("max by (model, service_class) (penstock_oldest_wait_seconds)", "{{model}} {{service_class}}")],
    "s",
    "Bulk may wait for half an hour by its ageing bound; premium a minute.",
)
_COST: Final = Panel(
    "Cost per million tokens",
    [("model:penstock_cost_per_million_tokens:rate1h", "{{model}}")],
    "short",
    "In the currency of gpu_hour_price, idle time included: it falls as the GPU fills.",
)

OVERVIEW: Final = (
    Panel("Ready workers", [('sum(penstock_workers{state="ready"})', "")], kind="stat", width=4),
    Panel("Waiting", [("sum(penstock_jobs_waiting)", "")], kind="stat", width=4, red_above=50),
    Panel("Availability 1 h", [("1 - penstock:http_errors:ratio_rate1h", "")], "percentunit",
          "Part of the requests without a 5xx. The goal is 99.9 %.", kind="stat", width=4),
    Panel("Completion 10 min", [("penstock:completion:ratio_rate10m", "")], "percentunit",
          "Part of the jobs that ended, without cancelled ones, that were completed.", kind="stat", width=4),
    Panel("Satisfaction 7 d", share('sum(increase(penstock_feedback_total{score="up"}[7d]))',
                                    "sum(increase(penstock_feedback_total[7d]))"), "percentunit",
          "Part of the feedback that was good.", kind="stat", width=4),
    Panel("Dead letters", [("max(penstock_dead_letters)", "")], kind="stat", width=4, red_above=1),
    Panel("Arrival and service rate",
          [("sum(rate(penstock_jobs_accepted_total[1m]))", "accepted"),
           ("sum(rate(penstock_jobs_finished_total[1m]))", "ended")], "reqps",
          "While accepted stays above ended, the queue grows.", width=12),
    Panel("Tokens", [("sum(rate(penstock_prompt_tokens_total[1m]))", "prompt"),
                     ("sum(rate(penstock_cached_prompt_tokens_total[1m]))", "of them cached"),
                     ("sum(rate(penstock_completion_tokens_total[1m]))", "written")], "short", width=12),
    _WAITING,
    Panel("Wait to the first token", quantiles("penstock_job_wait_to_first_token_seconds"), "s",
          "From acceptance: what a caller waits."),
    _COST,
)  # fmt: skip

QUEUES: Final = (
    _WAITING,
    Panel("Tokens waiting", [("sum by (model, service_class) (penstock_tokens_waiting)",
                              "{{model}} {{service_class}}")]),
    _LONGEST,
    Panel("Predicted wait", [("max by (model, service_class) (penstock_predicted_wait_seconds)",
                              "{{model}} {{service_class}}")], "s"),
    Panel("Degradation level", [("max by (model) (penstock_degradation_level)", "{{model}}")],
          about="0 full, 1 truncate, 2 template, 3 similar: what new premium and standard jobs get."),
    Panel("Answers by level", [rate("penstock_answers_total", "level")], "reqps"),
    Panel("Turned away", [("max by (service_class) (penstock_shedding)", "{{service_class}}")],
          about="1 while new jobs of the class get 429, the lowest class first."),
    Panel("Not released yet", [("sum by (model, service_class) (penstock_outbox_jobs)",
                                "{{model}} {{service_class}}")],
          about="These wait in the database, where they can be put in order."),
    Panel("Age in the outbox", [("max by (model) (penstock_outbox_oldest_seconds)", "{{model}}")], "s"),
    Panel("Broker depth", [("sum by (model, service_class) (penstock_broker_messages)",
                            "{{model}} {{service_class}}")],
          about="Ready messages. Small by design: the relay releases little."),
    Panel("Released", [rate("penstock_jobs_released_total", "service_class")], "reqps"),
    Panel("Confirm time", quantiles("penstock_publish_confirm_seconds", "queue"), "s"),
    Panel("Queue wait", quantiles("penstock_job_queue_seconds"), "s"),
    Panel("Refusals", [rate("penstock_refusals_total", "code")], "reqps",
          "429 and 503 codes are admission; the others are callers' mistakes."),
    Panel("Given back", [rate("penstock_jobs_given_back_total", "reason")], "reqps",
          "Attempts that are made again, and why."),
)  # fmt: skip

WORKERS: Final = (
    Panel("Workers", [("sum by (state) (penstock_workers)", "{{state}}")]),
    Panel("Slots in use", [("sum by (model) (penstock_jobs_running)", "{{model}} running"),
                           ("sum by (model) (penstock_engine_slots)", "{{model}} slots")]),
    Panel("Token fill", [("model:penstock_token_fill:ratio", "{{model}}")], "percentunit",
          "Tokens of the running jobs, of those that fit."),
    Panel("Dispatch group", [mean("penstock_dispatch_group_jobs", "model")], "short",
          "Mean number of jobs claimed at once."),
    Panel("Time to first token in the engine", quantiles("penstock_job_first_token_seconds"), "s"),
    Panel("Time for each further token", quantiles("penstock_job_output_token_seconds"), "s"),
    Panel("Cached share of prompts", [("model:penstock_cached_prompt_tokens:share_rate5m", "{{model}}")],
          "percentunit", "Prompts with a shared prefix should be near the prefix's share."),
    Panel("Claim time", quantiles("penstock_claim_seconds", "model"), "s"),
    Panel("Ends", [rate("penstock_jobs_finished_total", "status")], "reqps"),
    Panel("Failures", [rate("penstock_job_failures_total", "code")], "reqps"),
    Panel("Leases", [("max(penstock_leases)", "held"), ("max(penstock_leases_overdue)", "overdue"),
                     ("sum(increase(penstock_leases_reaped_total[5m]))", "reaped in 5 min"),
                     ("sum(increase(penstock_leases_lost_total[5m]))", "lost in 5 min"),
                     ("sum(increase(penstock_stale_finishes_total[5m]))", "stale results in 5 min")]),
    Panel("Engines", [("min by (model, instance) (penstock_engine_ready)", "{{model}} {{instance}}"),
                      ("sum by (model) (increase(penstock_engine_stalls_total[5m]))", "{{model}} stalls")]),
    Panel("GPU utilisation", [("penstock_gpu_utilization_ratio", "{{instance}} {{gpu}}")], "percentunit",
          "A busy GPU alone is success; with a growing wait it is overload."),
    Panel("GPU memory", [("penstock_gpu_memory_used_bytes / penstock_gpu_memory_bytes",
                          "{{instance}} {{gpu}}")], "percentunit", red_above=0.9),
    Panel("GPU memory for each running job", [("penstock:gpu_memory_per_job:bytes", "")], "bytes"),
    Panel("GPU temperature", [("penstock_gpu_temperature_celsius", "{{instance}} {{gpu}}")], "celsius"),
    Panel("GPU power", [("penstock_gpu_power_watts", "{{instance}} {{gpu}}")], "watt"),
    _COST,
)  # fmt: skip

API: Final = (
    Panel("Requests", [rate("penstock_http_request_seconds_count", "route")], "reqps"),
    Panel("Answers by status", [rate("penstock_http_request_seconds_count", "status")], "reqps"),
    Panel("Under way", [("sum(penstock_http_requests_in_progress)", "requests")]),
    Panel("Latency of submissions", spread("penstock_http_request_seconds", '{route="/v1/jobs"}'), "s",
          "A wait that a caller asked for (`Prefer: wait`) is part of it."),
    Panel("Latency by route", quantiles("penstock_http_request_seconds", "route"), "s",
          "Long polls wait because they were asked to."),
    Panel("Jobs in one commit", share("sum(rate(penstock_submission_group_jobs_sum[5m]))",
                                      "sum(rate(penstock_submission_group_jobs_count[5m]))")),
    Panel("Commit time", spread("penstock_submission_commit_seconds"), "s"),
    Panel("Size of requests", [mean("penstock_http_request_bytes", "route")], "bytes"),
    Panel("Size of answers", [mean("penstock_http_response_bytes", "route")], "bytes"),
    Panel("Errors", [(f"penstock:http_errors:ratio_rate{window}", window) for window in ("5m", "1h", "6h")],
          "percentunit", "Part of the requests that failed by our fault."),
    Panel("Memory", [("process_resident_memory_bytes", "{{job}} {{instance}}")], "bytes"),
    Panel("CPU", [("rate(process_cpu_seconds_total[1m])", "{{job}} {{instance}}")], "short"),
    Panel("Network errors", [("sum by (instance, kind) (rate(penstock_host_network_errors_total[5m]))",
                              "{{instance}} {{kind}}")], "short"),
    Panel("TCP segments sent again",
          share('sum(rate(penstock_host_tcp_segments_total{kind="retransmitted"}[5m]))',
                'sum(rate(penstock_host_tcp_segments_total{kind="sent"}[5m]))'), "percentunit"),
)  # fmt: skip

WEBHOOKS: Final = (
    Panel("Calls", [rate("penstock_webhook_deliveries_total", "outcome")], "reqps"),
    Panel("Call time", quantiles("penstock_webhook_call_seconds", "outcome"), "s"),
    Panel("Not done", [("max(penstock_webhook_deliveries_open)", "open")]),
    Panel("Late", [("max(penstock_webhook_delivery_late_seconds)", "due since")], "s",
          "Time that the oldest due delivery waits for a sender."),
    Panel("Bulk waiting", [('sum by (model) (penstock_jobs_waiting{service_class="bulk"})', "{{model}}")]),
    Panel("Bulk ends", [rate("penstock_jobs_finished_total", "status", '{service_class="bulk"}')], "reqps"),
    Panel("Scheduled", [("sum by (model) (penstock_jobs_scheduled)", "{{model}}")]),
)  # fmt: skip

BOARDS: Final = {
    "overview": ("Penstock: overview", OVERVIEW),
    "queues": ("Penstock: queues and degradation", QUEUES),
    "workers": ("Penstock: workers and GPUs", WORKERS),
    "api": ("Penstock: API", API),
    "webhooks": ("Penstock: webhooks and batches", WEBHOOKS),
}


def board(name: str) -> dict[str, Any]:
    title, panels = BOARDS[name]
    documents, x, y = [], 0, 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > _WIDTH:
            x, y = 0, y + _HEIGHT
        documents.append(panel.document(number, x, y))
        x += panel.width
    return {
        "uid": f"penstock-{name}",
        "title": title,
        "tags": ["penstock"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "5s",
        "time": {"from": "now-1h", "to": "now"},
        "editable": False,
        "links": [{"type": "dashboards", "tags": ["penstock"], "title": "Penstock", "asDropdown": False}],
        "panels": documents,
    }


def files() -> dict[Path, bytes]:
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return {FOLDER / f"{name}.json": orjson.dumps(board(name), option=options) for name in BOARDS}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_bytes(text)
