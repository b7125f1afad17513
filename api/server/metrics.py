"""``/metrics``: what the collector counts, and what its store holds, for Prometheus."""

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
from spanproof.collector.storage.store import Store
from spanproof.collector.user_errors import StoreError


def add_metrics(app: FastAPI, store: Store) -> None:
    """Let the app answer at /metrics."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # they would be a second series for each counter, of when it began
    registry = CollectorRegistry()
    registry.register(_StoreCollector(store))
    registry.register(store.telemetry.registry)
    ProcessCollector(registry=registry)

    @app.get("/metrics", response_class=Response)
    def read_metrics(request: Request) -> Response:
        """Tell Prometheus how the collector fares."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)


class _StoreCollector(Collector):
    """What is looked up when somebody asks."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Look it up."""
        yield InfoMetricFamily("spanproof_build", "What this is.", {"version": __version__})
        yield GaugeMetricFamily("spanproof_store_size_bytes", "The file and its log.", self._store.read_size_bytes())
        try:
            with closing(self._store.cursor()) as cursor:
                ((spans,),) = cursor.execute("SELECT count(*) FROM spans").fetchall()
        except (StoreError, duckdb.Error):
            return  # a store that is out of order is when the other numbers are wanted
        yield GaugeMetricFamily("spanproof_spans_stored", "Spans in the store, those sent twice included.", spans)
