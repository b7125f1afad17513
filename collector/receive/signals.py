"""OTLP signals: requests and responses for traces, logs, metrics and profiles, independent of the transport."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from msgspec import Struct
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as profiles
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

from spanproof.collector.otlp.decoder import UndecodableRequest
from spanproof.collector.receive.status import truncate_message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from spanproof.collector.storage.ingest_queue import IngestQueue

NOT_STORED_MESSAGE = "spanproof stores traces only"


class Signal(Struct, frozen=True):
    """One OTLP service. `export` takes a serialized request and returns the response once the spans are committed."""

    name: str
    service: str  # the full name of the gRPC service
    path: str
    request: type[Message]
    export: Callable[[bytes], Awaitable[Message]]


def format_outcome(response: Message) -> str:
    """Return the outcome of a request that was not rejected, as counted in metrics."""
    return "partial" if response.HasField("partial_success") else "ok"


def make_signals(ingest_queue: IngestQueue) -> tuple[Signal, ...]:
    """Return all signals; only traces go to `ingest_queue`, the others are answered as not stored."""

    async def export_traces(body: bytes) -> Message:
        result = await asyncio.wrap_future(ingest_queue.submit(body))
        response = traces.ExportTraceServiceResponse()
        if result.rejected_spans:
            response.partial_success.rejected_spans = result.rejected_spans
            response.partial_success.error_message = truncate_message(result.error_message)
        return response

    async def export_logs(body: bytes) -> Message:
        return await asyncio.to_thread(_reject_logs, body)

    async def export_metrics(body: bytes) -> Message:
        return await asyncio.to_thread(_reject_metrics, body)

    async def export_profiles(body: bytes) -> Message:
        return await asyncio.to_thread(_reject_profiles, body)

    package = "opentelemetry.proto.collector"
    return (
        Signal(
            "traces",
            f"{package}.trace.v1.TraceService",
            "/v1/traces",
            traces.ExportTraceServiceRequest,
            export_traces,
        ),
        Signal(
            "logs",
            f"{package}.logs.v1.LogsService",
            "/v1/logs",
            logs.ExportLogsServiceRequest,
            export_logs,
        ),
        Signal(
            "metrics",
            f"{package}.metrics.v1.MetricsService",
            "/v1/metrics",
            metrics.ExportMetricsServiceRequest,
            export_metrics,
        ),
        Signal(
            "profiles",
            f"{package}.profiles.v1development.ProfilesService",
            "/v1development/profiles",
            profiles.ExportProfilesServiceRequest,
            export_profiles,
        ),
    )


def _reject_logs(body: bytes) -> Message:
    request, response = logs.ExportLogsServiceRequest(), logs.ExportLogsServiceResponse()
    _parse(request, body)
    records = sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)
    if records:
        response.partial_success.rejected_log_records = records
        response.partial_success.error_message = NOT_STORED_MESSAGE
    return response


def _reject_metrics(body: bytes) -> Message:
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
        response.partial_success.error_message = NOT_STORED_MESSAGE
    return response


def _reject_profiles(body: bytes) -> Message:
    request, response = profiles.ExportProfilesServiceRequest(), profiles.ExportProfilesServiceResponse()
    _parse(request, body)
    count = sum(len(scope.profiles) for resource in request.resource_profiles for scope in resource.scope_profiles)
    if count:
        response.partial_success.rejected_profiles = count
        response.partial_success.error_message = NOT_STORED_MESSAGE
    return response


def _parse(request: Message, body: bytes) -> None:
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise UndecodableRequest(
            "the request cannot be decoded: not a well-formed protobuf message of this type"
        ) from None
