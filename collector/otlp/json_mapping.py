"""The OTLP/JSON mapping in both directions, driven by the message descriptors.

It is protobuf's JSON mapping with two differences that `json_format` does not support: trace and span ids are hex, and
keys are lowerCamelCase only. Unknown keys are ignored, as OTLP requires. Enums are read from names, too, which OTLP
forbids to senders, and are written as integers.
"""

from __future__ import annotations

import base64
import binascii
import gc
import json
import math
import re
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

# Protobuf parsers reject more than 100 nested messages.
MAX_DEPTH = 100

_HEX_FIELDS = {"trace_id", "span_id", "parent_span_id"}
_SIGNED_32 = (-(2**31), 2**31 - 1)
_UNSIGNED_32 = (0, 2**32 - 1)
_SIGNED_64 = (-(2**63), 2**63 - 1)
_UNSIGNED_64 = (0, 2**64 - 1)
_INTEGER_RANGES = {
    FieldDescriptor.TYPE_INT32: _SIGNED_32,
    FieldDescriptor.TYPE_SINT32: _SIGNED_32,
    FieldDescriptor.TYPE_ENUM: _SIGNED_32,
    FieldDescriptor.TYPE_UINT32: _UNSIGNED_32,
    FieldDescriptor.TYPE_FIXED32: _UNSIGNED_32,
    FieldDescriptor.TYPE_INT64: _SIGNED_64,
    FieldDescriptor.TYPE_SFIXED64: _SIGNED_64,
    FieldDescriptor.TYPE_UINT64: _UNSIGNED_64,
    FieldDescriptor.TYPE_FIXED64: _UNSIGNED_64,
}
# A number of JSON, which may be in quotes.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_MAX_EXPONENT = 20  # 64 bits have 20 digits
_SPECIAL_DOUBLES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class InvalidJson(ValueError):
    """Input that is not OTLP/JSON; the message starts with the path of the error."""


def json_to_protobuf(body: bytes, request: type[Message] = ExportTraceServiceRequest) -> bytes:
    """Convert an OTLP/JSON request, by default a trace request, to the equivalent protobuf request."""
    message = request()
    parse_message(load_json(body), message)
    return bytes(message.SerializeToString(deterministic=True))


def load_json(body: bytes) -> object:
    """Parse strict JSON: UTF-8, without NaN or Infinity literals."""
    # At almost the maximum recursion depth, a garbage collection would call finalizers with no stack left.
    gc_was_enabled = gc.isenabled()
    gc.disable()
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_reject_constant)
    except RecursionError:
        raise InvalidJson("$: nested too deeply") from None
    except InvalidJson:
        raise
    except ValueError as error:  # the messages of JSONDecodeError and UnicodeDecodeError contain the position
        raise InvalidJson(f"$: not JSON: {error}") from None
    finally:
        if gc_was_enabled:
            gc.enable()


def parse_message(value: object, message: Message, path: str = "", depth: int = 1) -> None:
    """Fill `message` from the JSON object `value` at `path`."""
    if depth > MAX_DEPTH:
        _raise_invalid(path, f"nested more than {MAX_DEPTH} messages deep")
    if not isinstance(value, dict):
        _raise_invalid(path, f"an object is expected, not {_describe_type(value)}")
    fields = fields_by_key(message.DESCRIPTOR)
    for key, content in value.items():
        field = fields.get(key)
        if field is None or content is None:  # null means that the field is absent
            continue
        field_path = f"{path}.{key}" if path else key
        if field.containing_oneof is not None and message.WhichOneof(field.containing_oneof.name) is not None:
            _raise_invalid(field_path, "a value can be of one type only")
        if field.is_repeated:
            _parse_repeated(content, message, field, field_path, depth)
        elif field.message_type is not None:
            child = getattr(message, field.name)
            child.SetInParent()
            parse_message(content, child, field_path, depth + 1)
        else:
            setattr(message, field.name, _parse_scalar(content, field, field_path))


def render_message(message: Message, depth: int = 1) -> dict[str, Any]:
    """Return the OTLP/JSON object of a message. Raise `InvalidJson` if it is nested too deeply."""
    if depth > MAX_DEPTH:
        raise InvalidJson(f"nested more than {MAX_DEPTH} messages deep")
    rendered: dict[str, Any] = {}
    for field, content in message.ListFields():
        if field.is_repeated:
            rendered[field.camelcase_name] = [_render_value(each, field, depth) for each in content]
        else:
            rendered[field.camelcase_name] = _render_value(content, field, depth)
    return rendered


def dump_json(value: object) -> str:
    """Return JSON without spaces; non-ASCII text is not escaped."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@cache
def fields_by_key(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """Return the fields of a message by their JSON keys."""
    return {field.camelcase_name: field for field in descriptor.fields}


def _parse_repeated(value: object, message: Message, field: FieldDescriptor, path: str, depth: int) -> None:
    if not isinstance(value, list):
        _raise_invalid(path, f"an array is expected, not {_describe_type(value)}")
    target = getattr(message, field.name)
    for index, item in enumerate(value):
        item_path = f"{path}[{index}]"
        if field.message_type is not None:
            parse_message(item, target.add(), item_path, depth + 1)
        else:
            target.append(_parse_scalar(item, field, item_path))


def _parse_scalar(value: object, field: FieldDescriptor, path: str) -> object:
    if field.type in _INTEGER_RANGES:
        return _parse_integer(value, field, path)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _parse_double(value, path)
    if field.type == FieldDescriptor.TYPE_BOOL:
        if not isinstance(value, bool):
            _raise_invalid(path, f"true or false is expected, not {_describe_type(value)}")
        return value
    if not isinstance(value, str):
        _raise_invalid(path, f"a string is expected, not {_describe_type(value)}")
    if field.type == FieldDescriptor.TYPE_STRING:
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            _raise_invalid(path, "an unpaired surrogate is not valid text")
        return value
    return _parse_hex(value, path) if field.name in _HEX_FIELDS else _parse_base64(value, path)


def _parse_integer(value: object, field: FieldDescriptor, path: str) -> int:
    if field.enum_type is not None and isinstance(value, str):
        if value not in field.enum_type.values_by_name:
            _raise_invalid(path, f"{value!r} is not one of {', '.join(field.enum_type.values_by_name)}")
        return int(field.enum_type.values_by_name[value].number)
    match value:
        case bool():
            number = None
        case int():
            number = value
        case float() if value.is_integer():
            number = int(value)
        case str() if _NUMBER.fullmatch(value) and abs((decimal := Decimal(value)).adjusted()) <= _MAX_EXPONENT:
            number = int(decimal) if decimal == decimal.to_integral_value() else None
        case _:
            number = None
    if number is None:
        _raise_invalid(path, f"an integer is expected, not {_describe_type(value)}")
    low, high = _INTEGER_RANGES[field.type]
    if not low <= number <= high:
        _raise_invalid(path, f"{number} is out of range; the range is {low} to {high}")
    return number


def _parse_double(value: object, path: str) -> float:
    if isinstance(value, str) and value in _SPECIAL_DOUBLES:
        return _SPECIAL_DOUBLES[value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and _NUMBER.fullmatch(value)):
        _raise_invalid(path, f"a number is expected, not {_describe_type(value)}")
    try:
        number = float(value)  # type: ignore[arg-type]  # checked above
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        _raise_invalid(path, "the number does not fit a double")
    return number


def _parse_hex(value: str, path: str) -> bytes:
    try:
        return binascii.unhexlify(value)
    except ValueError:
        return _raise_invalid(path, "hex digits are expected, two for each byte")


def _parse_base64(value: str, path: str) -> bytes:
    padded = value.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    try:
        return base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
    except ValueError:
        return _raise_invalid(path, "base64 is expected")


def _render_value(value: Any, field: FieldDescriptor, depth: int) -> object:
    if field.message_type is not None:
        return render_message(value, depth + 1)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return value.hex() if field.name in _HEX_FIELDS else base64.b64encode(value).decode()
    if _INTEGER_RANGES.get(field.type) in (_SIGNED_64, _UNSIGNED_64):
        return str(value)  # a JSON number cannot hold 64 bits
    if field.type == FieldDescriptor.TYPE_DOUBLE and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _reject_constant(literal: str) -> NoReturn:
    raise InvalidJson(f"$: {literal} is not JSON")


def _raise_invalid(path: str, problem: str) -> NoReturn:
    raise InvalidJson(f"{path or '$'}: {problem}")


def _describe_type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"
