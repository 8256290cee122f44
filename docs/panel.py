"""One panel of a dashboard: its queries, what it tells and what to do about it; and common queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

SOURCE: Final = {"type": "prometheus", "uid": "penstock-prometheus"}
HEIGHT: Final = 8


@dataclass(frozen=True, slots=True)
class Panel:
    """`queries` are pairs of an expression and a legend.

    `about` is what a reader should make of it, `act` what to do when it looks bad, `runbook` the page that
    goes on. `needs`: without this, on a healthy platform, there is nothing to draw.
    """

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    about: str = ""
    act: str = ""
    runbook: str = ""
    needs: str = ""
    kind: str = "timeseries"
    width: int = 8
    red_above: float | None = None
    red_below: float | None = None

    def document(self, number: int, x: int, y: int) -> dict[str, Any]:
        """As Grafana reads it."""
        return {
            "id": number,
            "title": self.title,
            "description": f"{self.about} {self.act}".strip(),
            "type": self.kind,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": HEIGHT},
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self._options(),
            "targets": [
                {"refId": chr(65 + n), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
                for n, (expression, legend) in enumerate(self.queries)
            ],
        }

    def _defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = {
            "unit": self.unit,
            "min": 0,
            "thresholds": {"mode": "absolute", "steps": self._steps()},
        }
        if self.kind == "timeseries" and len(self._steps()) > 1:
            defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
        return defaults

    def _steps(self) -> list[dict[str, Any]]:
        if self.red_below is not None:
            return [{"color": "red", "value": None}, {"color": "green", "value": self.red_below}]
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        if self.red_above is not None:
            steps.append({"color": "red", "value": self.red_above})
        return steps

    def _options(self) -> dict[str, Any]:
        if self.kind == "stat":
            return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}
        return {"legend": {"displayMode": "list", "placement": "bottom"}}


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
