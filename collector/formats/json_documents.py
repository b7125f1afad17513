"""Checks and conversions of JSON documents of a known structure; an error has the path of the content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Final, NoReturn

from spanproof.collector.user_errors import UserError

Json = Any  # as the standard library parses it
STATUS_CODES: Final = {"UNSET": 0, "OK": 1, "ERROR": 2}
# A key that authors of JSON use for comments.
COMMENT_KEY: Final = "_comment"
_TYPE_NAMES: Final = {dict: "an object", list: "an array", str: "a text", int: "a whole number", bool: "true or false"}


class UnreadableFile(UserError):
    """A file without traces, or with content that would be lost; the message says where."""


def raise_unreadable(path: str, problem: str) -> NoReturn:
    """Raise UnreadableFile for the content at `path` of the document."""
    raise UnreadableFile(f"{path or '$'}: {problem}")


def expect_type(value: Json, kinds: type | tuple[type, ...], path: str) -> Json:
    """Return `value` if it has one of these types. A boolean does not count as a number."""
    wanted = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise_unreadable(path, f"{' or '.join(_TYPE_NAMES.get(kind, 'a number') for kind in wanted)} is expected")
    return value


def expect_array(value: Json, path: str) -> Sequence[Json]:
    """Return `value` if it is an array."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise_unreadable(path, "an array is expected")
    return value


def expect_list(value: Json, path: str) -> Sequence[Json]:
    """Return `value` if it is an array; an empty array for null."""
    return [] if value is None else expect_array(value, path)


def join_path(path: str, key: str) -> str:
    """Return the path of a key of the object at `path`."""
    return f"{path}.{key}" if path else key


def parse_hex_id(value: Json, digits: int, path: str, *, optional: bool = False) -> str:
    """Return an id of at most `digits` hex digits, padded with zeros; only an optional id may be all zeros."""
    text = expect_type(value, str, path)
    if not 0 < len(text) <= digits or any(digit not in "0123456789abcdefABCDEF" for digit in text):
        raise_unreadable(path, f"{text!r} is not an id of at most {digits} hexadecimal digits")
    if not optional and not text.strip("0"):
        raise_unreadable(path, "the id is all zeros")
    return str(text).lower().rjust(digits, "0")


def parse_microseconds(value: Json, path: str) -> int:
    """Return a number of microseconds, whole in JSON, or exact if it was converted, as nanoseconds."""
    number = value if isinstance(value, Decimal) else expect_type(value, int, path)
    if not 0 <= number < 2**62 // 1000:
        raise_unreadable(path, f"{number} microseconds cannot be stored as a time")
    return int(number * 1000)


def make_attribute(key: str, value: Json) -> dict[str, Json]:
    """Return an OTLP/JSON attribute."""
    if isinstance(value, list):
        return {"key": key, "value": {"arrayValue": {"values": [make_attribute("", each)["value"] for each in value]}}}
    kind = {bool: "boolValue", int: "intValue", float: "doubleValue"}.get(type(value), "stringValue")
    return {"key": key, "value": {kind: value}}


def merge_duplicate_keys(attributes: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """Merge the different values of a duplicate key into an array, as OTLP allows each key once."""
    values: dict[str, list[Json]] = {}
    for each in attributes:
        known_values = values.setdefault(each["key"], [])
        if each["value"] not in known_values:
            known_values.append(each["value"])
    return [
        {"key": key, "value": distinct[0] if len(distinct) == 1 else {"arrayValue": {"values": distinct}}}
        for key, distinct in values.items()
    ]


def pop_text(attributes: list[dict[str, Json]], key: str, known: Iterable[str] | None = None) -> str | None:
    """Remove an attribute and return its text if it is in `known`; return None if there is none."""
    for each in attributes:
        text = each["value"].get("stringValue")
        if each["key"] == key and text is not None and (known is None or text in known):
            attributes.remove(each)
            return str(text)
    return None


def pop_scope(attributes: list[dict[str, Json]]) -> dict[str, str]:
    """Remove the attributes that OpenTelemetry writes for a scope into formats without scopes; return the scope."""
    scope = {}
    for name in ("name", "version"):
        for prefix in ("otel.scope", "otel.library"):
            text = None if name in scope else pop_text(attributes, f"{prefix}.{name}")
            if text is not None:
                scope[name] = text
    return scope
