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

from spanproof.collector.decode import Undecodable
from spanproof.collector.ingest import RETRY_AFTER_S, Backpressure
from spanproof.collector.otlp_json import InvalidJson
from spanproof.collector.store import StoreError

if TYPE_CHECKING:
    from google.protobuf.message import Message

# What is named in a message may be as long as a request; an answer must fit a header of gRPC, percent-encoded.
_LONGEST_MESSAGE_BYTES = 500


class TooLarge(Exception):
    """The body, as sent or once unpacked, is larger than the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request is larger than {limit} bytes; send fewer spans at once, or raise the limit")


class Unauthenticated(Exception):
    """The sender has shown no token that is known here."""

    def __init__(self) -> None:
        super().__init__("a token is needed that this server knows: authorization: Bearer TOKEN")


class Forbidden(Exception):
    """The sender's token is not for sending spans."""

    def __init__(self) -> None:
        super().__init__("this token is not for sending spans: its role is not `ingest`")


class NotFound(Exception):
    """Nothing is served at this path."""


REFUSALS: Final = (InvalidJson, Undecodable, TooLarge, Backpressure, StoreError, Unauthenticated, Forbidden, NotFound)


def describe(refusal: Exception) -> Status:
    """Say why a request is refused; what may be tried again says when."""
    message = shorten(str(refusal))
    match refusal:
        case Backpressure() | StoreError():
            retry = RetryInfo()
            retry.retry_delay.seconds = RETRY_AFTER_S
            return Status(code=UNAVAILABLE, message=message, details=[_pack(retry)])
        case TooLarge():  # without RetryInfo: it will be no smaller next time
            return Status(code=RESOURCE_EXHAUSTED, message=message)
        case Unauthenticated():
            return Status(code=UNAUTHENTICATED, message=message)
        case Forbidden():
            return Status(code=PERMISSION_DENIED, message=message)
        case NotFound():
            return Status(code=NOT_FOUND, message=message)
    violation = BadRequest.FieldViolation(description=message)
    return Status(code=INVALID_ARGUMENT, message=message, details=[_pack(BadRequest(field_violations=[violation]))])


def name_code(status: Status) -> str:
    """Name the code of a status, as it is counted."""
    return str(Code.Name(status.code)).lower()


def shorten(message: str) -> str:
    """Cut a message where it gets too long to be an answer."""
    text = message.encode(errors="replace")
    if len(text) <= _LONGEST_MESSAGE_BYTES:
        return message
    return f"{text[:_LONGEST_MESSAGE_BYTES].decode(errors='ignore')} …"


def _pack(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed
