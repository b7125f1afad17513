"""``/metrics``: the collector's counters and the size of its store, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import duckdb
from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from spanproof import __version__
from spanproof.collector.storage.interface import SpanStore
from spanproof.collector.storage.metrics import Metrics
from spanproof.collector.user_errors import StoreError


def add_metrics(app: FastAPI, store: SpanStore) -> None:
    """Add ``/metrics`` to the app."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # would add a second series for each counter, with its creation time
    registry = CollectorRegistry()
    registry.register(_StoreCollector(store))
    if isinstance(store.telemetry, Metrics):
        registry.register(store.telemetry.registry)
    ProcessCollector(registry=registry)

    @app.get("/metrics", response_class=Response)
    def read_metrics(request: Request) -> Response:
        """Return the metrics in a format of Prometheus."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)


class _StoreCollector(Collector):
    """Metrics that are read at each scrape."""

    def __init__(self, store: SpanStore) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Yield the build information, the store's size and its number of spans."""
        yield InfoMetricFamily("spanproof_build", "The version of spanproof.", {"version": __version__})
        yield GaugeMetricFamily(
            "spanproof_store_size_bytes", "Size of the store's file and its log.", self._store.read_size_bytes()
        )
        try:
            with closing(self._store.cursor()) as cursor:
                ((spans,),) = cursor.execute("SELECT count(*) FROM spans").fetchall()
        except (StoreError, duckdb.Error):
            return  # the other metrics matter most when the store is unusable
        yield GaugeMetricFamily("spanproof_spans_stored", "Spans in the store, including duplicates.", spans)
