"""Which type an expression has where it stands, and what is wrong with it if none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from spanproof.query_lang.check.operands import (
    NUMERIC_KINDS,
    find_comparison_problems,
    find_equality_problems,
    infer_arithmetic_type,
)
from spanproof.query_lang.check.scope import ANY_TYPE, Scope, is_field, read_as_number
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v
from spanproof.query_lang.syntax.diagnostics import Diagnostic, suggest_names
from spanproof.query_lang.syntax.vocabulary import ValueType


class TypeChecker:
    """Infers types; problems go to `report`, and what has one is taken to be of any type from there on."""

    def __init__(self, report: Callable[[Diagnostic], None] = lambda diagnostic: None) -> None:
        self.report = report

    def report_problem(self, id_: str, message: str, at: s.TextRange, help_: str | None = None) -> ValueType:
        """Report a problem; return the type of what cannot be known."""
        self.report(Diagnostic(id_, message, at, help_))
        return ANY_TYPE

    def infer(self, node: s.Expression, scope: Scope) -> ValueType:
        """Return the type of `node` where it stands."""
        match node:
            case s.Number():
                return _infer_number_type(node)
            case s.Text():
                self.check_names(node, scope)
                return ValueType("text")
            case s.Name():
                return self._infer_name(node, scope)
            case s.Response():
                return self._infer_response(node, scope)
            case s.Within():
                if scope.row not in ("span", "call"):
                    return self.report_problem(
                        "misplaced", f"`{node.what}[…]` belongs in a condition about spans", node.at
                    )
                self.check_condition(node.where, scope.with_row(node.what))
                return ValueType("boolean")
            case s.SpanSelection() | s.CallSelection():
                return self.report_problem(
                    "misplaced", "a selection is no value", node.at, "write `count(…)` or `duration(…)` around it"
                )
            case s.Function():
                return self._infer_function(node, scope)
            case s.Compare():
                return self._infer_compare(node, scope)
            case s.OneOf():
                return self._infer_one_of(node, scope)
            case s.AnyOf() | s.AllOf():
                return self._infer_junction(node, scope)
            case s.Not():
                self.check_condition(node.term, scope)
                return ValueType("boolean")
            case s.Arithmetic():
                return self._infer_arithmetic(node, scope)
            case s.Negative():
                found = read_as_number(node.value, self.infer(node.value, scope), scope)
                if found.kind not in NUMERIC_KINDS:
                    return self.report_problem("type-mismatch", f"`-` does not go with {found.name}", node.at)
                return found
            case s.ValueRange():
                return self.report_problem("misplaced", "a range stands after `in`", node.at)

    def check_condition(self, node: s.Expression, scope: Scope) -> None:
        """Check that `node` is true or false."""
        found = self.infer(node, scope)
        if found.kind not in ("boolean", "any"):
            self.report_problem("not-a-condition", f"this is {found.name}, not a condition", node.at)
        elif isinstance(node, s.Name) and found.kind == "any" and scope.row:
            self.report_problem(
                "not-a-condition",
                f"`{node.text}` alone is no condition",
                node.at,
                f"write `exists({node.text})` or compare it with something",
            )

    def check_kind(self, node: s.Expression, scope: Scope, kind: v.ValueKind, what: str) -> None:
        """Check that `node` is one value of `kind`."""
        found = self.infer(node, scope)
        if found.is_many or found.kind not in (kind, "any"):
            hint = "write a unit, such as `50ms`" if kind == "duration" and found.kind == "number" else None
            self.report_problem("type-mismatch", f"{what} is a {kind}, and this is {found.name}", node.at, hint)

    def check_selection(self, node: s.Selection, scope: Scope) -> None:
        """Check the conditions and names in a selection."""
        if isinstance(node, s.CallSelection):
            if node.arrow == "->>":
                self.report_problem("misplaced", "`->>` belongs in a path; a call is `->`, a message `~>`", node.at)
            self.check_target(node.caller, scope, "span")
            self.check_target(node.callee, scope, "call")
        else:
            self.check_target(node, scope, "span")

    def check_target(self, node: s.SpanSelection, scope: Scope, row: v.RowKind) -> None:
        """Check one service with its condition, which is about `row`.

        Braces in an operation may be a route's own, as in ``"GET /orders/{id}"``: they need not be known.
        """
        if isinstance(node.service, s.Text):
            self.check_names(node.service, scope)
        if node.where is not None:
            self.check_condition(node.where, scope.with_row(row))

    def check_names(self, node: s.Text, scope: Scope) -> None:
        """Check that each ``{name}`` in a string is known."""
        for part in node.parts:
            if isinstance(part, s.Name) and part.text not in scope.variables and "response" not in part.text.split("."):
                self.report_problem(
                    "unknown-name",
                    f"`{part.text}` is not known here",
                    part.at,
                    suggest_names(part.text, scope.variables) or "a brace is written `\\{`",
                )

    # ## One method for each kind of node that needs more than a line

    def _infer_name(self, node: s.Name, scope: Scope) -> ValueType:
        if node.text in v.CONSTANTS:
            return ValueType("nothing" if node.text == "null" else "boolean")
        if scope.row is not None:
            known = v.FIELDS[scope.row]
            if node.text in known:
                return ValueType(known[node.text])
            if node.text in scope.variables:
                return scope.variables[node.text]
            if "." in node.text:
                return ANY_TYPE
            hint = suggest_names(node.text, [*known, *scope.variables])
            return self.report_problem(
                "unknown-field",
                f"a {scope.row} has no field `{node.text}`",
                node.at,
                hint or f"an attribute without a dot in its name is written `span.{node.text}`",
            )
        if node.text in scope.variables:
            return scope.variables[node.text]
        if node.text == "baseline":
            if not scope.baseline:
                return self.report_problem(
                    "no-baseline", "`baseline` needs a `compare baseline from …` in the same proof", node.at
                )
            return ANY_TYPE
        hint = suggest_names(node.text, [*scope.variables, "baseline", "response.status"])
        return self.report_problem(
            "unknown-name", f"`{node.text}` is not known here", node.at, hint or _suggest_service_usage(node.text)
        )

    def _infer_response(self, node: s.Response, scope: Scope) -> ValueType:
        if node.step is not None and node.step not in scope.requests:
            return self.report_problem(
                "unknown-name",
                f"no `when … as {node.step}` stands before this",
                node.at,
                suggest_names(node.step, scope.requests),
            )
        if node.part not in v.RESPONSE_PARTS:
            listed = ", ".join(f"`{part}`" for part in v.RESPONSE_PARTS)
            return self.report_problem(
                "unknown-field",
                f"a response has no `{node.part}`" if node.part else "this names no part of the response",
                node.at,
                suggest_names(node.part, v.RESPONSE_PARTS) or f"its parts are {listed}",
            )
        if node.part == "headers" and len(node.keys) != 1:
            return self.report_problem(
                "syntax", "one header is meant", node.at, 'write `response.headers["content-type"]`'
            )
        if node.keys and node.part not in ("headers", "json"):
            return self.report_problem("unknown-field", f"`response.{node.part}` has no parts", node.at)
        return ValueType(v.RESPONSE_PARTS[node.part])

    def _infer_function(self, node: s.Function, scope: Scope) -> ValueType:
        if node.name not in v.FUNCTIONS:
            return self.report_problem(
                "unknown-function",
                f"`{node.name}` is not a function",
                node.name_at,
                suggest_names(node.name, v.FUNCTIONS) or "functions are " + ", ".join(v.FUNCTIONS),
            )
        if node.name in v.SELECTION_FUNCTIONS or node.name in v.AGGREGATES:
            if scope.row is not None:
                return self.report_problem(
                    "misplaced",
                    f"`{node.name}(…)` looks at many spans; a condition is about one",
                    node.at,
                    f"write the field alone: `{node.name}`" if node.name in v.FIELDS[scope.row] else None,
                )
            aggregate = node.name in v.AGGREGATES
            return self._infer_aggregate(node, scope) if aggregate else self._infer_selection_function(node, scope)
        if len(node.arguments) != 1:
            return self.report_problem("arguments", f"`{node.name}` takes one argument", node.at)
        (argument,) = node.arguments
        if node.name == "exists":
            if scope.row is None or not isinstance(argument, s.Name):
                return self.report_problem(
                    "misplaced", "`exists` asks for an attribute or field, in a condition", node.at
                )
            self.infer(argument, scope)
            return ValueType("boolean")
        found = self.infer(argument, scope)
        if found.is_many:
            return self.report_problem(
                "type-mismatch", f"`{node.name}` takes one value, and these are many", argument.at
            )
        if found.kind not in ("text", "any"):
            return self.report_problem(
                "type-mismatch", f"`{node.name}` takes a text, and this is {found.name}", argument.at
            )
        if node.name in ("env", "json") and any(is_field(part, scope) for part in s.walk(argument)):
            return self.report_problem(
                "misplaced", f"`{node.name}` takes a value known before any span is seen", argument.at
            )
        return ValueType("number") if node.name == "len" else ANY_TYPE if node.name == "json" else ValueType("text")

    def _infer_selection_function(self, node: s.Function, scope: Scope) -> ValueType:
        wanted = 2 if node.name == "values" else 1
        if len(node.arguments) != wanted:
            usage = "values(SELECTION, field)" if wanted == 2 else f"{node.name}(SELECTION)"
            return self.report_problem("arguments", f"`{node.name}` is used as `{usage}`", node.at)
        first = node.arguments[0]
        yields = v.SELECTION_FUNCTIONS[node.name]
        if isinstance(first, s.Name) and first.text == "traces":
            if node.name not in v.TRACE_FUNCTIONS:
                return self.report_problem("misplaced", f"`{node.name}` cannot be asked of `traces`", first.at)
            return yields
        selection = to_selection(first)
        if selection is None:
            if isinstance(first, s.Function):
                return self.report_problem(
                    "type-mismatch", f"`{node.name}` takes a selection of spans or calls", first.at
                )
            return self.report_problem("not-a-selection", "this selects neither spans nor calls", first.at)
        if node.name in v.CALL_ONLY_FUNCTIONS and not isinstance(selection, s.CallSelection):
            return self.report_problem("not-a-call", f"`{node.name}` is asked of a call", first.at, "write `A -> B`")
        if node.name == "lag" and isinstance(selection, s.CallSelection) and selection.arrow != "~>":
            return self.report_problem("not-a-message", "`lag` is asked of a message", first.at, "write `A ~> B`")
        if node.name == "self_time" and isinstance(selection, s.CallSelection):
            return self.report_problem("not-a-service", "`self_time` is asked of spans, not of calls", first.at)
        if node.name == "critical" and not (isinstance(first, s.Name | s.Text)):
            return self.report_problem("not-a-service", "`critical` is asked of a service by its name", first.at)
        self.check_selection(selection, scope)
        if node.name == "values":
            row: v.RowKind = "call" if isinstance(selection, s.CallSelection) else "span"
            return replace(self.infer(node.arguments[1], scope.with_row(row)), is_many=True)
        return yields

    def _infer_aggregate(self, node: s.Function, scope: Scope) -> ValueType:
        arguments = node.arguments
        if node.name == "p":
            if len(arguments) != 2 or not isinstance(arguments[0], s.Number):
                return self.report_problem("arguments", "`p` is used as `p(99.9, duration(…))`", node.at)
            if arguments[0].unit or not 0 < arguments[0].value <= 100:
                return self.report_problem("out-of-range", "a percentile lies above 0 and up to 100", arguments[0].at)
            arguments = arguments[1:]
        if len(arguments) != 1:
            return self.report_problem("arguments", f"`{node.name}` takes one argument", node.at)
        found = self.infer(arguments[0], scope)
        if isinstance(arguments[0], s.Response) and arguments[0].step in scope.repeated:
            found = replace(found, is_many=True)
        if not found.is_many and found is not ANY_TYPE:  # ANY itself has been reported already
            return self.report_problem(
                "not-many",
                f"`{node.name}` needs many values, and this is one",
                arguments[0].at,
                "such as `duration(…)`, `attempts(…)` or `values(…)`",
            )
        if found.kind in ("text", "boolean") and node.name != "distinct":
            return self.report_problem(
                "type-mismatch", f"`{node.name}` needs numbers, and these are not", arguments[0].at
            )
        return (
            ValueType("number")
            if node.name == "distinct"
            else replace(read_as_number(arguments[0], found, scope), is_many=False)
        )

    def _infer_compare(self, node: s.Compare, scope: Scope) -> ValueType:
        left, right = self._infer_sides(node, scope)
        for fault in find_comparison_problems(node, left, right):
            self.report(fault)
        return ValueType("boolean")

    def _infer_sides(self, node: s.Compare, scope: Scope) -> tuple[ValueType, ValueType]:
        """Type both sides; a word beside `kind` or `status` is one of their values.

        ``baseline`` is of the type of the other side.
        """
        for side, other in ((node.left, node.right), (node.right, node.left)):
            if scope.baseline and mentions_baseline(side) and not mentions_baseline(other):
                beside = self.infer(other, scope)
                inner = replace(scope, variables={**scope.variables, "baseline": replace(beside, is_many=False)})
                found = replace(self.infer(side, inner), is_many=beside.is_many)
                return (found, beside) if side is node.left else (beside, found)
        if isinstance(node.right, s.Name) and isinstance(node.left, s.Name):
            left = self.infer(node.left, scope)
            if left.kind in v.ENUMERATIONS and node.right.text not in scope.variables:
                self._check_word(node.right, left)
                return left, left
        return self.infer(node.left, scope), self.infer(node.right, scope)

    def _check_word(self, node: s.Name, type_: ValueType) -> None:
        words = v.ENUMERATIONS[type_.kind]
        if node.text not in words:
            listed = ", ".join(f"`{word}`" for word in words)
            hint = suggest_names(node.text, words)
            self.report_problem(
                "unknown-word", f"`{node.text}` is not {type_.name}", node.at, hint or f"it is one of {listed}"
            )

    def _infer_one_of(self, node: s.OneOf, scope: Scope) -> ValueType:
        value = self.infer(node.value, scope)
        if not node.options:
            self.report_problem("incomplete", "nothing is in an empty list", node.at)
        for option in node.options:
            if isinstance(option, s.ValueRange):
                low, high = self.infer(option.low, scope), self.infer(option.high, scope)
                if option.low.value > option.high.value:
                    self.report_problem(
                        "out-of-range", "this range is empty: its low end is above its high end", option.at
                    )
                found = low if low == high else ANY_TYPE
            elif isinstance(option, s.Name) and value.kind in v.ENUMERATIONS:
                self._check_word(option, value)
                continue
            else:
                found = self.infer(option, scope)
            for fault in find_equality_problems(s.Compare("==", node.value, option, option.at), value, found):
                self.report(fault)
        return ValueType("boolean")

    def _infer_junction(self, node: s.AnyOf | s.AllOf, scope: Scope) -> ValueType:
        if scope.row is None and isinstance(node, s.AnyOf):
            found = [self.infer(term, scope) for term in node.terms]
            if all(type_.kind in ("text", "any", "number") for type_ in found):
                return found[0] if len(set(found)) == 1 else ANY_TYPE
        for term in node.terms:
            self.check_condition(term, scope)
        return ValueType("boolean")

    def _infer_arithmetic(self, node: s.Arithmetic, scope: Scope) -> ValueType:
        left, right = (read_as_number(side, self.infer(side, scope), scope) for side in (node.left, node.right))
        found = infer_arithmetic_type(node, left, right)
        if isinstance(found, ValueType):
            return found
        self.report(found)
        return ANY_TYPE


def to_selection(node: s.Expression) -> s.Selection | None:
    """Return `node` as a selection: a bare name or string is a service."""
    if isinstance(node, s.SpanSelection | s.CallSelection):
        return node
    if isinstance(node, s.Name | s.Text):
        return s.SpanSelection("entry", node, None, None, node.at)
    return None


def mentions_baseline(node: s.Expression | s.Claim) -> bool:
    """Tell whether `node` speaks of the baseline traces."""
    return any(isinstance(part, s.Name) and part.text == "baseline" for part in s.walk(node))


def _infer_number_type(node: s.Number) -> ValueType:
    kinds: Mapping[str, v.ValueKind] = {"": "number", "ns": "duration", "%": "fraction", "pp": "points", "/s": "rate"}
    return ValueType(kinds[node.unit])


def _suggest_service_usage(name: str) -> str:
    return f'a service is asked about as in `duration({name})`; a text is written "{name}"'
