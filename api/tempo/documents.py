"""The JSON documents of Tempo's API, as Grafana reads them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


def _make_alias(field: str) -> str:
    return to_camel(field).replace("Id", "ID")


class _TempoDocument(BaseModel):
    model_config = ConfigDict(alias_generator=_make_alias, validate_by_name=True, serialize_by_alias=True)


class TempoAttribute(_TempoDocument):
    """An attribute in the form of OTLP/JSON."""

    key: str
    value: dict[str, Any]


class TempoSpan(_TempoDocument):
    """A matching span, with the attributes that the query names. Numbers of 64 bits are texts."""

    span_id: str
    name: str
    start_time_unix_nano: str
    duration_nanos: str
    attributes: list[TempoAttribute]


class TempoSpanSet(_TempoDocument):
    """The first matching spans, and the number of all matching ones."""

    spans: list[TempoSpan]
    matched: int


class TempoTrace(_TempoDocument):
    """A trace in the result of a search."""

    trace_id: str
    root_service_name: str
    root_trace_name: str
    start_time_unix_nano: str
    duration_ms: int = Field(ge=0, lt=2**32)
    span_sets: list[TempoSpanSet]


class TempoSearch(_TempoDocument):
    """The result of a search."""

    traces: list[TempoTrace]
    metrics: dict[str, int] = {}


class TempoTags(_TempoDocument):
    """The names of attributes of spans and resources."""

    tag_names: list[str]


class TempoScope(_TempoDocument):
    """The names of attributes of one scope."""

    name: str
    tags: list[str]


class TempoScopes(_TempoDocument):
    """The names of attributes by scope."""

    scopes: list[TempoScope]


class TempoTagValues(_TempoDocument):
    """The values of an attribute."""

    tag_values: list[str]


class TempoTypedValue(_TempoDocument):
    """A value of an attribute, and its type in TraceQL."""

    type: str
    value: str


class TempoTypedValues(_TempoDocument):
    """The values of an attribute with their types."""

    tag_values: list[TempoTypedValue]


class TempoBuild(_TempoDocument):
    """The version of spanproof. It is not a version of Tempo, so that Grafana does not assume a feature of Tempo."""

    version: str
