"""The parameters of Tempo's API."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path
from pydantic import BeforeValidator, Field

from spanproof.api.http.parameters import (
    EARLIEST_NS,
    LATEST_NS,
    Limit,
    QueryParameters,
    describe_schema,
    read_natural_number,
)
from spanproof.api.tempo.traceql import read_go_duration_ns
from spanproof.api.tempo.traceql_fields import INTRINSICS

_SECOND_NS = 1_000_000_000


def _read_seconds(text: str) -> int:
    return min(read_natural_number(text) * _SECOND_NS, LATEST_NS)


SecondsNs = Annotated[
    int | None, BeforeValidator(_read_seconds), describe_schema(1769860800, type="integer", minimum=0)
]
GoDurationNs = Annotated[
    int | None,
    BeforeValidator(read_go_duration_ns),
    describe_schema("100ms", type="string", pattern=r"^([0-9]{1,5}(\.[0-9]{1,3})?(us|µs|ms|s|m|h))+$"),
]
TempoTraceId = Annotated[str, Path(pattern="^[0-9a-fA-F]{1,32}$", description="Up to 32 hexadecimal digits")]
TagName = Annotated[str, Path(description="The name of the attribute", examples=["service.name"])]
FieldName = Annotated[
    str,
    Path(
        description="The field, by its name in TraceQL",
        examples=["resource.service.name"],
        json_schema_extra={"pattern": rf"^((span|resource)?\.[^\x00]+|{'|'.join(INTRINSICS)})$"},
    ),
]
_TraceqlQuery = Annotated[
    str | None,
    Field(description="A TraceQL query for one set of spans"),
    describe_schema('{ resource.service.name = "payments" && status = error }', type="string", format="traceql"),
]


_TagLimit = Annotated[
    int,
    BeforeValidator(read_natural_number),
    Field(ge=1, le=10_000, description="Maximum number of names or values of each scope"),
    describe_schema(5000, type="integer", minimum=1, maximum=10_000),
]


class TempoRangeParameters(QueryParameters):
    """A time range in seconds, both bounds included."""

    start: Annotated[SecondsNs, Field(description="Start of the range, in seconds since the Unix epoch")] = None
    end: Annotated[SecondsNs, Field(description="End of the range, in seconds since the Unix epoch")] = None

    @property
    def bounds(self) -> tuple[int, int]:
        """The start, inclusive, and the end, exclusive, in nanoseconds."""
        return (
            EARLIEST_NS if self.start is None else self.start,
            LATEST_NS if self.end is None else min(self.end + _SECOND_NS, LATEST_NS),
        )


class TempoSearchParameters(TempoRangeParameters):
    """The requested traces, which start between `start` and `end`."""

    q: _TraceqlQuery = None
    tags: Annotated[
        str | None,
        Field(description="Attributes of a span or its resource in logfmt, each with a part of its value"),
        describe_schema('service.name=payments name="POST /pay"', type="string", format="logfmt"),
    ] = None
    min_duration: Annotated[GoDurationNs, Field(alias="minDuration", description="Minimum duration of the trace")] = (
        None
    )
    max_duration: Annotated[GoDurationNs, Field(alias="maxDuration", description="Maximum duration of the trace")] = (
        None
    )
    limit: Limit = 20
    spss: Annotated[Limit, Field(description="Maximum number of spans of each trace")] = 3


class TempoTagParameters(TempoRangeParameters):
    """The spans whose attribute names or values are requested."""

    q: _TraceqlQuery = None
    limit: _TagLimit = 1000


class TempoScopedTagParameters(TempoTagParameters):
    """The scope whose attribute names are requested."""

    scope: Literal["all", "none", "span", "resource", "intrinsic"] = "all"


class TempoTagValueParameters(TempoTagParameters):
    """The request for the values of the attribute in the path, which Grafana's resource handler repeats as `tag`."""

    tag: Annotated[
        str | None,
        Field(description="The attribute of the path; ignored"),
        describe_schema("resource.service.name", type="string"),
    ] = None
