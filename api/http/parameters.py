"""Query parameters of URLs: reading, validation and their JSON schemas."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import Request
from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from spanproof.api.http.problems import ProblemError
from spanproof.api.http.schemas import StrictModel
from spanproof.query_lang.syntax.instants import parse_instant
from spanproof.query_lang.syntax.literals import INT64_LIMIT, read_duration_ns

HOUR_NS = 3_600_000_000_000
# Before and after every possible time of a span; both fit into DuckDB's BIGINT.
EARLIEST_NS, LATEST_NS = -INT64_LIMIT, INT64_LIMIT - 1
# only as many digits as always fit into 64 bits
_DURATION_PATTERN = r"^([0-9]{1,18}ns|[0-9]{1,12}(\.[0-9]{1,3})?(us|µs|ms)|[0-9]{1,5}(\.[0-9]{1,9})?[smhd])$"
_REPEATABLE = {"attribute"}


class QueryParameters(StrictModel):
    """The parameters of an operation; unknown ones are rejected."""

    model_config = ConfigDict(frozen=True)


async def reject_repeated(request: Request) -> None:
    """Reject a parameter that is given twice, as one of its values would be ignored."""
    given = [name for name, _ in request.query_params.multi_items() if name not in _REPEATABLE]
    repeated = sorted({name for name in given if given.count(name) > 1})
    if repeated:
        raise ProblemError(422, "invalid request", f"{', '.join(repeated)}: given more than once")


def _read_duration(text: str) -> int:
    duration_ns = read_duration_ns(text)
    if duration_ns < 0:
        raise ValueError(f"`{text}` is negative")
    return duration_ns


def _read_instant(text: str) -> int:
    instant_ns = parse_instant(text)
    if instant_ns is None:
        raise ValueError(f"`{text}` is not an instant such as 2026-01-31T12:00:00Z (a + is written %2B in a URL)")
    return min(max(instant_ns, EARLIEST_NS), LATEST_NS)


def read_natural_number(text: str) -> int:
    """Return a whole number of 0 or above. Raises ValueError."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"`{text}` is not a number")
    return int(text[:18])  # a number of more digits exceeds all limits as well


def _read_flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"`{text}` is neither true nor false")
    return text == "true"


def describe_schema(example: object, **schema: object) -> WithJsonSchema:
    """Return the JSON schema of a parameter."""
    return WithJsonSchema({**schema, "examples": [example]})


# All are optional, but none accepts `null`. So the validator and the schema are outside the union with None.
DurationNs = Annotated[
    int | None, BeforeValidator(_read_duration), describe_schema("250ms", type="string", pattern=_DURATION_PATTERN)
]
InstantNs = Annotated[
    int | None,
    BeforeValidator(_read_instant),
    describe_schema("2026-01-31T12:00:00Z", type="string", format="date-time"),
]
Flag = Annotated[bool | None, BeforeValidator(_read_flag), describe_schema(True, type="boolean")]
Limit = Annotated[
    int,
    BeforeValidator(read_natural_number),
    Field(ge=1, le=1000, description="Maximum number of items"),
    describe_schema(100, type="integer", minimum=1, maximum=1000),
]
Cursor = Annotated[
    str | None,
    Field(description="The `next` of the previous page; the other parameters must be the same"),
    WithJsonSchema({"type": "string"}),
]


_INSTANT_SCHEMA = WithJsonSchema({"type": "string", "format": "date-time"})


class WindowParameters(QueryParameters):
    """A time window; the last hour by default."""

    last: Annotated[DurationNs, Field(description="The window begins this long ago and ends now")] = None
    # without examples, which tools would combine with that of `last`
    since: Annotated[InstantNs, Field(description="Start of the window, inclusive (ISO 8601)"), _INSTANT_SCHEMA] = None
    until: Annotated[InstantNs, Field(description="End of the window, exclusive (ISO 8601)"), _INSTANT_SCHEMA] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.last is not None and (self.since is not None or self.until is not None):
            raise ValueError("last: cannot be combined with since and until")
        if self.since is not None and self.until is not None and self.until < self.since:
            raise ValueError("until: is before since")
        return self

    def compute_bounds(self, now_ns: int) -> tuple[int, int]:
        """Return the start, inclusive, and the end, exclusive."""
        if self.since is None and self.until is None:
            return now_ns - (HOUR_NS if self.last is None else self.last), LATEST_NS
        return (
            EARLIEST_NS if self.since is None else self.since,
            LATEST_NS if self.until is None else self.until,
        )


def omit_open_bound(instant_ns: int) -> int | None:
    """Return a bound of a window for a response: None if the window is open there."""
    return None if instant_ns in (EARLIEST_NS, LATEST_NS) else instant_ns
