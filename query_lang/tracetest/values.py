"""Expressions of Tracetest's as values, and comparisons of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from spanproof.query_lang.literals import read_duration_ns
from spanproof.query_lang.tracetest import expressions as e
from spanproof.query_lang.tracetest.constructs import NO_EQUIVALENT, malformed, refuse
from spanproof.query_lang.tracetest.targets import WORDS
from spanproof.query_lang.tracetest.writing import Names, write_duration, write_filled
from spanproof.query_lang.writing import write_ns, write_text

Kind: TypeAlias = Literal["number", "duration", "text", "kind", "status", "any", "json"]
COMPARATORS: Final[dict[e.Comparator, str]] = {"=": "==", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
ORDERED: Final = ("<", "<=", ">", ">=")


@dataclass(frozen=True, slots=True)
class Value:
    """A value as a proof writes it. ``any`` is an attribute, ``json`` a part of JSON; ``term`` is what it was."""

    text: str
    kind: Kind
    term: e.Term | None = None


Resolve: TypeAlias = Callable[[e.Attribute, tuple[e.Pipe, ...]], Value]


class Comparer:
    """Writes comparisons whose attributes are what `resolve` says."""

    def __init__(self, names: Names, resolve: Resolve) -> None:
        self.names = names
        self.resolve = resolve

    def compare(self, statement: e.Statement) -> str:
        """Return a comparison. Raises Refused."""
        left, right = self.value(statement.left), self.value(statement.right)
        if statement.comparator == "contains":
            return f"{self._searched(left, statement.left)} contains {self._text(right, statement.right)}"
        if statement.comparator == "not-contains":
            return f"{self._searched(left, statement.left)} !~ {self._pattern(statement.right)}"
        operator = COMPARATORS[statement.comparator]
        if left.kind in WORDS:
            return f"{left.text} {operator} {_word(left, right, statement)}"
        of_nothing = isinstance(right.term, e.Text) and right.term.plain in ("[]", "{}")
        if left.kind == "json" and of_nothing and statement.comparator in ("=", "!="):
            return f"len({left.text}) {'==' if statement.comparator == '=' else '>'} 0"
        ordered = statement.comparator in ORDERED
        return f"{left.text} {operator} {self._beside(left, right, statement.right, ordered=ordered)}"

    def value(self, expression: e.Expression) -> Value:
        """Return an expression as a value. Raises Refused."""
        first = expression.first
        if not expression.rest:
            return self._term(first, expression.pipes)
        if expression.pipes:
            raise refuse(_known(expression.pipes[0]), expression.pipes[0].at, expression.pipes[0].name)
        found = self._operand(first)
        text, kind = found.text, found.kind
        for number, (operator, term) in enumerate(expression.rest):
            operand = self._operand(term)
            text = f"({text}) {operator} {operand.text}" if number else f"{text} {operator} {operand.text}"
            kind = "duration" if "duration" in (kind, operand.kind) else "number"
        return Value(text, kind)

    def _operand(self, term: e.Term) -> Value:
        """Return a term that is calculated with."""
        found = self._term(term, ())
        if isinstance(term, e.Variable):
            return Value(f"json({found.text})", "number")
        if isinstance(term, e.Text) or found.kind in ("text", *WORDS):
            raise malformed("a text is not calculated with", term.at)
        return found

    def _term(self, term: e.Term, pipes: tuple[e.Pipe, ...]) -> Value:
        match term:
            case e.Attribute():
                return self.resolve(term, pipes)
            case e.Call():
                raise refuse("function", term.at, f"{term.name}()")
            case e.Array():
                raise refuse("array", term.at, "[…]")
        if pipes:
            raise refuse(_known(pipes[0]), pipes[0].at, pipes[0].name)
        match term:
            case e.Number():
                return Value(term.text, "number", term)
            case e.Duration():
                return Value(write_duration(term.text), "duration", term)
            case e.Variable():
                return Value(self.names.use(term.name), "text", term)
        for part in term.parts:
            if isinstance(part, e.Expression) and any(isinstance(each, e.Attribute) for each in part.terms):
                raise refuse("attribute in a text", part.at)
        return Value(write_filled(term, self.names), "text", term)

    def _searched(self, left: Value, expression: e.Expression) -> str:
        if left.kind not in ("any", "json", "text"):
            raise refuse("contains after a calculation", expression.at, "contains")
        return left.text

    def _text(self, right: Value, expression: e.Expression) -> str:
        """Return what a text is searched for."""
        if isinstance(right.term, e.Text):
            if right.term.plain is not None and _is_json(right.term.plain):
                raise refuse("JSON contains", expression.at, "contains JSON")
            return right.text
        if isinstance(right.term, e.Number | e.Duration):
            return write_text(right.term.text)
        return right.text

    def _pattern(self, expression: e.Expression) -> str:
        """Return the regular expression that finds a text as it stands."""
        term = expression.first
        if not isinstance(term, e.Text) or term.plain is None or expression.rest:
            raise refuse("not-contains of a variable", expression.at, "not-contains")
        return write_text(re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", term.plain))

    def _beside(self, left: Value, right: Value, expression: e.Expression, *, ordered: bool) -> str:
        """Return the right side as the left one wants it."""
        term = right.term
        if left.kind == "duration":
            if right.kind == "duration":
                return right.text
            digits = term.plain if isinstance(term, e.Text) else term.text if isinstance(term, e.Number) else None
            if digits is None or not re.fullmatch(r"\d+", digits):
                raise refuse("duration beside another value", expression.at)
            return write_ns(int(digits))
        if left.kind == "text" and not ordered:
            return write_text(term.text) if isinstance(term, e.Number | e.Duration) else right.text
        if isinstance(term, e.Duration):
            return str(read_duration_ns(term.text))
        if isinstance(term, e.Text) and (ordered or left.kind == "number"):
            if term.plain is None or not re.fullmatch(r"-?\d+", term.plain):
                raise refuse("order of texts", expression.at)
            return term.plain
        if isinstance(term, e.Variable) and (ordered or left.kind == "number"):
            return f"json({right.text})"
        return right.text


def _word(left: Value, right: Value, statement: e.Statement) -> str:
    words = WORDS[left.kind]
    text = right.term.plain if isinstance(right.term, e.Text) else None
    if text not in words or statement.comparator in ORDERED:
        raise malformed(f"this is one of {', '.join(sorted(words))}", statement.right.at)
    return words[text]


def _known(pipe: e.Pipe) -> str:
    """Return the name of a filter. Raises Refused where Tracetest has none of that name."""
    if pipe.name == "json_path":
        return "json_path of an attribute"
    if pipe.name == "length":
        return "json_path beside other filters"
    if pipe.name not in NO_EQUIVALENT:
        raise malformed(f"`{pipe.name}` is no filter", pipe.at)
    return pipe.name


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def refuse_pipe(pipe: e.Pipe) -> Exception:
    """Return the error for a filter that has no equivalent where it stands."""
    return refuse(_known(pipe), pipe.at, pipe.name)
