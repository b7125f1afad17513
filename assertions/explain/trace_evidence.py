"""The displayed trace of a verdict: its spans in tree order."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import read_quantile

if TYPE_CHECKING:
    import duckdb

SPAN_KIND_NAMES = {code: name for name, code in SPAN_KINDS.items()}


@dataclass(frozen=True, slots=True)
class SpanView:
    """A displayed span. ``last_at`` says, for each level of the tree, whether the span's branch is the last one.

    ``duration_ns`` is None if the span has not ended. ``attributes`` maps names to values for ``marked`` spans; it is
    empty for others.
    """

    span_id: str
    service: str
    name: str
    kind: str
    start_ns: int
    duration_ns: int | None
    error: bool
    marked: bool
    orphan: bool
    last_at: tuple[bool, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TraceView:
    """A displayed trace: its spans in tree order, its start and its duration until the last known instant.

    ``choice`` names the trace among several, such as the one at p95.
    """

    trace_id: str
    start_ns: int
    duration_ns: int
    spans: tuple[SpanView, ...]
    hidden: int
    choice: str | None = None

    @property
    def has_unfinished(self) -> bool:
        """Whether a span has not ended, so that the trace may have lasted longer."""
        return any(span.duration_ns is None for span in self.spans)


@dataclass(frozen=True, slots=True)
class _SpanNode:
    key: int
    parent: int | None
    entry: bool
    unpaired: bool
    view: SpanView


def build_trace_view(
    connection: duckdb.DuckDBPyConnection, trace_id: str, *, marked: Collection[str] = (), requests_only: bool = True
) -> TraceView | None:
    """Return the view of a trace, or None if it has no spans.

    With `requests_only`, internal spans are omitted: only entry spans, client and producer spans without a server
    span, spans that have not ended, and the `marked` span ids remain.
    """
    rows = connection.execute(
        "SELECT t.span_key, t.parent_key, t.is_entry, t.role IN (3, 4) AND s.span_key NOT IN"
        " (SELECT client_key FROM attempts WHERE trace_id = $trace::UUID AND server_key IS NOT NULL"
        " AND client_key IS NOT NULL), s.span_id, s.service, s.name, s.kind, s.start_ns,"
        " t.end_ns - t.start_ns, t.error, t.orphan,"
        " CASE WHEN list_contains($marked::UBIGINT[], s.span_id) THEN s.attributes END"
        " FROM topology t JOIN spans s ON s.span_key = t.span_key WHERE t.trace_id = $trace::UUID"
        " ORDER BY s.start_ns, s.end_ns DESC, s.span_id",
        {"trace": trace_id, "marked": [int(span_id, 16) for span_id in marked if span_id]},
    ).fetchall()
    if not rows:
        return None
    spans = []
    for key, parent, entry, unpaired, span_id, service, name, kind, start, duration, error, orphan, attributes in rows:
        hexadecimal = f"{span_id:016x}"
        view = SpanView(
            hexadecimal, service, name, SPAN_KIND_NAMES.get(kind, str(kind)), start, duration, error,
            hexadecimal in marked, orphan, (), _read_attributes(attributes),
        )  # fmt: skip
        spans.append(_SpanNode(key, parent, entry, unpaired, view))
    kept = _omit_internal_spans(spans) if requests_only else spans
    start = min(span.view.start_ns for span in spans)
    end = max(span.view.start_ns + (span.view.duration_ns or 0) for span in spans)
    return TraceView(trace_id, start, end - start, tuple(_order_as_tree(kept)), len(spans) - len(kept))


def _read_attributes(attributes: Mapping[str, list[str]] | None) -> dict[str, str]:
    """Return displayed attributes by name, without the marker of values that are not plain text."""
    if attributes is None:
        return {}
    from spanproof.collector.otlp.attribute_encoding import KIND_MARKER

    pairs = zip(attributes["keys"], attributes["texts"], strict=True)
    return {key: text[2:] if text.startswith(KIND_MARKER) else text for key, text in sorted(pairs) if text is not None}


def describe_choice(expectation: s.Expectation) -> str | None:
    """Return which trace shows the number of a claim, or None if the claim does not single out a trace."""
    if expectation.share is not None or not isinstance(expectation.claim, s.ComparisonClaim | s.BaselineTest):
        return None
    names = [part.name for part in s.walk(expectation.claim) if isinstance(part, s.Function)]
    if "min" in names or "max" in names:
        return f"the one at the {'minimum' if 'min' in names else 'maximum'}"
    percent = next((percent for name in names if (percent := read_quantile(name))), None)
    return f"the one at p{percent}" if percent else None


def _omit_internal_spans(spans: list[_SpanNode]) -> list[_SpanNode]:
    """Remove spans that are neither requests nor marked; attach their children to the nearest kept ancestor."""
    by_key = {span.key: span for span in spans}
    kept_keys = {span.key for span in spans if _is_shown(span)}

    def find_kept_ancestor(span: _SpanNode) -> int | None:
        parent = span.parent
        while parent is not None and parent not in kept_keys:
            parent = by_key[parent].parent
        return parent

    return [replace(span, parent=find_kept_ancestor(span)) for span in spans if span.key in kept_keys]


def _is_shown(span: _SpanNode) -> bool:
    is_request = span.entry or span.unpaired or span.parent is None
    return is_request or span.view.marked or span.view.duration_ns is None


def _order_as_tree(spans: list[_SpanNode]) -> Iterator[SpanView]:
    children: dict[int | None, list[_SpanNode]] = {}
    for span in spans:
        children.setdefault(span.parent, []).append(span)
    pending: list[tuple[_SpanNode, tuple[bool, ...]]] = [(span, ()) for span in reversed(children.get(None, []))]
    while pending:
        span, last_at = pending.pop()
        yield replace(span.view, last_at=last_at)
        child_spans = children.get(span.key, [])
        pending += [(child, (*last_at, child is child_spans[-1])) for child in reversed(child_spans)]
