"""Runner of case files: decodes and stores their traces, judges their claims and compares the verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec import Struct

from spanproof.assertions.cases.case_file import parse_cases
from spanproof.assertions.cases.scenario import CaseAssertion, CaseTrace, Scenario
from spanproof.assertions.cases.scenario_requests import CaseRequests
from spanproof.assertions.cases.variations import VARIATIONS, Variation
from spanproof.assertions.explain.text_formatting import format_list
from spanproof.assertions.findings.judged_traces import SelectedTraces
from spanproof.assertions.findings.verdict import Verdict
from spanproof.assertions.judge.evaluate import Judge
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.calls.service_rules import store_rules
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store
from spanproof.query_lang.check.checker import check_claim
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.check.scope import Scope
from spanproof.query_lang.syntax.parser import parse_claim


class CaseResult(Struct, frozen=True):
    """The verdict on an assertion; ``difference`` describes a deviation from the expectation, or is None."""

    assertion: CaseAssertion
    variation: str
    verdict: Verdict | None
    difference: str | None


class CaseDifference(Struct, frozen=True):
    """A deviation of an assertion, and the variations that have it; `all_variations` if no other verdict exists."""

    assertion: CaseAssertion
    difference: str
    variations: tuple[str, ...]
    all_variations: bool


def group_differences(results: Iterable[CaseResult]) -> list[CaseDifference]:
    """Return each deviation once: the variations of an assertion with the same outcome share the first explanation."""
    groups: dict[tuple[int, str], list[CaseResult]] = {}
    counts: Counter[int] = Counter()
    for result in results:
        counts[result.assertion.line] += 1
        if result.difference is not None:
            outcome = "" if result.verdict is None else str(result.verdict.outcome)
            groups.setdefault((result.assertion.line, outcome), []).append(result)
    return [
        CaseDifference(
            group[0].assertion,
            str(group[0].difference),
            tuple(result.variation for result in group),
            len(group) == counts[line],
        )
        for (line, _), group in sorted(groups.items(), key=lambda item: item[0][0])
    ]


def run_cases(text: str) -> Iterator[CaseResult]:
    """Judge every assertion of a case file, in every variation. Raises :class:`CaseError`."""
    for scenario in parse_cases(text):
        yield from run_scenario(scenario)


def run_scenario(scenario: Scenario) -> Iterator[CaseResult]:
    """Judge every assertion of a scenario, in every variation."""
    for variation in VARIATIONS:
        yield from run_variation(scenario, variation)


def run_variation(scenario: Scenario, variation: Variation) -> Iterator[CaseResult]:
    """Judge every assertion of a scenario in one variation; claims that must be refused are checked in the first."""
    with Store.open(settings={"threads": "1"}) as store:  # a scenario is too small for more threads
        store_rules(store, scenario.rules)
        stored_count = 0
        connection = store.cursor()
        judge = Judge(connection)
        decoder = Decoder()
        for traces, assertion in scenario.assertions:
            if assertion.outcome == "invalid":
                if variation is VARIATIONS[0]:
                    yield CaseResult(assertion, variation.name, None, _check_rejection(assertion, _make_scope(traces)))
                continue
            requests = CaseRequests(traces, variation)
            if len(traces) > stored_count or stored_count == 0:
                for request in requests.build_requests(traces[stored_count:]):
                    store.append(decoder.decode([request.SerializeToString()]))
                derive_calls(store)
                stored_count = len(traces)
                judge.select_traces(SelectedTraces(requests.list_settled(), missing=_describe_unsettled(traces)))
                judge.select_baseline(list(requests.list_settled(baseline=True)))
            yield _judge(judge, requests, assertion, variation)
        connection.close()


def _describe_unsettled(traces: tuple[CaseTrace, ...]) -> tuple[str, ...]:
    names = [trace.name for trace in traces if trace.unsettled and not trace.baseline]
    return (f"the deadline passed before {format_list(names)} settled",) if names else ()


def _judge(judge: Judge, requests: CaseRequests, assertion: CaseAssertion, variation: Variation) -> CaseResult:
    parsed = parse_claim(assertion.claim)
    problems = check_claim(parsed, _make_scope(requests.traces))
    if problems or parsed.expectation is None:
        return CaseResult(assertion, variation.name, None, "rejected: " + "; ".join(each.message for each in problems))
    verdict = judge.judge(parsed.expectation, assertion.claim, Bindings())
    return CaseResult(assertion, variation.name, verdict, _compare_verdict(assertion, verdict, requests))


def _make_scope(traces: tuple[CaseTrace, ...]) -> Scope:
    return Scope(baseline=any(trace.baseline for trace in traces))


def _check_rejection(assertion: CaseAssertion, scope: Scope) -> str | None:
    """Return how the rejection of an ``invalid`` claim differs from the expectation, or None."""
    problems = check_claim(parse_claim(assertion.claim), scope)
    if not problems:
        return "was not rejected"
    message = "; ".join(text for each in problems for text in (each.message, each.help) if text)
    missing = [text for text in assertion.expected_texts if text not in message]
    return f"the rejection lacks {missing[0]!r}: {message}" if missing else None


def _compare_verdict(assertion: CaseAssertion, verdict: Verdict, requests: CaseRequests) -> str | None:
    message = " ".join([verdict.reason, verdict.mark, verdict.observed or "", verdict.help or ""])
    has_further_help = verdict.help is not None and verdict.help not in verdict.reason
    shown = f"{verdict.reason}; {verdict.help}" if has_further_help else verdict.reason
    if verdict.outcome != assertion.outcome:
        return f"expected {assertion.outcome}, got {verdict.outcome}: {shown}"
    for text in assertion.expected_texts:
        if text not in message:
            return f"expected {text!r} in: {shown}"
    if assertion.expected_witness is not None:
        expected = sorted(requests.find_span_id(label) for label in assertion.expected_witness)
        actual = sorted(witness.span_id for witness in verdict.witnesses)
        if expected != actual:
            names = {requests.find_span_id(label): label for label in requests.span_by_label}
            shown = ", ".join(names.get(span_id, span_id) for span_id in actual) or "none"
            return f"expected the witnesses {', '.join(assertion.expected_witness)}, got {shown}"
    return None
