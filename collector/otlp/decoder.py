"""OTLP trace requests → tables with the columns of the store (see sql/schema.sql)."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from spanproof.collector.otlp.descriptor import (
    REQUEST,
    RESOURCE,
    SCOPE,
    FlatMessageReader,
    MalformedMessage,
    check_span_density,
)
from spanproof.collector.otlp.redaction import NO_REDACTION, Redaction
from spanproof.collector.otlp.rejections import Rejection, RejectionReason
from spanproof.collector.otlp.repeated_fields import FlattenedList
from spanproof.collector.otlp.resources_and_scopes import ResourceOrScope, ResourceOrScopeReader
from spanproof.collector.otlp.span_columns import read_span_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAX_REJECTIONS_IN_MESSAGE = 3


class UndecodableRequest(ValueError):
    """A request that cannot be decoded; none of its spans is stored."""


class ExportResult(Struct, frozen=True):
    """Result of an export request: the numbers of accepted and rejected spans, and why spans were rejected."""

    accepted_spans: int
    rejected_spans: int = 0
    error_message: str = ""


class DecodedBatch(Struct, frozen=True):
    """Decoded requests as tables; `outcomes` has the result of each request, in the given order.

    `spans` lacks `span_key` and `arrived_ns`, which the store adds. `resources` and `scopes` contain all resources and
    scopes of these spans, including those already stored. `rejected_counts` counts the spans that are in no table.
    """

    spans: pa.Table
    resources: pa.Table
    scopes: pa.Table
    outcomes: tuple[ExportResult | UndecodableRequest, ...]
    rejected_counts: Mapping[RejectionReason, int]


class Decoder:
    """Decoder of requests, with a cache of the resources and scopes they contain. Not thread-safe."""

    def __init__(self, redaction: Redaction = NO_REDACTION) -> None:
        self._redaction = redaction
        self._requests = FlatMessageReader(REQUEST)
        self._resources = ResourceOrScopeReader(RESOURCE, redaction)
        self._scopes = ResourceOrScopeReader(SCOPE, redaction)

    def decode(self, bodies: Sequence[bytes]) -> DecodedBatch:
        """Decode serialized `ExportTraceServiceRequest`s as one batch; an invalid one does not affect the others."""
        problems = [self._find_problem(body) for body in bodies]
        valid_bodies = [body for body, problem in zip(bodies, problems, strict=True) if problem is None]
        try:
            batch = self._requests.read(valid_bodies)
        except MalformedMessage:
            # the check accepted an invalid body: read the bodies one by one to find it
            problems = [
                problem or self._find_problem(body, fully=True) for body, problem in zip(bodies, problems, strict=True)
            ]
            valid_bodies = [body for body, problem in zip(bodies, problems, strict=True) if problem is None]
            batch = self._requests.read(valid_bodies)
        spans, resources, scopes, results, rejected_counts = self._read_batch(batch)
        remaining = iter(results)
        outcomes = tuple(problem or next(remaining) for problem in problems)
        return DecodedBatch(spans, resources, scopes, outcomes, rejected_counts)

    def _find_problem(self, body: bytes, *, fully: bool = False) -> UndecodableRequest | None:
        try:
            check_span_density(body)
            self._requests.check(body)
            if fully:
                self._requests.read([body])
        except MalformedMessage as error:
            return UndecodableRequest(f"the trace request cannot be decoded: {error}")
        return None

    def _read_batch(
        self, batch: pa.RecordBatch
    ) -> tuple[pa.Table, pa.Table, pa.Table, list[ExportResult], Mapping[RejectionReason, int]]:
        resource_spans = FlattenedList(batch["resource_spans"])
        scope_spans = FlattenedList(resource_spans.rows.field("scope_spans"))
        spans = FlattenedList(scope_spans.rows.field("spans"))
        resource_of_span = scope_spans.parents.take(spans.parents)
        request_of_span = resource_spans.parents.take(resource_of_span)

        columns, rejections = read_span_columns(spans.rows, self._redaction)
        resources = _read_resources_or_scopes(self._resources, resource_spans.rows, "resource")
        scopes = _read_resources_or_scopes(self._scopes, scope_spans.rows, "scope")
        for sources, source_of_span in ((resources, resource_of_span), (scopes, spans.parents)):
            _propagate_rejections(sources, source_of_span, rejections)
        columns["service"] = pa.array([resource.service for resource in resources], pa.string()).take(resource_of_span)
        columns["resource_key"] = _collect_keys(resources).take(resource_of_span)
        columns["scope_key"] = _collect_keys(scopes).take(spans.parents)

        table = pa.table(columns)
        if rejections:
            is_rejected = pc.is_in(pa.arange(0, len(table)), value_set=pa.array(list(rejections), pa.int64()))
            table = table.filter(pc.invert(is_rejected))
        rejected_spans = sorted(rejections)
        rejected_requests = request_of_span.take(pa.array(rejected_spans, pa.int64())).to_pylist()
        rejection_counts = Counter(rejected_requests)
        messages: dict[int, list[str]] = defaultdict(list)
        for span, request in zip(rejected_spans, rejected_requests, strict=True):
            if len(messages[request]) < _MAX_REJECTIONS_IN_MESSAGE:  # there may be a million rejected spans
                scope_row, span_index = spans.find_parent(span)
                resource_row, scope_index = scope_spans.find_parent(scope_row)
                _, resource_index = resource_spans.find_parent(resource_row)
                path = f"resourceSpans[{resource_index}].scopeSpans[{scope_index}].spans[{span_index}]"
                messages[request].append(f"{path}.{rejections[span].message}")
        span_counts = {count["values"]: count["counts"] for count in pc.value_counts(request_of_span).to_pylist()}
        results = [
            _make_result(span_counts.get(request, 0), rejection_counts[request], messages[request])
            for request in range(len(batch))
        ]
        reasons = Counter(rejection.reason for rejection in rejections.values())
        return table, self._resources.make_table(resources), self._scopes.make_table(scopes), results, reasons


def _read_resources_or_scopes(reader: ResourceOrScopeReader, rows: pa.StructArray, name: str) -> list[ResourceOrScope]:
    contents, schema_urls = rows.field(name).to_pylist(), rows.field("schema_url").to_pylist()
    return [reader.read(content, schema_url) for content, schema_url in zip(contents, schema_urls, strict=True)]


def _collect_keys(sources: list[ResourceOrScope]) -> pa.UInt64Array:
    return pa.array([source.key for source in sources], pa.uint64())


def _propagate_rejections(
    sources: list[ResourceOrScope], source_indices: pa.Int64Array, rejections: dict[int, Rejection]
) -> None:
    """Reject the spans whose resource or scope cannot be stored."""
    bad = {index: source.rejection for index, source in enumerate(sources) if source.rejection}
    if bad:
        for span in pc.indices_nonzero(pc.is_in(source_indices, value_set=pa.array(list(bad), pa.int64()))).to_pylist():
            rejections.setdefault(span, bad[source_indices[span].as_py()])


def _make_result(spans: int, rejected: int, messages: list[str]) -> ExportResult:
    if not rejected:
        return ExportResult(spans)
    more = f"; and {rejected - len(messages)} more" if rejected > len(messages) else ""
    return ExportResult(
        spans - rejected, rejected, f"{rejected} of {spans} spans rejected: {'; '.join(messages)}{more}"
    )
