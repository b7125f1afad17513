"""Case files: traces, claims and the verdicts they must get, in one text (``.case``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS
from spanproof.query_lang.check.constants import JsonValue
from spanproof.query_lang.syntax.literals import DiagnosticError, read_duration_ns, read_string_literal
from spanproof.query_lang.syntax.nodes import TextRange

TOKEN_PATTERN: Final = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<span>\.\.)|(?P<number>-?[0-9]+(?:\.[0-9]+)?[A-Za-zµ%]*)'
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:[-.][A-Za-z0-9_]+)*)|(?P<mark>[{}\[\]:,]))"
)
VERDICTS: Final = ("pass", "fail", "inconclusive", "error")


class CaseError(Exception):
    """A case file that cannot be read; the message begins with the line's number."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")


@dataclass(frozen=True, slots=True)
class CaseEvent:
    """``event "name" at 3ms { … }``."""

    name: str
    at_ns: int
    attributes: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class CaseSpan:
    """One span line; ``parent`` is the index of another in the same trace."""

    service: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    parent: int | None
    orphan: bool = False
    shared: bool = False  # its id, and its parent, are those of the span above: a server that took over its client's
    status: int = 0
    attributes: dict[str, JsonValue] = field(default_factory=dict)
    resource: dict[str, JsonValue] = field(default_factory=dict)
    events: tuple[CaseEvent, ...] = ()
    links: tuple[str, ...] = ()
    label: str | None = None


@dataclass(frozen=True, slots=True)
class CaseTrace:
    """A trace, perhaps repeated: ``copies`` of it, each ``interval_ns`` later."""

    name: str
    spans: tuple[CaseSpan, ...]
    unsettled: bool = False
    copies: int = 1
    interval_ns: int = 0
    baseline: bool = False


@dataclass(frozen=True, slots=True)
class CaseAssertion:
    """A claim and the verdict it must get; for ``invalid``, ``outcome`` is that."""

    claim: str
    line: int
    outcome: str
    expected_texts: tuple[str, ...] = ()
    expected_witness: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """The traces since the last ``clear``, and what is asserted of those before each assertion."""

    assertions: tuple[tuple[tuple[CaseTrace, ...], CaseAssertion], ...]
    rules: ServiceRules


def parse_cases(text: str) -> tuple[Scenario, ...]:
    """Read a case file. Raises :class:`CaseError`."""
    return tuple(_CaseFileReader(text).read_scenarios())


def _make_scenario(asserted: list[tuple[tuple[CaseTrace, ...], CaseAssertion]], rules: ServiceRules) -> Scenario:
    for traces, assertion in asserted:
        spans = [span for trace in traces for span in trace.spans]
        labels = {span.label for span in spans}
        named = [label for span in spans for label in span.links] + list(assertion.expected_witness or ())
        for label in named:
            if label not in labels:
                raise CaseError(assertion.line, f"no span above this is called `{label}`")
    return Scenario(tuple(asserted), rules)


def _add_rule(rules: ServiceRules, word: str, text: str, line: int) -> ServiceRules:
    match word:
        case "proxy":
            return replace(rules, proxies=(*rules.proxies, text))
        case "circuit-marker":
            return replace(rules, circuit_markers=(*rules.circuit_markers, text))
        case "max-retry-gap":
            return replace(rules, max_retry_gap_ns=_parse_duration(text, line))
        case _:
            return replace(rules, max_clock_skew_ns=_parse_duration(text, line))


@dataclass(slots=True)
class _CaseLine:
    number: int
    indent: int
    text: str


class _CaseFileReader:
    def __init__(self, text: str) -> None:
        self.lines = list(_split_lines(text))
        self.position = 0

    def read_scenarios(self) -> Iterator[Scenario]:
        traces: list[CaseTrace] = []
        asserted: list[tuple[tuple[CaseTrace, ...], CaseAssertion]] = []
        rules = ServiceRules()
        while self.position < len(self.lines):
            line = self._take_line()
            word, _, rest = line.text.partition(" ")
            match word:
                case "trace" | "baseline":
                    traces.append(replace(self._read_trace(line, rest), baseline=word == "baseline"))
                case "assert" | "invalid":
                    asserted.append((tuple(traces), self._read_assertion(line, word, rest)))
                case "clear":
                    yield _make_scenario(asserted, rules)
                    traces, asserted, rules = [], [], ServiceRules()
                case "proxy" | "circuit-marker" | "max-retry-gap" | "max-clock-skew":
                    rules = _add_rule(rules, word, rest.strip().strip('"'), line.number)
                case _:
                    raise CaseError(
                        line.number,
                        f"`{word}` begins nothing here: write trace, baseline, assert, invalid or clear, or a rule:"
                        " proxy, circuit-marker, max-retry-gap or max-clock-skew",
                    )
        yield _make_scenario(asserted, rules)

    def _take_line(self) -> _CaseLine:
        self.position += 1
        return self.lines[self.position - 1]

    def _take_indented(self, indent: int) -> Iterator[_CaseLine]:
        """Take the lines that are indented more than `indent`."""
        while self.position < len(self.lines) and self.lines[self.position].indent > indent:
            yield self._take_line()

    def _read_assertion(self, line: _CaseLine, word: str, claim: str) -> CaseAssertion:
        below = list(self._take_indented(line.indent))
        while below and not re.match(r'(pass|fail|inconclusive|error)\b|"', below[0].text):
            claim += "\n" + below.pop(0).text
        if not below:
            raise CaseError(line.number, "no verdict follows this claim")
        outcome = "invalid"
        first = below[0].text
        if word == "assert":
            outcome, _, first = first.partition(" ")
            if outcome not in VERDICTS:
                raise CaseError(below[0].number, f"`{outcome}` is not a verdict: write {', '.join(VERDICTS)}")
        texts = tuple(_read_strings(first))
        witness = None
        for more in below[1:]:
            key, _, rest = more.text.partition(" ")
            if key != "witness":
                raise CaseError(more.number, f"`{key}` is not known here")
            witness = tuple(label.strip() for label in rest.split(","))
        return CaseAssertion(claim, line.number, outcome, texts, witness)

    def _read_trace(self, line: _CaseLine, heading: str) -> CaseTrace:
        words = heading.split()
        if not words:
            raise CaseError(line.number, "a trace has a name")
        trace = CaseTrace(words.pop(0), ())
        while words:
            word = words.pop(0)
            if word == "unsettled":
                trace = replace(trace, unsettled=True)
            elif word == "x" and words and words[0].isdigit():
                trace = replace(trace, copies=int(words.pop(0)))
            elif word == "every" and words:
                trace = replace(trace, interval_ns=_parse_duration(words.pop(0), line.number))
            else:
                raise CaseError(line.number, f"`{word}` is not known here")
        spans: list[CaseSpan] = []
        above: list[tuple[int, int]] = []  # (indent, index) of the spans this one may be under
        for below in self._take_indented(line.indent):
            while above and above[-1][0] >= below.indent:
                above.pop()
            parent = above[-1][1] if above else None
            span, copies = _SpanLineReader(below).read(parent)
            above.append((below.indent, len(spans)))
            spans += [span] * copies
        return replace(trace, spans=tuple(spans))


class _SpanLineReader:
    """Reads one span line, token by token."""

    def __init__(self, line: _CaseLine) -> None:
        self.line = line
        self.tokens = list(_tokenize(line))

    def read(self, parent: int | None) -> tuple[CaseSpan, int]:
        orphan, shared = self._skip_token("orphan"), self._skip_token("shared")
        if shared and parent is None:
            raise CaseError(self.line.number, "there is no span above whose id this one could share")
        service, name, kind = self._read_value(), self._read_value(), str(self._read_value())
        if kind not in SPAN_KINDS:
            raise CaseError(self.line.number, f"`{kind}` is not a span kind: {', '.join(SPAN_KINDS)}")
        start = self._read_duration()
        self._expect("..")
        span = CaseSpan(str(service), str(name), SPAN_KINDS[kind], start, self._read_duration(), parent, orphan, shared)
        copies = 1
        while self.tokens:
            if self.tokens[0] == ("mark", "{"):
                span = replace(span, attributes={**span.attributes, **self._read_object()})
                continue
            match self._take_token()[1]:
                case "error":
                    span = replace(span, status=2)
                case "ok":
                    span = replace(span, status=1)
                case "resource":
                    span = replace(span, resource=self._read_object())
                case "event":
                    span = replace(span, events=(*span.events, self._read_event()))
                case "link":
                    span = replace(span, links=(*span.links, self._take_token()[1]))
                case "as":
                    span = replace(span, label=self._take_token()[1])
                case "x":
                    copies = self._read_count()
                case word:
                    raise CaseError(self.line.number, f"`{word}` is not known in a span")
        return span, copies

    def _read_count(self) -> int:
        text = self._take_token()[1]
        if not text.isdecimal():
            raise CaseError(self.line.number, f"`{text}` is no number of copies")
        return int(text)

    def _read_event(self) -> CaseEvent:
        name = str(self._read_value())
        self._expect("at")
        at_ns = self._read_duration()
        attributes = self._read_object() if self.tokens and self.tokens[0] == ("mark", "{") else {}
        return CaseEvent(name, at_ns, attributes)

    def _read_object(self) -> dict[str, JsonValue]:
        self._expect("{")
        found: dict[str, JsonValue] = {}
        while not self._skip_token("}"):
            key = str(self._read_value())
            self._expect(":")
            found[key] = self._read_value()
            self._skip_token(",")
        return found

    def _read_value(self) -> JsonValue:
        kind, text = self._take_token()
        if kind == "string":
            return _unquote(text, self.line.number)
        if kind == "number":
            if text[-1] not in "0123456789":
                raise CaseError(self.line.number, f"`{text}` is no value of an attribute: it has a unit")
            number = Decimal(text)
            return int(number) if "." not in text else float(number)
        if text == "[":
            items: list[JsonValue] = []
            while not self._skip_token("]"):
                items.append(self._read_value())
                self._skip_token(",")
            return items
        return {"true": True, "false": False}.get(text, text)

    def _read_duration(self) -> int:
        return _parse_duration(self._take_token()[1], self.line.number)

    def _take_token(self) -> tuple[str, str]:
        if not self.tokens:
            raise CaseError(self.line.number, "this line ends too early")
        return self.tokens.pop(0)

    def _expect(self, text: str) -> None:
        found = self._take_token()[1]
        if found != text:
            raise CaseError(self.line.number, f"`{found}` stands where `{text}` was expected")

    def _skip_token(self, text: str) -> bool:
        if self.tokens and self.tokens[0][1] == text and self.tokens[0][0] != "string":
            self.tokens.pop(0)
            return True
        return False


def _split_lines(text: str) -> Iterator[_CaseLine]:
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = raw.strip()
        if stripped and not stripped.startswith("#"):
            yield _CaseLine(number, len(raw) - len(raw.lstrip()), stripped)


def _tokenize(line: _CaseLine) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(line.text) and not line.text[place:].lstrip().startswith("#"):
        match = TOKEN_PATTERN.match(line.text, place)
        if match is None:
            raise CaseError(line.number, f"`{line.text[place:].strip()[:20]}` cannot be read")
        yield str(match.lastgroup), match.group(str(match.lastgroup))
        place = match.end()


def _read_strings(text: str) -> Iterator[str]:
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"', text):
        yield _unquote(match.group(), 0)


def _unquote(literal: str, line: int) -> str:
    try:
        return read_string_literal(literal, TextRange(0, len(literal))).plain
    except DiagnosticError as refused:
        raise CaseError(line, str(refused)) from None


def _parse_duration(text: str, line: int) -> int:
    try:
        return read_duration_ns(text)
    except ValueError as error:
        raise CaseError(line, str(error)) from None
