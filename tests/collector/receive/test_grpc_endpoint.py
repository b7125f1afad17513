from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.receive.receiver_options import ReceiverOptions
from spanproof.collector.storage.store import Store
from spanproof.tests.collector.exported import export_request

Exporter = Callable[..., bytes]
TRACE_ID = "01" * 16


def make_export(channel: grpc.Channel, signal: str) -> Exporter:
    return channel.unary_unary(f"/opentelemetry.proto.collector.{signal}.v1.{signal.capitalize()}Service/Export")


@pytest.fixture
def channel(receiver: Receiver) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(receiver.grpc_address) as channel:
        yield channel


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_export(channel: grpc.Channel, store: Store, make_request, compression) -> None:
    request = make_request(3)
    assert make_export(channel, "trace")(request.SerializeToString(), compression=compression) == b""
    assert export_request(store, TRACE_ID).resource_spans == request.resource_spans


def test_partial_success(channel: grpc.Channel, make_request) -> None:
    request = make_request(2)
    request.resource_spans[0].scope_spans[0].spans[1].span_id = b""
    answer = ExportTraceServiceResponse.FromString(make_export(channel, "trace")(request.SerializeToString()))
    assert answer.partial_success.rejected_spans == 1
    assert "spans[1].spanId is 0 bytes long, not 8" in answer.partial_success.error_message


@pytest.mark.parametrize("signal", ["trace", "logs", "metrics"])
def test_undecodable_request_is_rejected(channel: grpc.Channel, signal: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        make_export(channel, signal)(b"\xff")
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details().endswith("cannot be decoded: not a well-formed protobuf message of this type")
    status = Status.FromString(dict(error.value.trailing_metadata())["grpc-status-details-bin"])
    bad_request = BadRequest()
    assert status.details[0].Unpack(bad_request)
    assert bad_request.field_violations[0].description == status.message == error.value.details()


def test_logs_and_metrics_get_partial_success(channel: grpc.Channel) -> None:
    logs, metrics = ExportLogsServiceRequest(), ExportMetricsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add()
    scope_metrics = metrics.resource_metrics.add().scope_metrics.add()
    scope_metrics.metrics.add().gauge.data_points.add()
    scope_metrics.metrics.add().histogram.data_points.add()
    scope_metrics.metrics.add()
    logs_response = ExportLogsServiceResponse.FromString(make_export(channel, "logs")(logs.SerializeToString()))
    metrics_response = ExportMetricsServiceResponse.FromString(
        make_export(channel, "metrics")(metrics.SerializeToString())
    )
    assert logs_response.partial_success.rejected_log_records == 1
    assert metrics_response.partial_success.rejected_data_points == 2
    assert logs_response.partial_success.error_message == "spanproof stores traces only"
    assert metrics_response.partial_success.error_message == "spanproof stores traces only"
    assert make_export(channel, "logs")(b"") == make_export(channel, "metrics")(b"") == b""


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_too_large_request_is_rejected(store: Store, make_request, compression) -> None:
    with (
        Receiver(store, "127.0.0.1:0", "127.0.0.1:0", ReceiverOptions(max_message_bytes=10_000)) as receiver,
        grpc.insecure_channel(receiver.grpc_address) as channel,
    ):
        export = make_export(channel, "trace")
        with pytest.raises(grpc.RpcError) as error:
            export(make_request(1_000).SerializeToString(), compression=compression)
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert list(error.value.trailing_metadata()) == []  # with RetryInfo, clients would retry
        assert export(make_request(2).SerializeToString()) == b""


def test_full_queue_sends_retry_delay(gated_store, make_request) -> None:
    body = make_request().SerializeToString()
    with (
        Receiver(gated_store, "127.0.0.1:0", "127.0.0.1:0", ReceiverOptions(max_bytes_in_flight=1)) as receiver,
        grpc.insecure_channel(receiver.grpc_address) as channel,
    ):
        export = make_export(channel, "trace")
        first = export.future(body)
        assert gated_store.arrived.wait(30)
        with pytest.raises(grpc.RpcError) as error:
            export(body)
        gated_store.gate.set()
        assert first.result(30) == b""
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    metadata = dict(error.value.trailing_metadata())
    retry = RetryInfo.FromString(metadata["google.rpc.retryinfo-bin"])
    status = Status.FromString(metadata["grpc-status-details-bin"])
    packed = RetryInfo()
    assert status.details[0].Unpack(packed)
    assert packed == retry
    assert (status.code, status.message, retry.retry_delay.seconds) == (14, error.value.details(), 1)
