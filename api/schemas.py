"""The JSON documents of the HTTP API."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel

from spanproof.assertions.evidence import SpanView, TraceView
from spanproof.query_lang.diagnostics import Diagnostic, locate


class SpanDocument(BaseModel):
    """A span in its place. ``last_at`` tells for each level above whether it is the last there."""

    span_id: str
    service: str
    name: str
    kind: str
    start_ns: int
    duration_ns: int
    error: bool
    orphan: bool
    last_at: list[bool]


class TraceDocument(BaseModel):
    """A trace, its spans in the order of a tree. Times are integer nanoseconds since the Unix epoch."""

    trace_id: str
    start_ns: int
    duration_ns: int
    spans: list[SpanDocument]

    @classmethod
    def of(cls, view: TraceView) -> Self:
        """Make the document of a trace that was laid out."""
        spans = [
            SpanDocument(
                span_id=span.span_id, service=span.service, name=span.name, kind=span.kind, start_ns=span.start_ns,
                duration_ns=span.duration_ns, error=span.error, orphan=span.orphan, last_at=list(span.last_at),
            )
            for span in view.spans
        ]  # fmt: skip
        return cls(trace_id=view.trace_id, start_ns=view.start_ns, duration_ns=view.duration_ns, spans=spans)

    def view(self) -> TraceView:
        """Return what the document was made of."""
        spans = tuple(
            SpanView(
                each.span_id, each.service, each.name, each.kind, each.start_ns, each.duration_ns, each.error,
                False, each.orphan, tuple(each.last_at),
            )
            for each in self.spans
        )  # fmt: skip
        return TraceView(self.trace_id, self.start_ns, self.duration_ns, spans, 0)


class DiagnosticDocument(BaseModel):
    """One problem of a text that was sent: a stable id, and where it stands, counted from 1."""

    id: str
    message: str
    help: str | None
    line: int
    column: int
    end_line: int
    end_column: int

    @classmethod
    def of(cls, diagnostic: Diagnostic, text: str) -> Self:
        """Make the document of a diagnostic of `text`."""
        first, last = locate(text, diagnostic.at.start), locate(text, diagnostic.at.end)
        return cls(
            id=diagnostic.id, message=diagnostic.message, help=diagnostic.help,
            line=first.line, column=first.column, end_line=last.line, end_column=last.column,
        )  # fmt: skip


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it; with what is wrong in a text that was sent, where that is the matter."""

    title: str
    status: int
    detail: str
    diagnostics: list[DiagnosticDocument] = []


class Health(BaseModel):
    """The server is alive."""

    status: str
