"""Descriptor of the OTLP trace request for the decoder: the same wire format with flatter types.

Three changes to the published descriptors. None of them changes the wire format:

* `AnyValue.array_value` and `.kvlist_value` are `bytes`: a recursive type has no Arrow schema, and nested
  values are rare, so they are decoded one by one.
* `ResourceSpans.resource` and `ScopeSpans.scope` are `bytes`: every request repeats the same few, so they are
  identified by their bytes and decoded once.
* `string` is `bytes`: otherwise one invalid UTF-8 string would reject a whole request instead of its span.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import ptars
import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

REQUEST = trace_service_pb2.ExportTraceServiceRequest.DESCRIPTOR.full_name
RESOURCE = resource_pb2.Resource.DESCRIPTOR.full_name
SCOPE = common_pb2.InstrumentationScope.DESCRIPTOR.full_name

_BODIES_PER_READ = 2
_RAW_FIELDS = frozenset(
    {
        ("AnyValue", "array_value"),
        ("AnyValue", "kvlist_value"),
        ("ResourceSpans", "resource"),
        ("ScopeSpans", "scope"),
        ("Resource", "entity_refs"),
    }
)


# Minimum size of a valid span: two ids of 16 and 8 bytes, and the tags and lengths of three fields, two bytes each.
_MIN_SPAN_BYTES = 30
# Shorter requests are not checked: they cannot hold many spans.
_UNCHECKED_BYTES = 64 * 2**10


class MalformedMessage(ValueError):
    """Bytes that are not a valid protobuf message of the expected type."""


class TooManySpans(MalformedMessage):
    """A request with more spans than bytes for their ids; decoding all of them would cost too much."""


class FlatMessageReader:
    """Reader of serialized messages of one type into one Arrow record batch."""

    def __init__(self, full_name: str) -> None:
        descriptor = _make_flat_pool().FindMessageTypeByName(full_name)
        self._handler = ptars.HandlerPool([descriptor.file]).get_for_message(descriptor)
        self._message: type[Message] = message_factory.GetMessageClass(descriptor)

    def check(self, body: bytes) -> None:
        """Raise `MalformedMessage` unless `body` is well-formed.

        For some lengths that overflow, ptars panics and prints a backtrace before the panic can be caught. upb rejects
        them without output, at a quarter of the cost of the decoding.
        """
        try:
            self._message.FromString(body)
        except Exception as error:  # DecodeError, whose class depends on the protobuf implementation
            raise MalformedMessage("not a well-formed protobuf message of this type") from error

    def read(self, bodies: Sequence[bytes]) -> pa.RecordBatch:
        """Read checked bodies, one row each."""
        # a few at a time: ptars holds the GIL, and other threads must be able to run
        parts = [bodies[begin : begin + _BODIES_PER_READ] for begin in range(0, len(bodies), _BODIES_PER_READ)] or [
            bodies
        ]
        try:
            return pa.concat_batches([self._handler.list_to_record_batch(list(part)) for part in parts])
        except BaseException as error:
            # ptars' PanicException is not a subclass of Exception; every other such exception must propagate
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                raise MalformedMessage(str(error)) from error
            raise


@cache
def _make_flat_pool(*more_raw: tuple[str, str]) -> descriptor_pool.DescriptorPool:
    """Return a pool with the flat types; the fields in `more_raw` stay raw, too."""
    pool = descriptor_pool.DescriptorPool()
    for module in (common_pb2, resource_pb2, trace_pb2, trace_service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            _flatten(message, _RAW_FIELDS.union(more_raw))
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def check_span_density(body: bytes) -> None:
    """Raise `TooManySpans` if a request has more spans than can have ids, `MalformedMessage` if it is invalid."""
    if len(body) <= _UNCHECKED_BYTES:
        return
    try:
        outline = _make_outline_type().FromString(body)
    except Exception as error:  # DecodeError, whose class depends on the protobuf implementation
        raise MalformedMessage("not a well-formed protobuf message of this type") from error
    spans = sum(len(scope.spans) for resource in outline.resource_spans for scope in resource.scope_spans)
    if spans * _MIN_SPAN_BYTES > len(body):
        raise TooManySpans(f"{spans} spans in {len(body)} bytes: they cannot have ids")


@cache
def _make_outline_type() -> type[Any]:
    """Return the request type in which a span stays raw, so that spans can be counted without reading them."""
    descriptor = _make_flat_pool(("ScopeSpans", "spans")).FindMessageTypeByName(REQUEST)
    return message_factory.GetMessageClass(descriptor)


def _flatten(message: descriptor_pb2.DescriptorProto, raw_fields: frozenset[tuple[str, str]]) -> None:
    for nested in message.nested_type:
        _flatten(nested, raw_fields)
    for field in message.field:
        if field.type == field.TYPE_STRING:
            field.type = field.TYPE_BYTES
        if (message.name, field.name) in raw_fields:
            field.type = field.TYPE_BYTES
            field.ClearField("type_name")
