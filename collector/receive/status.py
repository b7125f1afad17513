"""What a refused sender is told: a `google.rpc.Status`, the same over gRPC and HTTP."""

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
from spanproof.collector.storage.store import StoreError

if TYPE_CHECKING:
    from google.protobuf.message import Message

# What is named in a message may be as long as a request; an answer must fit a header of gRPC, percent-encoded.
_MAX_MESSAGE_BYTES = 500


class RequestTooLarge(Exception):
    """The body, as sent or once unpacked, is larger than the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request is larger than {limit} bytes; send fewer spans at once, or raise the limit")


class Unauthenticated(Exception):
    """The sender has shown no token that is known here."""

    def __init__(self) -> None:
        super().__init__("a token is needed that this server knows: authorization: Bearer TOKEN")


class PermissionDenied(Exception):
    """The sender's token is not for sending spans."""

    def __init__(self) -> None:
        super().__init__("this token is not for sending spans: its role is not `ingest`")


class PathNotFound(Exception):
    """Nothing is served at this path."""


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
    """Say why a request is refused; what may be tried again says when."""
    message = truncate_message(str(error))
    match error:
        case Backpressure() | StoreError():
            retry = RetryInfo()
            retry.retry_delay.seconds = RETRY_AFTER_S
            return Status(code=UNAVAILABLE, message=message, details=[_pack(retry)])
        case RequestTooLarge():  # without RetryInfo: it will be no smaller next time
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
    """Name the code of a status, as it is counted."""
    return str(Code.Name(status.code)).lower()


def truncate_message(message: str) -> str:
    """Cut a message where it gets too long to be an answer."""
    text = message.encode(errors="replace")
    if len(text) <= _MAX_MESSAGE_BYTES:
        return message
    return f"{text[:_MAX_MESSAGE_BYTES].decode(errors='ignore')} …"


def _pack(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed
