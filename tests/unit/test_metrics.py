import re
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core import metrics
from core.errors import ConfigurationMistake
from core.metrics import Declaration
from core.metrics.host import parse_tcp
from core.metrics.port import open_port
from core.settings import MetricsSettings
from docs.generate import all_metrics

# Each of these has few values that we choose.
BOUNDED = {
    "model", "service_class", "status", "code", "reason", "route", "method", "score", "queue", "outcome",
    "version", "process", "direction", "kind", "state", "gpu", "level", "stage",
}  # fmt: skip
UNITS = ("_seconds", "_bytes", "_jobs", "_tokens", "_celsius", "_watts", "_ratio", "_info")


@pytest.mark.parametrize("one", all_metrics(), ids=lambda one: one.name)
def test_a_metric_is_named_by_the_conventions(one: Declaration) -> None:
    assert re.fullmatch(r"penstock_[a-z0-9_]+", one.name)
    assert one.name.endswith("_total") == (one.kind == "counter")
    assert one.kind != "histogram" or one.name.endswith(UNITS)
    assert one.meaning.endswith(".") or one.name.endswith("_info")


@pytest.mark.parametrize("one", all_metrics(), ids=lambda one: one.name)
def test_no_label_grows_with_tenants_or_jobs(one: Declaration) -> None:
    assert set(one.labels) <= BOUNDED


def test_no_name_is_declared_twice() -> None:
    names = [one.name for one in all_metrics()]

    assert len(names) == len(set(names))


def test_a_port_shows_what_was_counted() -> None:
    port = open_port(MetricsSettings(port=0), "test")
    assert port is not None
    counted = metrics.RELEASED.labels("a model of this test", "bulk")
    counted.inc(3)

    with urlopen(f"http://127.0.0.1:{port.number}/metrics") as answer:
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    port.close()

    assert [
        sample.value
        for sample in families["penstock_jobs_released"].samples
        if sample.labels.get("model") == "a model of this test" and sample.name.endswith("_total")
    ] == [3]
    assert families["penstock_host_network_errors"].samples
    assert families["process_resident_memory_bytes"].samples


def test_nothing_can_be_changed_through_the_port() -> None:
    port = open_port(MetricsSettings(port=0), "test")
    assert port is not None

    with pytest.raises(HTTPError, match="405"):
        urlopen(Request(f"http://127.0.0.1:{port.number}/metrics", method="POST", data=b""))
    port.close()


def test_without_a_port_nothing_listens() -> None:
    assert open_port(MetricsSettings(), "test") is None


def test_a_taken_port_is_refused_with_the_setting_to_change() -> None:
    first = open_port(MetricsSettings(port=0), "test")
    assert first is not None

    with pytest.raises(ConfigurationMistake, match="PENSTOCK_METRICS__PORT"):
        open_port(MetricsSettings(port=first.number), "test")
    first.close()


def test_processes_that_share_a_folder_share_a_port(tmp_path: Path) -> None:
    settings = MetricsSettings(port=0, directory=tmp_path)
    first = open_port(settings, "test")
    assert first is not None

    second = open_port(settings.model_copy(update={"port": first.number}), "test")

    assert second is not None
    second.close()
    first.close()


def test_retransmitted_segments_are_read_from_the_kernels_table() -> None:
    text = "Ip: Forwarding\nIp: 1\nTcp: OutSegs RetransSegs MaxConn\nTcp: 1200 7 -1\nUdp: NoPorts\nUdp: 3\n"

    assert parse_tcp(text) == {"OutSegs": 1200, "RetransSegs": 7, "MaxConn": -1}
    assert parse_tcp("") == {}
