"""The JSON documents of the HTTP API."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from spanproof.assertions.explain.trace_evidence import SpanView, TraceView
from spanproof.query_lang.syntax.diagnostics import Diagnostic, locate_offset


def _make_example(**document: JsonValue) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [document]})


class StrictModel(BaseModel):
    """The parameters of a request; an unknown one is rejected with the names of the known ones."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _reject_unknown(cls, data: object) -> object:
        names = [field.alias or name for name, field in cls.model_fields.items()]
        unknown = [name for name in data if name not in names] if isinstance(data, dict) else []
        if unknown:
            known = f"there are {', '.join(f'`{name}`' for name in names)}" if names else "there are none"
            raise ValueError(f"`{unknown[0]}` is not a parameter; {known}")
        return data


class SpanDocument(BaseModel):
    """A span in the tree. ``last_at`` states for each level above whether the branch is the last there.

    ``duration_ns`` is null for a span that has not ended.
    """

    span_id: str
    service: str
    name: str
    kind: str
    start_ns: int
    duration_ns: int | None
    error: bool
    orphan: bool
    last_at: list[bool]


class TraceDocument(BaseModel):
    """A trace, its spans in tree order. Times are integer nanoseconds since the Unix epoch."""

    model_config = _make_example(
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736", start_ns=1769860800000000000, duration_ns=391000000,
        spans=[
            {
                "span_id": "00f067aa0ba902b7", "service": "gateway", "name": "POST /checkout", "kind": "server",
                "start_ns": 1769860800000000000, "duration_ns": 391000000, "error": False, "orphan": False,
                "last_at": [],
            }
        ],
    )  # fmt: skip
    trace_id: str
    start_ns: int
    duration_ns: int
    spans: list[SpanDocument]

    @classmethod
    def from_view(cls, view: TraceView) -> Self:
        """Return the document of a trace."""
        spans = [
            SpanDocument(
                span_id=span.span_id, service=span.service, name=span.name, kind=span.kind, start_ns=span.start_ns,
                duration_ns=span.duration_ns, error=span.error, orphan=span.orphan, last_at=list(span.last_at),
            )
            for span in view.spans
        ]  # fmt: skip
        return cls(trace_id=view.trace_id, start_ns=view.start_ns, duration_ns=view.duration_ns, spans=spans)

    def to_view(self) -> TraceView:
        """Return the trace of the document."""
        spans = tuple(
            SpanView(
                each.span_id, each.service, each.name, each.kind, each.start_ns, each.duration_ns, each.error,
                False, each.orphan, tuple(each.last_at),
            )
            for each in self.spans
        )  # fmt: skip
        return TraceView(self.trace_id, self.start_ns, self.duration_ns, spans, 0)


class DiagnosticDocument(BaseModel):
    """One problem of a submitted text: a stable id, a message, and its position, counted from 1."""

    id: str
    message: str
    help: str | None
    line: int
    column: int
    end_line: int
    end_column: int

    @classmethod
    def from_diagnostic(cls, diagnostic: Diagnostic, text: str) -> Self:
        """Return the document of a diagnostic of `text`."""
        first, last = locate_offset(text, diagnostic.at.start), locate_offset(text, diagnostic.at.end)
        return cls(
            id=diagnostic.id, message=diagnostic.message, help=diagnostic.help,
            line=first.line, column=first.column, end_line=last.line, end_column=last.column,
        )  # fmt: skip


class TraceSummary(BaseModel):
    """A summary of a trace. Its root is the topmost span, which is an orphan if its parent is not stored."""

    trace_id: str
    root_service: str
    root_name: str
    orphan: bool
    start_ns: int
    duration_ns: int
    spans: int
    services: list[str]
    errors: int = Field(description="The number of failed spans")


class TracePage(BaseModel):
    """Traces, newest first; `next` is the cursor for the next page, null at the end."""

    model_config = _make_example(
        traces=[
            {
                "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
                "root_service": "gateway", "root_name": "POST /checkout",
                "orphan": False, "start_ns": 1769860800000000000, "duration_ns": 391000000, "spans": 14,
                "services": ["gateway", "orders", "payments"], "errors": 1,
            }
        ],
        next=None,
    )  # fmt: skip
    traces: list[TraceSummary]
    next: str | None


class Quantiles(BaseModel):
    """Quantiles of `n` durations. Each quantile is one of them: that of rank ⌈p·n⌉."""

    n: int
    p50: int
    p95: int
    p99: int


class ServiceSummary(BaseModel):
    """A service that has sent spans, and the requests that it received: its entry spans."""

    service: str
    versions: list[str] = Field(description="The values of `service.version`")
    requests: int
    errors: int
    error_rate: float | None = Field(description="From 0 to 1; null if there were no requests")
    duration_ns: Quantiles | None


class ServiceList(BaseModel):
    """The services of a time window, by name; a bound that is null is open."""

    model_config = _make_example(
        since_ns=1769860800000000000, until_ns=None,
        services=[
            {
                "service": "payments", "versions": ["1.4.1", "1.4.2"], "requests": 1200, "errors": 6,
                "error_rate": 0.005, "duration_ns": {"n": 1200, "p50": 84000000, "p95": 391000000, "p99": 802000000},
            }
        ],
    )  # fmt: skip
    since_ns: int | None
    until_ns: int | None
    services: list[ServiceSummary]


class CallSummary(BaseModel):
    """The calls of one operation between two services: an edge of the service graph."""

    caller: str
    callee: str
    operation: str
    protocol: str
    count: int = Field(description="Logical calls, each with all its attempts")
    attempts: int
    errors: int = Field(description="Attempts in error")
    failed: int = Field(description="Logical calls whose last attempt failed")
    duration_ns: Quantiles = Field(description="From the start of the first attempt to the end of the last")


class CallPage(BaseModel):
    """The service graph of a time window, by name; `next` is the cursor for the next page, null at the end."""

    model_config = _make_example(
        since_ns=1769860800000000000, until_ns=None,
        calls=[
            {
                "caller": "orders", "callee": "payments", "operation": "POST /pay", "protocol": "http", "count": 1200,
                "attempts": 1231, "errors": 37, "failed": 6,
                "duration_ns": {"n": 1200, "p50": 84000000, "p95": 391000000, "p99": 802000000},
            }
        ],
        next=None,
    )  # fmt: skip
    since_ns: int | None
    until_ns: int | None
    calls: list[CallSummary]
    next: str | None


class Problem(BaseModel):
    """An error according to RFC 9457, with diagnostics if a submitted text is invalid."""

    model_config = _make_example(title="invalid request", status=422, detail="limit: `many` is not a number")
    title: str
    status: int
    detail: str
    diagnostics: list[DiagnosticDocument] = []


class Health(BaseModel):
    """The server is alive."""

    model_config = _make_example(status="ok")
    status: str
