"""The OTLP signals: what is asked and answered for traces, logs and metrics, whichever transport carries it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

from spanproof.collector.decode import Undecodable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from spanproof.collector.ingest import Ingest

NOT_STORED = "spanproof stores traces only"


@dataclass(frozen=True, slots=True)
class Signal:
    """One service of OTLP. `export` takes a serialized request and gives the response, once it is true."""

    name: str
    request: type[Message]
    export: Callable[[bytes], Awaitable[Message]]

    @property
    def service(self) -> str:
        """The full name of the gRPC service."""
        return f"opentelemetry.proto.collector.{self.name}.v1.{self.name.capitalize()}Service"


def make_signals(ingest: Ingest) -> tuple[Signal, ...]:
    """Make the three signals; only traces go to `ingest`, the others are answered as not stored."""

    async def export_trace(body: bytes) -> Message:
        accepted = await asyncio.wrap_future(ingest.submit(body))
        response = traces.ExportTraceServiceResponse()
        if accepted.rejected_spans:
            response.partial_success.rejected_spans = accepted.rejected_spans
            response.partial_success.error_message = accepted.error_message
        return response

    return (
        Signal("trace", traces.ExportTraceServiceRequest, export_trace),
        Signal("logs", logs.ExportLogsServiceRequest, _export_logs),
        Signal("metrics", metrics.ExportMetricsServiceRequest, _export_metrics),
    )


async def _export_logs(body: bytes) -> Message:
    request, response = logs.ExportLogsServiceRequest(), logs.ExportLogsServiceResponse()
    _parse(request, body)
    records = sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)
    if records:
        response.partial_success.rejected_log_records = records
        response.partial_success.error_message = NOT_STORED
    return response


async def _export_metrics(body: bytes) -> Message:
    request, response = metrics.ExportMetricsServiceRequest(), metrics.ExportMetricsServiceResponse()
    _parse(request, body)
    points = 0
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                points += len(getattr(metric, kind).data_points) if kind else 0
    if points:
        response.partial_success.rejected_data_points = points
        response.partial_success.error_message = NOT_STORED
    return response


def _parse(request: Message, body: bytes) -> None:
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise Undecodable("the request cannot be decoded: not a well-formed protobuf message of this type") from None
