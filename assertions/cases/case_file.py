"""Parser of case files (``.case``): traces, claims and expected verdicts in one text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from spanproof.assertions.cases.scenario import CaseAssertion, CaseError, CaseSpan, CaseTrace, Scenario
from spanproof.assertions.cases.span_lines import CaseLine, SpanLineReader, parse_duration, read_strings
from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.collector.topology.proxies import parse_proxy
from spanproof.query_lang.check.constants import JsonValue
from spanproof.query_lang.check.declarations import parse_declared_call

VERDICTS: Final = ("pass", "fail", "inconclusive", "error")


RULES: Final = ("proxy", "edge", "retries", "distinct", "circuit-marker", "max-retry-gap", "max-clock-skew")


def parse_cases(text: str) -> tuple[Scenario, ...]:
    """Parse a case file. Raises :class:`CaseError`."""
    return tuple(_CaseFileReader(text).read_scenarios())


def _make_scenario(assertions: list[tuple[tuple[CaseTrace, ...], CaseAssertion]], rules: ServiceRules) -> Scenario:
    for traces, assertion in assertions:
        spans = [span for trace in traces for span in trace.spans]
        labels = {span.label for span in spans}
        labels_used = [label for span in spans for label in span.links] + list(assertion.expected_witness or ())
        for label in labels_used:
            if label not in labels:
                raise CaseError(assertion.line, f"no span above this line has the label `{label}`")
    return Scenario(tuple(assertions), rules)


def _add_rule(rules: ServiceRules, word: str, text: str, line: int) -> ServiceRules:
    try:
        if word == "proxy":
            parse_proxy(text)
        elif word in ("retries", "distinct"):
            parse_declared_call(text, joined=word == "retries")
    except ValueError as error:
        raise CaseError(line, str(error)) from None
    match word:
        case "proxy":
            return replace(rules, proxies=(*rules.proxies, text))
        case "circuit-marker":
            return replace(rules, circuit_markers=(*rules.circuit_markers, text))
        case "edge":
            return replace(rules, edges=(*rules.edges, text))
        case "retries":
            return replace(rules, retried_calls=(*rules.retried_calls, text))
        case "distinct":
            return replace(rules, distinct_calls=(*rules.distinct_calls, text))
        case "max-retry-gap":
            return replace(rules, max_retry_gap_ns=parse_duration(text, line))
        case _:
            return replace(rules, max_clock_skew_ns=parse_duration(text, line))


def _unquote(text: str) -> str:
    return text[1:-1] if re.fullmatch(r'"[^"]*"', text) else text


class _CaseFileReader:
    def __init__(self, text: str) -> None:
        self.lines = list(_split_lines(text))
        self.position = 0

    def read_scenarios(self) -> Iterator[Scenario]:
        traces: list[CaseTrace] = []
        assertions: list[tuple[tuple[CaseTrace, ...], CaseAssertion]] = []
        rules = ServiceRules()
        while self.position < len(self.lines):
            line = self._take_line()
            word, _, rest = line.text.partition(" ")
            match word:
                case "trace" | "baseline":
                    traces.append(replace(self._read_trace(line, rest), baseline=word == "baseline"))
                case "assert" | "invalid":
                    assertions.append((tuple(traces), self._read_assertion(line, word, rest)))
                case "clear":
                    yield _make_scenario(assertions, rules)
                    traces, assertions, rules = [], [], ServiceRules()
                case _ if word in RULES:
                    rules = _add_rule(rules, word, _unquote(rest.strip()), line.number)
                case _:
                    raise CaseError(
                        line.number,
                        f"`{word}` is not a statement: write trace, baseline, assert, invalid or clear, or a rule:"
                        f" {', '.join(RULES[:-1])} or {RULES[-1]}",
                    )
        yield _make_scenario(assertions, rules)

    def _take_line(self) -> CaseLine:
        self.position += 1
        return self.lines[self.position - 1]

    def _take_indented(self, indent: int) -> Iterator[CaseLine]:
        """Take the lines that are indented more than `indent`."""
        while self.position < len(self.lines) and self.lines[self.position].indent > indent:
            yield self._take_line()

    def _read_assertion(self, line: CaseLine, word: str, claim: str) -> CaseAssertion:
        indented = list(self._take_indented(line.indent))
        while indented and not re.match(r'(pass|fail|inconclusive|error)\b|"', indented[0].text):
            claim += "\n" + indented.pop(0).text
        if not indented:
            raise CaseError(line.number, "no verdict follows this claim")
        outcome = "invalid"
        first = indented[0].text
        if word == "assert":
            outcome, _, first = first.partition(" ")
            if outcome not in VERDICTS:
                raise CaseError(indented[0].number, f"`{outcome}` is not a verdict: write {', '.join(VERDICTS)}")
        texts = tuple(read_strings(first))
        witness = None
        for option in indented[1:]:
            key, _, rest = option.text.partition(" ")
            if key != "witness":
                raise CaseError(option.number, f"`{key}` is not an option of an assertion")
            witness = tuple(label.strip() for label in rest.split(","))
        return CaseAssertion(claim, line.number, outcome, texts, witness)

    def _read_trace(self, line: CaseLine, heading: str) -> CaseTrace:
        words = heading.split()
        if not words:
            raise CaseError(line.number, "a trace needs a name")
        trace = CaseTrace(words.pop(0), ())
        while words:
            word = words.pop(0)
            if word == "unsettled":
                trace = replace(trace, unsettled=True)
            elif word == "x" and words and words[0].isdigit():
                trace = replace(trace, copies=int(words.pop(0)))
            elif word == "every" and words:
                trace = replace(trace, interval_ns=parse_duration(words.pop(0), line.number))
            else:
                raise CaseError(line.number, f"`{word}` is not an option of a trace")
        spans: list[CaseSpan] = []
        resources: dict[str, dict[str, JsonValue]] = {}
        ancestors: list[tuple[int, int]] = []  # (indent, index) of the spans that may be the next parent
        for span_line in self._take_indented(line.indent):
            while ancestors and ancestors[-1][0] >= span_line.indent:
                ancestors.pop()
            parent = ancestors[-1][1] if ancestors else None
            reader = SpanLineReader(span_line)
            if reader.is_resource:
                service, resources[service] = reader.read_resource()
                continue
            span, copies = reader.read(parent)
            if not span.resource:
                span = replace(span, resource=resources.get(span.service, {}))
            ancestors.append((span_line.indent, len(spans)))
            spans += [span] * copies
        return replace(trace, spans=tuple(spans))


def _split_lines(text: str) -> Iterator[CaseLine]:
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = raw.strip()
        if stripped and not stripped.startswith("#"):
            yield CaseLine(number, len(raw) - len(raw.lstrip()), stripped)
