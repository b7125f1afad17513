"""Runs case files: their traces go through the collector's own decoder, their claims through the judge."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from spanproof.assertions.cases.case_file import CaseAssertion, CaseSpan, CaseTrace, Scenario, parse_cases
from spanproof.assertions.findings.judged_traces import SelectedTraces
from spanproof.assertions.findings.verdict import Verdict
from spanproof.assertions.judge.evaluate import Judge
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.calls.service_rules import store_rules
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store
from spanproof.query_lang.check.checker import check_claim
from spanproof.query_lang.check.constants import Bindings, JsonValue
from spanproof.query_lang.check.scope import Scope
from spanproof.query_lang.syntax.parser import parse_claim

BASE_TIME_NS: Final = 1_700_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Variation:
    """Another way to send the same traces; the verdicts must not change."""

    name: str
    shuffled: bool = False
    split: bool = False
    duplicated: bool = False
    shift_ns: int = 0
    salt: str = ""


VARIATIONS: Final = (
    Variation("as written"),
    Variation("shuffled, split over requests", split=True, shuffled=True),
    Variation(
        "duplicated, shifted in time, under other ids", duplicated=True, shift_ns=86_400_000_000_123, salt="other"
    ),
)


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What an assertion got; ``difference`` says what is wrong with it, None that it is as it must be."""

    assertion: CaseAssertion
    variation: str
    verdict: Verdict | None
    difference: str | None


def run_cases(text: str) -> Iterator[CaseResult]:
    """Judge every assertion of a case file, in every variation. Raises :class:`CaseError`."""
    for scene in parse_cases(text):
        yield from run_scenario(scene)


def run_scenario(scenario: Scenario) -> Iterator[CaseResult]:
    """Judge every assertion of a scene, in every variation."""
    for variation in VARIATIONS:
        yield from _run_variation(scenario, variation)


def _run_variation(scenario: Scenario, variation: Variation) -> Iterator[CaseResult]:
    with Store.open(settings={"threads": "1"}) as store:  # there is too little in it for two to share
        store_rules(store, scenario.rules)
        known = 0
        connection = store.cursor()
        judge = Judge(connection)
        decoder = Decoder()
        for traces, assertion in scenario.assertions:
            if assertion.outcome == "invalid":
                if variation is VARIATIONS[0]:
                    yield CaseResult(assertion, variation.name, None, _check_rejection(assertion, _make_scope(traces)))
                continue
            sender = CaseRequests(traces, variation)
            if len(traces) > known or known == 0:
                for request in sender.build_requests(traces[known:]):
                    store.append(decoder.decode([request.SerializeToString()]))
                derive_calls(store)
                known = len(traces)
                judge.select_traces(
                    SelectedTraces(sender.list_settled(), missing=("a span names a parent that is missing",))
                )
                judge.select_baseline(list(sender.list_settled(baseline=True)))
            yield _judge(judge, sender, assertion, variation)
        connection.close()


def _judge(judge: Judge, requests: CaseRequests, assertion: CaseAssertion, variation: Variation) -> CaseResult:
    parsed = parse_claim(assertion.claim)
    problems = check_claim(parsed, _make_scope(requests.traces))
    if problems or parsed.expectation is None:
        return CaseResult(assertion, variation.name, None, "refused: " + "; ".join(each.message for each in problems))
    verdict = judge.judge(parsed.expectation, assertion.claim, Bindings())
    return CaseResult(assertion, variation.name, verdict, _compare_verdict(assertion, verdict, requests))


def _make_scope(traces: tuple[CaseTrace, ...]) -> Scope:
    return Scope(baseline=any(trace.baseline for trace in traces))


def _check_rejection(assertion: CaseAssertion, scope: Scope) -> str | None:
    """Return what is wrong with how an ``invalid`` claim is refused."""
    problems = check_claim(parse_claim(assertion.claim), scope)
    if not problems:
        return "was not refused"
    said = "; ".join(f"{each.message} {each.help or ''}" for each in problems)
    absent = [text for text in assertion.expected_texts if text not in said]
    return f"refused without saying {absent[0]!r}: {said}" if absent else None


def _compare_verdict(assertion: CaseAssertion, verdict: Verdict, requests: CaseRequests) -> str | None:
    said = " ".join([verdict.reason, verdict.mark, verdict.observed or "", verdict.help or ""])
    if verdict.outcome != assertion.outcome:
        return f"must {assertion.outcome}, got {verdict.outcome}: {said.strip()}"
    for text in assertion.expected_texts:
        if text not in said:
            return f"must say {text!r}, says: {said.strip()}"
    if assertion.expected_witness is not None:
        wanted = sorted(requests.find_span_id(label) for label in assertion.expected_witness)
        found = sorted(witness.span_id for witness in verdict.witnesses)
        if wanted != found:
            names = {requests.find_span_id(label): label for label in requests.span_by_label}
            shown = ", ".join(names.get(span_id, span_id) for span_id in found) or "none"
            return f"must show {', '.join(assertion.expected_witness)}, shows {shown}"
    return None


class CaseRequests:
    """Makes OTLP requests of case traces; ids are derived from names, so that they are always the same."""

    def __init__(self, traces: tuple[CaseTrace, ...], variation: Variation) -> None:
        self.variation = variation
        self.traces = traces
        self.span_by_label = {
            span.label: (trace, index)
            for trace in traces
            for index, span in enumerate(trace.spans)
            if span.label is not None
        }

    def list_settled(self, *, baseline: bool = False) -> dict[str, bool]:
        """Return the ids of the traces that are judged, or of the baseline's, and whether each is settled."""
        return {
            self._make_trace_id(trace, copy).hex(): not trace.unsettled
            for trace in self.traces
            if trace.baseline == baseline
            for copy in range(trace.copies)
        }

    def find_span_id(self, label: str) -> str:
        """Return the id of the span with a label."""
        trace, index = self.span_by_label[label]
        return self._make_span_id(trace, 0, index).hex()

    def build_requests(self, traces: tuple[CaseTrace, ...]) -> Iterator[ExportTraceServiceRequest]:
        """Yield the requests that send these traces, in the variation."""
        spans = [
            (span, self._build_span(trace, copy, index, span))
            for trace in traces
            for copy in range(trace.copies)
            for index, span in enumerate(trace.spans)
        ]
        if self.variation.shuffled:
            random.Random(7).shuffle(spans)  # noqa: S311 (an order, not a secret)
        if self.variation.duplicated:
            spans += spans
        size = 3 if self.variation.split else max(len(spans), 1)
        for start in range(0, len(spans), size):
            yield ExportTraceServiceRequest(resource_spans=_group_by_resource(spans[start : start + size]))

    def _build_span(self, trace: CaseTrace, copy: int, index: int, span: CaseSpan) -> Span:
        zero = BASE_TIME_NS + self.variation.shift_ns + copy * trace.interval_ns
        made = Span(
            trace_id=self._make_trace_id(trace, copy),
            span_id=self._make_span_id(trace, copy, index),
            name=span.name,
            kind=span.kind,  # type: ignore[arg-type]  # the enum's own numbers
            start_time_unix_nano=zero + span.start_ns,
            end_time_unix_nano=zero + span.end_ns,
            attributes=_make_key_values(span.attributes),
        )
        made.status.code = span.status  # type: ignore[assignment]  # the enum's own numbers
        if span.orphan:
            made.parent_span_id = self._hash(f"{trace.name}/{copy}/{index}/absent")[:8]
        else:
            parent = trace.spans[span.parent].parent if span.shared and span.parent is not None else span.parent
            if parent is not None:
                made.parent_span_id = self._make_span_id(trace, copy, parent)
        for event in span.events:
            made.events.add(
                name=event.name, time_unix_nano=zero + event.at_ns, attributes=_make_key_values(event.attributes)
            )
        for label in span.links:
            other, place = self.span_by_label[label]
            there = copy if other is trace else 0
            made.links.add(trace_id=self._make_trace_id(other, there), span_id=self._make_span_id(other, there, place))
        return made

    def _make_trace_id(self, trace: CaseTrace, copy: int) -> bytes:
        return self._hash(f"{trace.name}/{copy}")

    def _make_span_id(self, trace: CaseTrace, copy: int, index: int) -> bytes:
        span = trace.spans[index]
        if span.shared and span.parent is not None:
            return self._make_span_id(trace, copy, span.parent)
        return self._hash(f"{trace.name}/{copy}/{index}")[:8]

    def _hash(self, text: str) -> bytes:
        return hashlib.blake2b(f"{self.variation.salt}/{text}".encode(), digest_size=16).digest()


def _group_by_resource(spans: list[tuple[CaseSpan, Span]]) -> list[ResourceSpans]:
    found: dict[str, ResourceSpans] = {}
    for span, made in spans:
        attributes = {"service.name": span.service, **span.resource}
        key = repr(sorted(attributes.items()))
        if key not in found:
            found[key] = ResourceSpans()
            found[key].resource.attributes.extend(_make_key_values(attributes))
            found[key].scope_spans.add()
        found[key].scope_spans[0].spans.append(made)
    return list(found.values())


def _make_key_values(attributes: dict[str, JsonValue]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_make_any_value(value)) for key, value in attributes.items()]


def _make_any_value(value: JsonValue) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[_make_any_value(item) for item in value]))
    return AnyValue(string_value=str(value))
