"""gRPC/HTTP status for a rejected export request, as a `google.rpc.Status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.any_pb2 import Any
from google.rpc.code_pb2 import (
    INVALID_ARGUMENT,
    NOT_FOUND,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    Code,
)
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from spanproof.collector.otlp.decoder import UndecodableRequest
from spanproof.collector.otlp.json_mapping import InvalidJson
from spanproof.collector.storage.ingest_queue import RETRY_AFTER_S, Backpressure
from spanproof.collector.user_errors import StoreError

if TYPE_CHECKING:
    from google.protobuf.message import Message

# A message may quote text as long as a request; the status must fit into a gRPC header, percent-encoded.
_MAX_MESSAGE_BYTES = 500


class RequestTooLarge(Exception):
    """A body, compressed or decompressed, that is larger than the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request is larger than {limit} bytes; send fewer spans at once, or raise the limit")


class Unauthenticated(Exception):
    """A request without a known token."""

    def __init__(self) -> None:
        super().__init__("this server requires a known token: authorization: Bearer TOKEN")


class PermissionDenied(Exception):
    """A request whose token does not allow sending spans."""

    def __init__(self) -> None:
        super().__init__("this token may not send spans: it lacks the role `ingest`")


class PathNotFound(Exception):
    """A request to a path without an endpoint."""


REQUEST_ERRORS: Final = (
    InvalidJson,
    UndecodableRequest,
    RequestTooLarge,
    Backpressure,
    StoreError,
    Unauthenticated,
    PermissionDenied,
    PathNotFound,
)


def make_status(error: Exception) -> Status:
    """Return the status for a rejected request; for a retryable error, it contains the delay."""
    message = truncate_message(str(error))
    match error:
        case Backpressure() | StoreError():
            retry = RetryInfo()
            retry.retry_delay.seconds = RETRY_AFTER_S
            return Status(code=UNAVAILABLE, message=message, details=[_pack(retry)])
        case RequestTooLarge():  # without RetryInfo: a retry would be just as large
            return Status(code=RESOURCE_EXHAUSTED, message=message)
        case Unauthenticated():
            return Status(code=UNAUTHENTICATED, message=message)
        case PermissionDenied():
            return Status(code=PERMISSION_DENIED, message=message)
        case PathNotFound():
            return Status(code=NOT_FOUND, message=message)
    violation = BadRequest.FieldViolation(description=message)
    return Status(code=INVALID_ARGUMENT, message=message, details=[_pack(BadRequest(field_violations=[violation]))])


def format_status_code(status: Status) -> str:
    """Return the name of a status code, as counted in metrics."""
    return str(Code.Name(status.code)).lower()


def truncate_message(message: str) -> str:
    """Return the message, truncated to the maximum length."""
    text = message.encode(errors="replace")
    if len(text) <= _MAX_MESSAGE_BYTES:
        return message
    return f"{text[:_MAX_MESSAGE_BYTES].decode(errors='ignore')} …"


def _pack(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed
