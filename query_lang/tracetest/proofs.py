"""Definitions of tests as proofs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from spanproof.query_lang.check import check_file
from spanproof.query_lang.diagnostics import Diagnostic
from spanproof.query_lang.format import format_file
from spanproof.query_lang.literals import Refused
from spanproof.query_lang.parse import parse_file
from spanproof.query_lang.syntax import Source
from spanproof.query_lang.tracetest import expressions as e
from spanproof.query_lang.tracetest.claims import of_response, write_claims
from spanproof.query_lang.tracetest.constructs import NO_EQUIVALENT, malformed, refuse
from spanproof.query_lang.tracetest.definition import Definition, read_definitions
from spanproof.query_lang.tracetest.requests import write_request
from spanproof.query_lang.tracetest.selectors import SpanSelector, read_selector
from spanproof.query_lang.tracetest.values import Comparer
from spanproof.query_lang.tracetest.writing import Names
from spanproof.query_lang.writing import INDENT, WIDTH, is_plain, safe_name, write_text

OF_TEST: Final = (
    "id", "name", "description", "version", "createdAt", "trigger", "specs", "outputs", "pollingProfile",
    "skipTraceCollection",
)  # fmt: skip
_STRING: Final = re.compile(r'"(?:\\.|[^"\\])*"')
START: Final = Source(0, 1)


@dataclass(frozen=True, slots=True)
class Turned:
    """What became of a file: a proof file, or why not, in the order of its text."""

    text: str | None
    diagnostics: tuple[Diagnostic, ...]


def turn(text: str) -> Turned:
    """Turn a file of definitions into a proof file that says the same, or say what has no equivalent."""
    turning = _Turning()
    proofs: list[str] = []
    with turning.collecting():
        for definition in read_definitions(text):
            with turning.collecting():
                proofs.append("\n".join(turning.write_test(definition)) + "\n")
        if not proofs and not turning.found:
            raise malformed("there is no definition here", START)
    if not turning.found:
        lets = [f'let {called} = env("{name}")\n' for name, called in sorted(turning.names.outside.items())]
        blank = ["\n"] if lets else []
        file = parse_file("".join([*lets, *blank, "\n".join(proofs)]), "")
        wrong = (*file.diagnostics, *check_file(file))
        if not wrong:
            return Turned(format_file(file), ())
        # what Tracetest would find out only when it sends the request
        turning.found += [malformed(each.message, START, each.help).diagnostic for each in wrong]
    return Turned(None, tuple(sorted(turning.found, key=lambda each: each.at.start)))


@dataclass(slots=True)
class _Turning:
    """Turns the tests of a file, and keeps what is in the way of that in ``found``."""

    names: Names = field(default_factory=Names)
    found: list[Diagnostic] = field(default_factory=list)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep what is refused, and go on after it."""
        try:
            yield
        except Refused as refused:
            self.found.append(refused.diagnostic)
        except RecursionError:
            self.found.append(malformed("this is nested too deeply", START).diagnostic)

    def write_test(self, definition: Definition) -> list[str]:
        """Return the lines of the proof that says what a test does. Raises Refused."""
        resource = definition.fields()
        type_ = resource.get("type")
        if type_ is None or "spec" not in resource:
            raise malformed("a definition has a `type` and a `spec`", definition.at)
        if type_.text() != "Test":
            if type_.text() in NO_EQUIVALENT:
                raise refuse(type_.text(), type_.at)
            raise malformed(f"`{type_.text()}` is no type of definition", type_.at)
        test = definition.fields("type", "spec")["spec"].fields(*OF_TEST)
        if "trigger" not in test:
            raise malformed("`trigger` is missing here", definition.at)
        trigger, lines = "", list[str]()
        self.names.outputs.clear()
        with self.collecting():
            trigger, lines = write_request(test["trigger"], self.names)
        for output in test["outputs"].items() if "outputs" in test else ():
            with self.collecting():
                lines.append(self._write_output(output))
        if "pollingProfile" in test:
            profile = _join_lines(test["pollingProfile"].text())
            lines += [f"# Tracetest waits as its polling profile {profile} says: settle within …"]
        without_spans = "skipTraceCollection" in test and test["skipTraceCollection"].is_true()
        for spec in test["specs"].items() if "specs" in test else ():
            with self.collecting():
                lines += ["", *self._write_spec(spec, trigger, without_spans=without_spans)]
        if not any(line.startswith("expect ") for line in lines):
            if without_spans:
                raise refuse("skipTraceCollection with spans", test["skipTraceCollection"].at, "skipTraceCollection")
            lines += ["", 'expect some span as "a trace came"']
        comment = _join_lines(test["description"].text()) if "description" in test else ""
        name = _join_lines(test["name"].text()) if "name" in test else ""
        id_ = test["id"].text() if "id" in test else ""
        tags = f" [{id_}]" if is_plain(id_) and "." not in id_ else ""
        return [
            *([f"# {comment}"] if comment else []),
            f"proof {write_text(name or id_ or 'a test')}{tags} {{",
            *_indent(lines),
            "}",
        ]

    def _write_output(self, output: Definition) -> str:
        """Return the `let` that keeps what a test gives to others."""
        fields = output.fields("name", "selector", "value")
        name, value = (_required(fields, each, output) for each in ("name", "value"))
        selector = fields.get("selector")
        selectors = read_selector(selector.text(), selector.part) if selector else ()
        if not selectors or any(each.takes_others for each in selectors):
            raise refuse("output of a span", (selector or output).at, f"output {name.text()}")
        expression = e.read_expression(value.text(), value.part)
        written = Comparer(self.names, of_response).value(expression).text
        self.names.outputs.add(name.text())
        return f"let {safe_name(name.text())} = {written}"

    def _write_spec(self, spec: Definition, trigger: str, *, without_spans: bool) -> list[str]:
        """Return the claims of a spec under its name."""
        fields = spec.fields("name", "selector", "assertions")
        selectors: tuple[SpanSelector, ...] = ()
        with self.collecting():
            selector = fields.get("selector")
            selectors = read_selector(selector.text(), selector.part) if selector else (SpanSelector((), spec.at),)
        statements = []
        for assertion in _required(fields, "assertions", spec).items():
            with self.collecting():
                statements.append(e.read_statement(assertion.text(), assertion.part))
        if without_spans and any(each.takes_others for each in selectors):
            raise refuse("skipTraceCollection with spans", spec.at, "skipTraceCollection")
        claims = write_claims(selectors, statements, self.names, trigger) if selectors else []
        name = _join_lines(fields["name"].text()) if "name" in fields else ""
        if selectors and statements and not claims:
            return [f"# {name or 'The request was sent'}: without that, the proof is an error"]
        if name and len(claims) == 1:
            return _break(f"expect {claims[0]} as {write_text(name)}")
        comment = [f"# {name}"] if name else []
        return [*comment, *(line for claim in claims for line in _break(f"expect {claim}"))]


def _required(fields: dict[str, Definition], name: str, whole: Definition) -> Definition:
    if name not in fields:
        raise malformed(f"`{name}` is missing here", whole.at)
    return fields[name]


def _break(claim: str) -> list[str]:
    """Return a claim in lines: a long one with its first condition on a line of its own."""
    masked = _STRING.sub(lambda match: "x" * len(match.group()), claim)
    inner, outer = masked.find("["), masked.find("] has ")
    if len(claim) <= WIDTH or not 0 <= inner < outer:
        return [claim]
    return [claim[: inner + 1], INDENT + claim[inner + 1 : outer], claim[outer:]]


def _join_lines(text: str) -> str:
    return " ".join(text.split())


def _indent(lines: list[str]) -> list[str]:
    return [INDENT + line if line else "" for line in lines]
