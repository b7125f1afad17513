"""What is asked for in the query of a URL: how it is read, and refused where it is not understood."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from spanproof.api.http.problems import ProblemError
from spanproof.query_lang.syntax.instants import parse_instant
from spanproof.query_lang.syntax.literals import INT64_LIMIT, read_duration_ns

HOUR_NS = 3_600_000_000_000
# Before and after whatever a span can say; within what DuckDB holds.
EARLIEST_NS, LATEST_NS = -INT64_LIMIT, INT64_LIMIT - 1
# as many digits as never exceed 64 bits
_DURATION_PATTERN = r"^([0-9]{1,18}ns|[0-9]{1,12}(\.[0-9]{1,3})?(us|µs|ms)|[0-9]{1,5}(\.[0-9]{1,9})?[smhd])$"
_REPEATABLE = {"attribute"}


class QueryParameters(BaseModel):
    """What an operation is asked, by its parameters; others are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


async def reject_repeated(request: Request) -> None:
    """Refuse a parameter that is given twice, of which one would be ignored."""
    given = [name for name, _ in request.query_params.multi_items() if name not in _REPEATABLE]
    repeated = sorted({name for name in given if given.count(name) > 1})
    if repeated:
        raise ProblemError(422, "invalid request", f"{', '.join(repeated)}: given more than once")


def _read_duration(text: str) -> int:
    duration_ns = read_duration_ns(text)
    if duration_ns < 0:
        raise ValueError(f"`{text}` is less than nothing")
    return duration_ns


def _read_instant(text: str) -> int:
    instant_ns = parse_instant(text)
    if instant_ns is None:
        raise ValueError(f"`{text}` is no point in time such as 2026-01-31T12:00:00Z (a + is written %2B in a URL)")
    return min(max(instant_ns, EARLIEST_NS), LATEST_NS)


def read_natural_number(text: str) -> int:
    """Read a whole number, not below nothing. Raises ValueError."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"`{text}` is no number")
    return int(text[:18])  # more digits would be too much, too


def _read_flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"`{text}` is neither true nor false")
    return text == "true"


def describe_schema(example: object, **schema: object) -> WithJsonSchema:
    """Say what a parameter looks like from outside."""
    return WithJsonSchema({**schema, "examples": [example]})


# All may be left out, but none has a value `null`; so what is outside the union reads, and says what it looks like.
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
    Field(ge=1, le=1000, description="How many at most"),
    describe_schema(100, type="integer", minimum=1, maximum=1000),
]
Cursor = Annotated[
    str | None,
    Field(description="What `next` said, for the page that follows; with the same other parameters"),
    WithJsonSchema({"type": "string"}),
]


_INSTANT_SCHEMA = WithJsonSchema({"type": "string", "format": "date-time"})


class WindowParameters(QueryParameters):
    """A stretch of time; the last hour unless told."""

    last: Annotated[DurationNs, Field(description="From so long ago until now")] = None
    # without examples, which would be taken together with that of `last`
    since: Annotated[InstantNs, Field(description="From then on, as ISO 8601 writes it"), _INSTANT_SCHEMA] = None
    until: Annotated[InstantNs, Field(description="Before then, as ISO 8601 writes it"), _INSTANT_SCHEMA] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.last is not None and (self.since is not None or self.until is not None):
            raise ValueError("last: says when already; leave since and until away")
        if self.since is not None and self.until is not None and self.until < self.since:
            raise ValueError("until: is before since")
        return self

    def compute_bounds(self, now_ns: int) -> tuple[int, int]:
        """Return when it begins, and before when it ends."""
        if self.since is None and self.until is None:
            return now_ns - (HOUR_NS if self.last is None else self.last), LATEST_NS
        return (
            EARLIEST_NS if self.since is None else self.since,
            LATEST_NS if self.until is None else self.until,
        )


def omit_open_bound(instant_ns: int) -> int | None:
    """Return a bound of a window for an answer: None where there is none."""
    return None if instant_ns in (EARLIEST_NS, LATEST_NS) else instant_ns
