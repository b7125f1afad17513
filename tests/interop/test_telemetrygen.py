"""Spans from telemetrygen, on the OpenTelemetry SDK for Go, are stored, over both transports and with compression."""

from __future__ import annotations

import signal

import pytest

from spanproof.tests.command import wait_until
from spanproof.tests.interop.conftest import Served
from spanproof.tests.interop.senders import Load, finish_telemetrygen, start_telemetrygen

TRANSPORTS = ("grpc", "http")
# the SDK supports no other compression
COMPRESSIONS = ("none", "gzip")


@pytest.mark.parametrize("batch", [True, False], ids=["batches", "single-spans"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_all_sent_spans_are_stored(served: Served, transport: str, compression: str, batch: bool) -> None:
    load = Load() if batch else Load(traces=20)
    address, options = (served.http, ["--otlp-http"]) if transport == "http" else (served.grpc, [])
    with start_telemetrygen(address, load, *options, f"--batch={batch}", compression=compression) as sending:
        finish_telemetrygen(sending)
    assert len(served.read_ids()) == load.spans


def test_spans_sent_over_grpc_during_restart_are_stored(served: Served) -> None:
    load = Load(workers=2, traces=150, rate=100)  # six seconds long
    with start_telemetrygen(served.grpc, load, "--timeout", "60s") as sending:
        wait_until(lambda: served.count_accepted() > 0, "some spans are stored")
        served.end(signal.SIGTERM)
        assert sending.poll() is None
        served.begin()
        finish_telemetrygen(sending, 90)
    assert served.count_accepted() > 0  # also after the restart
    assert len(served.read_ids()) == load.spans
