"""Conversion of Tracetest's expressions to values and comparisons."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from spanproof.query_lang.syntax.literals import read_duration_ns
from spanproof.query_lang.syntax.printer import format_duration_ns, format_string
from spanproof.query_lang.tracetest import expressions as e
from spanproof.query_lang.tracetest.printer import ProofNames, write_duration, write_interpolated
from spanproof.query_lang.tracetest.targets import ENUM_WORDS
from spanproof.query_lang.tracetest.unsupported import NO_EQUIVALENT, make_malformed_error, make_no_equivalent_error

WrittenKind: TypeAlias = Literal["number", "duration", "text", "kind", "status", "any", "json"]
PROOF_OPERATORS: Final[dict[e.Comparator, str]] = {"=": "==", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
ORDERING_COMPARATORS: Final = ("<", "<=", ">", ">=")


class WrittenValue(Struct, frozen=True):
    """Value in the syntax of proofs. Kind ``any`` is an attribute, ``json`` a part of JSON."""

    text: str
    kind: WrittenKind
    source_term: e.Term | None = None


AttributeResolver: TypeAlias = Callable[[e.TracetestAttribute, tuple[e.TracetestPipe, ...]], WrittenValue]


class ComparisonWriter:
    """Writer of comparisons. `resolve` converts their attributes."""

    def __init__(self, names: ProofNames, resolve: AttributeResolver) -> None:
        self.names = names
        self.resolve = resolve

    def write_comparison(self, statement: e.TracetestAssertion) -> str:
        """Return a comparison. Raises DiagnosticError."""
        left, right = self.write_value(statement.left), self.write_value(statement.right)
        if statement.comparator == "contains":
            searched = self._write_searched_text(left, statement.left)
            return f"{searched} contains {self._write_search_text(right, statement.right)}"
        if statement.comparator == "not-contains":
            return f"{self._write_searched_text(left, statement.left)} !~ {self._write_pattern(statement.right)}"
        operator = PROOF_OPERATORS[statement.comparator]
        if left.kind in ENUM_WORDS:
            return f"{left.text} {operator} {_write_enum_word(left, right, statement)}"
        is_empty = isinstance(right.source_term, e.TracetestText) and right.source_term.plain in ("[]", "{}")
        if left.kind == "json" and is_empty and statement.comparator in ("=", "!="):
            return f"len({left.text}) {'==' if statement.comparator == '=' else '>'} 0"
        ordered = statement.comparator in ORDERING_COMPARATORS
        return f"{left.text} {operator} {self._write_right_side(left, right, statement.right, ordered=ordered)}"

    def write_value(self, expression: e.TracetestExpression) -> WrittenValue:
        """Return an expression as a value. Raises DiagnosticError."""
        first = expression.first
        if not expression.rest:
            return self._write_term(first, expression.pipes)
        if expression.pipes:
            raise make_no_equivalent_error(
                _find_construct_name(expression.pipes[0]), expression.pipes[0].at, expression.pipes[0].name
            )
        first_operand = self._write_operand(first)
        text, kind = first_operand.text, first_operand.kind
        for number, (operator, term) in enumerate(expression.rest):
            operand = self._write_operand(term)
            text = f"({text}) {operator} {operand.text}" if number else f"{text} {operator} {operand.text}"
            kind = "duration" if "duration" in (kind, operand.kind) else "number"
        return WrittenValue(text, kind)

    def _write_operand(self, term: e.Term) -> WrittenValue:
        """Return a term that is an operand of a calculation."""
        operand = self._write_term(term, ())
        if isinstance(term, e.TracetestVariable):
            return WrittenValue(f"json({operand.text})", "number")
        if isinstance(term, e.TracetestText) or operand.kind in ("text", *ENUM_WORDS):
            raise make_malformed_error("a calculation needs numbers, not a text", term.at)
        return operand

    def _write_term(self, term: e.Term, pipes: tuple[e.TracetestPipe, ...]) -> WrittenValue:
        match term:
            case e.TracetestAttribute():
                return self.resolve(term, pipes)
            case e.TracetestCall():
                raise make_no_equivalent_error("function", term.at, f"{term.name}()")
            case e.TracetestArray():
                raise make_no_equivalent_error("array", term.at, "[…]")
        if pipes:
            raise make_no_equivalent_error(_find_construct_name(pipes[0]), pipes[0].at, pipes[0].name)
        match term:
            case e.TracetestNumber():
                return WrittenValue(term.text, "number", term)
            case e.TracetestDuration():
                return WrittenValue(write_duration(term.text), "duration", term)
            case e.TracetestVariable():
                return WrittenValue(self.names.use_variable(term.name), "text", term)
        for part in term.parts:
            if isinstance(part, e.TracetestExpression) and any(
                isinstance(each, e.TracetestAttribute) for each in part.terms
            ):
                raise make_no_equivalent_error("attribute in a text", part.at)
        return WrittenValue(write_interpolated(term, self.names), "text", term)

    def _write_searched_text(self, left: WrittenValue, expression: e.TracetestExpression) -> str:
        if left.kind not in ("any", "json", "text"):
            raise make_no_equivalent_error("contains after a calculation", expression.at, "contains")
        return left.text

    def _write_search_text(self, right: WrittenValue, expression: e.TracetestExpression) -> str:
        """Return the text to search for."""
        if isinstance(right.source_term, e.TracetestText):
            if right.source_term.plain is not None and _is_json_text(right.source_term.plain):
                raise make_no_equivalent_error("JSON contains", expression.at, "contains JSON")
            return right.text
        if isinstance(right.source_term, e.TracetestNumber | e.TracetestDuration):
            return format_string(right.source_term.text)
        return right.text

    def _write_pattern(self, expression: e.TracetestExpression) -> str:
        """Return the regular expression that matches a text literally."""
        term = expression.first
        if not isinstance(term, e.TracetestText) or term.plain is None or expression.rest:
            raise make_no_equivalent_error("not-contains of a variable", expression.at, "not-contains")
        return format_string(re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", term.plain))

    def _write_right_side(
        self, left: WrittenValue, right: WrittenValue, expression: e.TracetestExpression, *, ordered: bool
    ) -> str:
        """Return the right side in the type of the left side."""
        term = right.source_term
        if left.kind == "duration":
            if right.kind == "duration":
                return right.text
            digits = (
                term.plain
                if isinstance(term, e.TracetestText)
                else term.text
                if isinstance(term, e.TracetestNumber)
                else None
            )
            if digits is None or not re.fullmatch(r"\d+", digits):
                raise make_no_equivalent_error("duration beside another value", expression.at)
            return format_duration_ns(int(digits))
        if left.kind == "text" and not ordered:
            return format_string(term.text) if isinstance(term, e.TracetestNumber | e.TracetestDuration) else right.text
        if isinstance(term, e.TracetestDuration):
            return str(read_duration_ns(term.text))
        if isinstance(term, e.TracetestText) and (ordered or left.kind == "number"):
            if term.plain is None or not re.fullmatch(r"-?\d+", term.plain):
                raise make_no_equivalent_error("order of texts", expression.at)
            return term.plain
        if isinstance(term, e.TracetestVariable) and (ordered or left.kind == "number"):
            return f"json({right.text})"
        return right.text


def _write_enum_word(left: WrittenValue, right: WrittenValue, statement: e.TracetestAssertion) -> str:
    words = ENUM_WORDS[left.kind]
    text = right.source_term.plain if isinstance(right.source_term, e.TracetestText) else None
    if text not in words or statement.comparator in ORDERING_COMPARATORS:
        raise make_malformed_error(f"this is one of {', '.join(sorted(words))}", statement.right.at)
    return words[text]


def _find_construct_name(pipe: e.TracetestPipe) -> str:
    """Return the construct of a filter. Raises DiagnosticError if Tracetest has no such filter."""
    if pipe.name == "json_path":
        return "json_path of an attribute"
    if pipe.name == "length":
        return "json_path beside other filters"
    if pipe.name not in NO_EQUIVALENT:
        raise make_malformed_error(f"`{pipe.name}` is not a filter", pipe.at)
    return pipe.name


def _is_json_text(text: str) -> bool:
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def make_pipe_error(pipe: e.TracetestPipe) -> Exception:
    """Return the error for a filter that has no equivalent in its position."""
    return make_no_equivalent_error(_find_construct_name(pipe), pipe.at, pipe.name)
