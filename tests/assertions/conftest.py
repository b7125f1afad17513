from __future__ import annotations

from collections.abc import Callable, Iterator

import duckdb
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.collector.calls import derive
from spanproof.collector.decode import Decoder
from spanproof.collector.semconv import SPAN_KINDS
from spanproof.collector.store import Store

ZERO_NS = 1_700_000_000_000_000_000
Add = Callable[..., None]


def trace_id(number: int) -> str:
    return f"{number:032x}"


def span_id(number: int) -> str:
    return f"{number:016x}"


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open() as store:
        yield store


@pytest.fixture
def connection(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    with store.cursor() as connection:
        yield connection


@pytest.fixture
def add(store: Store) -> Add:
    """Stores one span and derives what follows from it. Ids are numbers, times milliseconds."""
    decoder = Decoder()

    def add(
        service: str,
        id_: int,
        parent: int = 0,
        kind: str = "server",
        *,
        trace: int = 1,
        ms: tuple[int, int] = (0, 10),
        error: bool = False,
        link: tuple[int, int] | None = None,
        **attributes: str | int,
    ) -> None:
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        start, end = (ZERO_NS + time * 1_000_000 for time in ms)
        span = resource.scope_spans.add().spans.add(
            trace_id=bytes.fromhex(trace_id(trace)),
            span_id=bytes.fromhex(span_id(id_)),
            parent_span_id=bytes.fromhex(span_id(parent)) if parent else b"",
            name=f"{service} {kind}",
            kind=SPAN_KINDS[kind],
            start_time_unix_nano=start,
            end_time_unix_nano=end,
        )
        span.status.code = 2 if error else 0
        for name, value in attributes.items():
            written = span.attributes.add(key=name.replace("__", ".")).value
            if isinstance(value, int):
                written.int_value = value
            else:
                written.string_value = value
        if link is not None:
            span.links.add(trace_id=bytes.fromhex(trace_id(link[0])), span_id=bytes.fromhex(span_id(link[1])))
        store.append(decoder.decode([request.SerializeToString()]))
        derive(store)

    return add
