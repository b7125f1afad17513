"""OTLP trace requests → tables with the columns of the store (see sql/schema.sql)."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

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
    """A request that is not what it should be; nothing of it was stored."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What became of a request: spans stored, spans refused, and why some were."""

    accepted_spans: int
    rejected_spans: int = 0
    error_message: str = ""


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """Requests as tables; `outcomes` has what became of each, in the order given.

    `spans` lacks `span_key` and `arrived_ns`, which the store gives; `resources` and `scopes` hold those that
    these spans come from, known already or not. `rejected` counts the spans that are in none of these.
    """

    spans: pa.Table
    resources: pa.Table
    scopes: pa.Table
    outcomes: tuple[ExportResult | UndecodableRequest, ...]
    rejected_counts: Mapping[RejectionReason, int]


class Decoder:
    """Decodes requests, and remembers the resources and scopes it has met. Not for several threads at once."""

    def __init__(self, redaction: Redaction = NO_REDACTION) -> None:
        self._redaction = redaction
        self._requests = FlatMessageReader(REQUEST)
        self._resources = ResourceOrScopeReader(RESOURCE, redaction)
        self._scopes = ResourceOrScopeReader(SCOPE, redaction)

    def decode(self, bodies: Sequence[bytes]) -> DecodedBatch:
        """Decode serialized `ExportTraceServiceRequest`s as one batch; a bad one spoils no other."""
        problems = [self._find_problem(body) for body in bodies]
        good = [body for body, problem in zip(bodies, problems, strict=True) if problem is None]
        try:
            batch = self._requests.read(good)
        except MalformedMessage:
            # something that the check lets pass: find out what, one by one
            problems = [
                problem or self._find_problem(body, read=True) for body, problem in zip(bodies, problems, strict=True)
            ]
            good = [body for body, problem in zip(bodies, problems, strict=True) if problem is None]
            batch = self._requests.read(good)
        spans, resources, scopes, accepted, rejected = self._read_batch(batch)
        remaining = iter(accepted)
        outcomes = tuple(problem or next(remaining) for problem in problems)
        return DecodedBatch(spans, resources, scopes, outcomes, rejected)

    def _find_problem(self, body: bytes, *, read: bool = False) -> UndecodableRequest | None:
        try:
            check_span_density(body)
            self._requests.check(body)
            if read:
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

        columns, faults = read_span_columns(spans.rows, self._redaction)
        resources = _read_resources_or_scopes(self._resources, resource_spans.rows, "resource")
        scopes = _read_resources_or_scopes(self._scopes, scope_spans.rows, "scope")
        for origins, of_span in ((resources, resource_of_span), (scopes, spans.parents)):
            _propagate_rejections(origins, of_span, faults)
        columns["service"] = pa.array([origin.service for origin in resources], pa.string()).take(resource_of_span)
        columns["resource_key"] = _collect_keys(resources).take(resource_of_span)
        columns["scope_key"] = _collect_keys(scopes).take(spans.parents)

        table = pa.table(columns)
        if faults:
            refused = pc.is_in(pa.arange(0, len(table)), value_set=pa.array(list(faults), pa.int64()))
            table = table.filter(pc.invert(refused))
        refused_spans = sorted(faults)
        requests_of_refused = request_of_span.take(pa.array(refused_spans, pa.int64())).to_pylist()
        refusals = Counter(requests_of_refused)
        messages: dict[int, list[str]] = defaultdict(list)
        for span, request in zip(refused_spans, requests_of_refused, strict=True):
            if len(messages[request]) < _MAX_REJECTIONS_IN_MESSAGE:  # there may be a million
                scope_index, span_place = spans.find_parent(span)
                resource_index, scope_place = scope_spans.find_parent(scope_index)
                _, resource_place = resource_spans.find_parent(resource_index)
                place = f"resourceSpans[{resource_place}].scopeSpans[{scope_place}].spans[{span_place}]"
                messages[request].append(f"{place}.{faults[span].message}")
        counts = {count["values"]: count["counts"] for count in pc.value_counts(request_of_span).to_pylist()}
        accepted = [
            _make_result(counts.get(request, 0), refusals[request], messages[request]) for request in range(len(batch))
        ]
        rejected = Counter(fault.reason for fault in faults.values())
        return table, self._resources.make_table(resources), self._scopes.make_table(scopes), accepted, rejected


def _read_resources_or_scopes(reader: ResourceOrScopeReader, rows: pa.StructArray, name: str) -> list[ResourceOrScope]:
    contents, schema_urls = rows.field(name).to_pylist(), rows.field("schema_url").to_pylist()
    return [reader.read(content, schema_url) for content, schema_url in zip(contents, schema_urls, strict=True)]


def _collect_keys(sources: list[ResourceOrScope]) -> pa.UInt64Array:
    return pa.array([origin.key for origin in sources], pa.uint64())


def _propagate_rejections(
    sources: list[ResourceOrScope], source_indices: pa.Int64Array, rejections: dict[int, Rejection]
) -> None:
    """Refuse the spans whose resource or scope cannot be stored."""
    bad = {index: origin.rejection for index, origin in enumerate(sources) if origin.rejection}
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
