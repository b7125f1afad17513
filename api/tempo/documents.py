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
    """An attribute as OTLP/JSON has it."""

    key: str
    value: dict[str, Any]


class TempoSpan(_TempoDocument):
    """A span that matched, with the attributes that were asked about. Numbers of 64 bits are texts."""

    span_id: str
    name: str
    start_time_unix_nano: str
    duration_nanos: str
    attributes: list[TempoAttribute]


class TempoSpanSet(_TempoDocument):
    """The first spans that matched, and how many did."""

    spans: list[TempoSpan]
    matched: int


class TempoTrace(_TempoDocument):
    """A trace that was found."""

    trace_id: str
    root_service_name: str
    root_trace_name: str
    start_time_unix_nano: str
    duration_ms: int = Field(ge=0, lt=2**32)
    span_sets: list[TempoSpanSet]


class TempoSearch(_TempoDocument):
    """What a search found."""

    traces: list[TempoTrace]
    metrics: dict[str, int] = {}


class TempoTags(_TempoDocument):
    """Names of attributes, of spans and resources alike."""

    tag_names: list[str]


class TempoScope(_TempoDocument):
    """The names of attributes of one kind of owner."""

    name: str
    tags: list[str]


class TempoScopes(_TempoDocument):
    """Names of attributes by owner."""

    scopes: list[TempoScope]


class TempoTagValues(_TempoDocument):
    """Values of an attribute."""

    tag_values: list[str]


class TempoTypedValue(_TempoDocument):
    """A value of an attribute, and how it is written in TraceQL."""

    type: str
    value: str


class TempoTypedValues(_TempoDocument):
    """Values of an attribute with their types."""

    tag_values: list[TempoTypedValue]


class TempoBuild(_TempoDocument):
    """Which version answers. It is none of Tempo's, so that no feature of Tempo's is taken to be here."""

    version: str
