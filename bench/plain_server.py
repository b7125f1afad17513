"""A plain server for comparison: protobuf objects, and rows inserted one by one into DuckDB."""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from spanproof.bench import served

_ROW = "INSERT INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class _Service(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def Export(self, request: Any, _context: Any) -> Any:  # noqa: N802 (gRPC's name)
        rows = [
            (
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                next(
                    each.value.string_value for each in resource_spans.resource.attributes if each.key == "service.name"
                ),
                span.name,
                span.kind,
                span.start_time_unix_nano,
                span.end_time_unix_nano,
                span.status.code,
                json.dumps({each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}),
            )
            for resource_spans in request.resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]
        with self._lock:
            self._connection.execute("BEGIN")
            self._connection.executemany(_ROW, rows)
            self._connection.execute("COMMIT")
        return trace_service_pb2.ExportTraceServiceResponse()


def start(folder: Path) -> served.Served:
    """Start the server as a process of its own."""
    process, line = served.start([sys.executable, "-m", "spanproof.bench.plain_server", str(folder / "plain.duckdb")])
    return served.Served(process, {"grpc": line.strip()}, folder)


def main() -> None:
    """Serve until a signal ends the process."""
    connection = duckdb.connect(sys.argv[1])
    connection.execute(
        "CREATE TABLE spans (trace_id VARCHAR, span_id VARCHAR, parent_id VARCHAR, service VARCHAR, name VARCHAR,"
        " kind INTEGER, start_ns BIGINT, end_ns BIGINT, status INTEGER, attributes JSON)"
    )
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
    add_to_server: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server  # untyped
    add_to_server(_Service(connection), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
