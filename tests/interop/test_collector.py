"""Spans exported by the OpenTelemetry Collector are stored or rejected as OTLP specifies, for every compression."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from spanproof.tests.command import wait_until
from spanproof.tests.interop.conftest import Served
from spanproof.tests.interop.senders import Collector, CollectorStarter, Load, finish_telemetrygen, start_telemetrygen

LOAD = Load(workers=2, traces=500, children=1)
EXPORTERS = ("otlp_grpc", "otlp_http")


def settings_for(exporter: str, served: Served, compression: str) -> dict[str, Any]:
    if exporter == "otlp_http":
        return {"endpoint": f"http://{served.http}", "compression": compression}
    return {"endpoint": served.grpc, "compression": compression, "tls": {"insecure": True}}


def send(collector: Collector, load: Load) -> None:
    """Send to the Collector until it has received everything."""
    with start_telemetrygen(collector.otlp, load) as sending:
        finish_telemetrygen(sending)


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_all_exported_spans_are_stored(
    served: Served, collector: CollectorStarter, exporter: str, compression: str
) -> None:
    exporting = collector(exporter, **settings_for(exporter, served, compression))
    send(exporting, LOAD)
    exporting.wait_for_end(LOAD.spans)
    assert exporting.count("otelcol_exporter_sent_spans") == LOAD.spans
    assert served.read_ids() == exporting.read_ids()


def test_json_is_stored(served: Served, collector: CollectorStarter) -> None:
    exporting = collector("otlp_http", **settings_for("otlp_http", served, "gzip"), encoding="json")
    send(exporting, LOAD)
    exporting.wait_for_end(LOAD.spans)
    assert served.read_ids() == exporting.read_ids()


@pytest.mark.parametrize(
    ("exporter", "reason"), [("otlp_grpc", "rpc error: code = Internal"), ("otlp_http", "HTTP Status Code 415")]
)
def test_zstd_is_rejected_without_retry(
    served: Served, collector: CollectorStarter, exporter: str, reason: str
) -> None:
    """OTLP requires only none and gzip. For any other compression, the sender gets an error and does not retry."""
    exporting = collector(exporter, **settings_for(exporter, served, "zstd"))
    send(exporting, LOAD)
    exporting.wait_for_end(LOAD.spans)
    assert exporting.count("otelcol_exporter_send_failed_spans") == LOAD.spans
    assert reason in exporting.read_log()
    assert "Exporting failed. Dropping data." in exporting.read_log()
    with start_telemetrygen(served.grpc, Load(workers=1, traces=1)) as sending:  # the server still serves others
        finish_telemetrygen(sending)
    assert len(served.read_ids()) == Load(workers=1, traces=1).spans


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_spans_exported_during_restart_are_stored(
    served: Served, collector: CollectorStarter, exporter: str, end: signal.Signals
) -> None:
    load = Load(workers=4, traces=500, children=1, rate=100)  # ten seconds long
    exporting = collector(exporter, **settings_for(exporter, served, "gzip"))
    with start_telemetrygen(exporting.otlp, load) as sending:
        wait_until(lambda: exporting.count("otelcol_exporter_sent_spans") >= load.spans // 8, "some spans are stored")
        served.end(end)
        before = len(exporting.read_ids())
        wait_until(lambda: len(exporting.read_ids()) > before + load.spans // 8, "the Collector queues some spans")
        served.begin()
        finish_telemetrygen(sending)
    exporting.wait_for_end(load.spans)
    assert "Will retry the request after interval" in exporting.read_log()
    assert exporting.count("otelcol_exporter_sent_spans") == load.spans
    received = exporting.read_ids()
    assert len(received) == load.spans
    assert served.read_ids() == received
