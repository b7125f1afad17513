"""What the OpenTelemetry Collector exports is stored, or refused as OTLP says: packed or not, and through a restart."""

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
    """Send to the Collector until it has taken everything."""
    with start_telemetrygen(collector.otlp, load) as sending:
        finish_telemetrygen(sending)


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_all_that_is_exported_is_stored(
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
def test_zstd_is_refused_for_good(served: Served, collector: CollectorStarter, exporter: str, reason: str) -> None:
    """OTLP asks for none and gzip. A sender of anything else is told so, and does not try again."""
    exporting = collector(exporter, **settings_for(exporter, served, "zstd"))
    send(exporting, LOAD)
    exporting.wait_for_end(LOAD.spans)
    assert exporting.count("otelcol_exporter_send_failed_spans") == LOAD.spans
    assert reason in exporting.read_log()
    assert "Exporting failed. Dropping data." in exporting.read_log()
    with start_telemetrygen(served.grpc, Load(workers=1, traces=1)) as sending:  # it goes on serving others
        finish_telemetrygen(sending)
    assert len(served.read_ids()) == Load(workers=1, traces=1).spans


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_what_is_exported_through_a_restart_is_stored(
    served: Served, collector: CollectorStarter, exporter: str, end: signal.Signals
) -> None:
    load = Load(workers=4, traces=500, children=1, rate=100)  # ten seconds long
    exporting = collector(exporter, **settings_for(exporter, served, "gzip"))
    with start_telemetrygen(exporting.otlp, load) as sending:
        wait_until(lambda: exporting.count("otelcol_exporter_sent_spans") >= load.spans // 8, "some are stored")
        served.end(end)
        before = len(exporting.read_ids())
        wait_until(lambda: len(exporting.read_ids()) > before + load.spans // 8, "the Collector holds some")
        served.begin()
        finish_telemetrygen(sending)
    exporting.wait_for_end(load.spans)
    assert "Will retry the request after interval" in exporting.read_log()
    assert exporting.count("otelcol_exporter_sent_spans") == load.spans
    taken = exporting.read_ids()
    assert len(taken) == load.spans
    assert served.read_ids() == taken
