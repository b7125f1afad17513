"""Conversion of test definitions to proofs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import Struct, field

from spanproof.query_lang.check.checker import check_file
from spanproof.query_lang.syntax.diagnostics import Diagnostic
from spanproof.query_lang.syntax.formatter import format_file
from spanproof.query_lang.syntax.literals import DiagnosticError
from spanproof.query_lang.syntax.nodes import TextRange
from spanproof.query_lang.syntax.parser import parse_file
from spanproof.query_lang.syntax.printer import INDENT, MAX_LINE_WIDTH, format_string, is_plain_name, make_safe_name
from spanproof.query_lang.tracetest import expressions as e
from spanproof.query_lang.tracetest.claims import resolve_response_attribute, write_claims
from spanproof.query_lang.tracetest.definition import YamlPart, read_yaml_documents
from spanproof.query_lang.tracetest.printer import ProofNames
from spanproof.query_lang.tracetest.requests import write_request
from spanproof.query_lang.tracetest.selectors import SpanSelector, read_selector
from spanproof.query_lang.tracetest.unsupported import NO_EQUIVALENT, make_malformed_error, make_no_equivalent_error
from spanproof.query_lang.tracetest.values import ComparisonWriter

TEST_FIELDS: Final = (
    "id", "name", "description", "version", "createdAt", "trigger", "specs", "outputs", "pollingProfile",
    "skipTraceCollection",
)  # fmt: skip
_STRING: Final = re.compile(r'"(?:\\.|[^"\\])*"')
FILE_START: Final = TextRange(0, 1)


class ConvertedFile(Struct, frozen=True):
    """Result of a conversion: the text of a proof file, or the problems in the order of the source."""

    text: str | None
    diagnostics: tuple[Diagnostic, ...]


def convert_tests(text: str) -> ConvertedFile:
    """Convert a file of definitions to an equivalent proof file, or return what has no equivalent."""
    converter = _TestConverter()
    proofs: list[str] = []
    with converter.collect_errors():
        for definition in read_yaml_documents(text):
            with converter.collect_errors():
                proofs.append("\n".join(converter.write_test(definition)) + "\n")
        if not proofs and not converter.diagnostics:
            raise make_malformed_error("the file has no definition", FILE_START)
    if not converter.diagnostics:
        lets = [
            f'let {variable} = env("{name}")\n' for name, variable in sorted(converter.names.external_variables.items())
        ]
        blank_line = ["\n"] if lets else []
        file = parse_file("".join([*lets, *blank_line, "\n".join(proofs)]), "")
        problems = (*file.diagnostics, *check_file(file))
        if not problems:
            return ConvertedFile(format_file(file), ())
        # problems that Tracetest would find only when it sends the request
        converter.diagnostics += [
            make_malformed_error(problem.message, FILE_START, problem.help).diagnostic for problem in problems
        ]
    return ConvertedFile(None, tuple(sorted(converter.diagnostics, key=lambda problem: problem.at.start)))


class _TestConverter(Struct):
    """Converter of the tests of a file. Collects problems in ``diagnostics``."""

    names: ProofNames = field(default_factory=ProofNames)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    @contextmanager
    def collect_errors(self) -> Iterator[None]:
        """Add the diagnostic of an error in the block, and continue after the block."""
        try:
            yield
        except DiagnosticError as error:
            self.diagnostics.append(error.diagnostic)
        except RecursionError:
            self.diagnostics.append(make_malformed_error("this is nested too deeply", FILE_START).diagnostic)

    def write_test(self, definition: YamlPart) -> list[str]:
        """Return the lines of the proof that is equivalent to a test. Raises DiagnosticError."""
        resource = definition.read_fields()
        type_ = resource.get("type")
        if type_ is None or "spec" not in resource:
            raise make_malformed_error("a definition has a `type` and a `spec`", definition.at)
        if type_.read_text() != "Test":
            if type_.read_text() in NO_EQUIVALENT:
                raise make_no_equivalent_error(type_.read_text(), type_.at)
            raise make_malformed_error(f"`{type_.read_text()}` is not a type of definition", type_.at)
        test = definition.read_fields("type", "spec")["spec"].read_fields(*TEST_FIELDS)
        if "trigger" not in test:
            raise make_malformed_error("`trigger` is missing here", definition.at)
        trigger, lines = "", list[str]()
        self.names.outputs.clear()
        with self.collect_errors():
            trigger, lines = write_request(test["trigger"], self.names)
        for output in test["outputs"].read_items() if "outputs" in test else ():
            with self.collect_errors():
                lines.append(self._write_output(output))
        if "pollingProfile" in test:
            profile = _join_lines(test["pollingProfile"].read_text())
            lines += [f"# Tracetest waits as its polling profile {profile} defines: settle within …"]
        without_spans = "skipTraceCollection" in test and test["skipTraceCollection"].is_true()
        for spec in test["specs"].read_items() if "specs" in test else ():
            with self.collect_errors():
                lines += ["", *self._write_spec(spec, trigger, without_spans=without_spans)]
        if not any(line.startswith("expect ") for line in lines):
            if without_spans:
                raise make_no_equivalent_error(
                    "skipTraceCollection with spans", test["skipTraceCollection"].at, "skipTraceCollection"
                )
            lines += ["", 'expect some span as "a trace arrived"']
        comment = _join_lines(test["description"].read_text()) if "description" in test else ""
        name = _join_lines(test["name"].read_text()) if "name" in test else ""
        id_ = test["id"].read_text() if "id" in test else ""
        tags = f" [{id_}]" if is_plain_name(id_) and "." not in id_ else ""
        return [
            *([f"# {comment}"] if comment else []),
            f"proof {format_string(name or id_ or 'a test')}{tags} {{",
            *_indent(lines),
            "}",
        ]

    def _write_output(self, output: YamlPart) -> str:
        """Return the `let` for an output of a test."""
        fields = output.read_fields("name", "selector", "value")
        name, value = (_require_field(fields, field_name, output) for field_name in ("name", "value"))
        selector = fields.get("selector")
        selectors = read_selector(selector.read_text(), selector.locate_part) if selector else ()
        if not selectors or any(each.matches_service_spans for each in selectors):
            raise make_no_equivalent_error("output of a span", (selector or output).at, f"output {name.read_text()}")
        expression = e.read_expression(value.read_text(), value.locate_part)
        written = ComparisonWriter(self.names, resolve_response_attribute).write_value(expression).text
        self.names.outputs.add(name.read_text())
        return f"let {make_safe_name(name.read_text())} = {written}"

    def _write_spec(self, spec: YamlPart, trigger: str, *, without_spans: bool) -> list[str]:
        """Return the claims of a spec, with its name as label or comment."""
        fields = spec.read_fields("name", "selector", "assertions")
        selectors: tuple[SpanSelector, ...] = ()
        with self.collect_errors():
            selector = fields.get("selector")
            selectors = (
                read_selector(selector.read_text(), selector.locate_part) if selector else (SpanSelector((), spec.at),)
            )
        statements = []
        for assertion in _require_field(fields, "assertions", spec).read_items():
            with self.collect_errors():
                statements.append(e.read_assertion(assertion.read_text(), assertion.locate_part))
        if without_spans and any(each.matches_service_spans for each in selectors):
            raise make_no_equivalent_error("skipTraceCollection with spans", spec.at, "skipTraceCollection")
        claims = write_claims(selectors, statements, self.names, trigger) if selectors else []
        name = _join_lines(fields["name"].read_text()) if "name" in fields else ""
        if selectors and statements and not claims:
            return [f"# {name or 'The request was sent'}: without that, the proof is an error"]
        if name and len(claims) == 1:
            return _wrap_claim(f"expect {claims[0]} as {format_string(name)}")
        comment = [f"# {name}"] if name else []
        return [*comment, *(line for claim in claims for line in _wrap_claim(f"expect {claim}"))]


def _require_field(fields: dict[str, YamlPart], name: str, owner: YamlPart) -> YamlPart:
    if name not in fields:
        raise make_malformed_error(f"`{name}` is missing here", owner.at)
    return fields[name]


def _wrap_claim(claim: str) -> list[str]:
    """Return a claim as lines. A long claim has its first condition on a separate line."""
    masked = _STRING.sub(lambda match: "x" * len(match.group()), claim)
    start, end = masked.find("["), masked.find("] has ")
    if len(claim) <= MAX_LINE_WIDTH or not 0 <= start < end:
        return [claim]
    return [claim[: start + 1], INDENT + claim[start + 1 : end], claim[end:]]


def _join_lines(text: str) -> str:
    return " ".join(text.split())


def _indent(lines: list[str]) -> list[str]:
    return [INDENT + line if line else "" for line in lines]
