"""What the host's network reports: errors, drops and retransmitted segments."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from core.metrics import Declaration, Process

NETWORK_ERRORS: Final = Declaration(
    "penstock_host_network_errors_total",
    "counter",
    ("direction", "kind"),
    "Packets of the host's interfaces that were faulty (error) or thrown away (drop).",
    (Process.EVERY,),
)
TCP_SEGMENTS: Final = Declaration(
    "penstock_host_tcp_segments_total",
    "counter",
    ("kind",),
    "TCP segments that the host sent, and those that it sent again (retransmitted).",
    (Process.EVERY,),
)
_SNMP: Final = Path("/proc/net/snmp")


class HostCollector(Collector):
    """Read at each scrape; nothing is kept."""

    def collect(self) -> Iterator[Metric]:
        yield _network_errors()
        yield _tcp_segments()


def _network_errors() -> Metric:
    family = _family(NETWORK_ERRORS)
    counters = psutil.net_io_counters()
    if counters is not None:
        family.add_metric(("in", "error"), counters.errin)
        family.add_metric(("in", "drop"), counters.dropin)
        family.add_metric(("out", "error"), counters.errout)
        family.add_metric(("out", "drop"), counters.dropout)
    return family


def _tcp_segments() -> Metric:
    family = _family(TCP_SEGMENTS)
    try:
        found = parse_tcp(_SNMP.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not Linux
        return family
    for kind, name in (("sent", "OutSegs"), ("retransmitted", "RetransSegs")):
        if name in found:
            family.add_metric((kind,), found[name])
    return family


def parse_tcp(text: str) -> dict[str, int]:
    """The Tcp lines of /proc/net/snmp: one of names, one of values."""
    rows = [line.split()[1:] for line in text.splitlines() if line.startswith("Tcp:")]
    names, values = rows if len(rows) == 2 else ([], [])  # noqa: PLR2004 - names and values
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def _family(declaration: Declaration) -> CounterMetricFamily:
    return CounterMetricFamily(
        declaration.name.removesuffix("_total"), declaration.meaning, labels=declaration.labels
    )
