"""Type inference of expressions, with the problems of ill-typed ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

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
    """Type checker. Passes problems to `report`. An expression with a problem has the type `ANY_TYPE`."""

    def __init__(self, report: Callable[[Diagnostic], None] = lambda diagnostic: None) -> None:
        self.report = report

    def report_problem(self, id_: str, message: str, at: s.TextRange, help_: str | None = None) -> ValueType:
        """Report a problem. Return the unknown type."""
        self.report(Diagnostic(id_, message, at, help_))
        return ANY_TYPE

    def infer(self, node: s.Expression, scope: Scope) -> ValueType:
        """Return the type of `node` in `scope`."""
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
                return self._infer_within(node, scope)
            case s.SpanSelection() | s.CallSelection():
                return self.report_problem(
                    "misplaced", "a selection is not a value", node.at, "write `count(…)` or `duration(…)` around it"
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
                type_ = read_as_number(node.value, self.infer(node.value, scope), scope)
                if type_.kind not in NUMERIC_KINDS:
                    return self.report_problem("type-mismatch", f"`-` cannot be applied to {type_.name}", node.at)
                return type_
            case s.ValueRange():
                return self.report_problem("misplaced", "a range is allowed only after `in`", node.at)

    def check_condition(self, node: s.Expression, scope: Scope) -> None:
        """Check that `node` is a condition."""
        type_ = self.infer(node, scope)
        if type_.kind not in ("boolean", "any"):
            self.report_problem("not-a-condition", f"this is {type_.name}, not a condition", node.at)
        elif isinstance(node, s.Name) and type_.kind == "any" and scope.row:
            self.report_problem(
                "not-a-condition",
                f"`{node.text}` alone is not a condition",
                node.at,
                f"write `exists({node.text})` or compare it with something",
            )

    def check_kind(self, node: s.Expression, scope: Scope, kind: v.ValueKind, what: str) -> None:
        """Check that `node` is one value of `kind`."""
        type_ = self.infer(node, scope)
        if type_.is_many or type_.kind not in (kind, "any"):
            hint = "write a unit, such as `50ms`" if kind == "duration" and type_.kind == "number" else None
            self.report_problem("type-mismatch", f"{what} must be a {kind}, but this is {type_.name}", node.at, hint)

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
        """Check one service and its condition, which is about rows of the kind `row`.

        Braces in an operation may belong to a route, as in ``"GET /orders/{id}"``, so unknown names are allowed there.
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
                    f"`{part.text}` is not declared: add `let {part.text} = …`",
                    part.at,
                    suggest_names(part.text, scope.variables) or "a brace is written `\\{`",
                )

    # ## One method per kind of node that needs more than one line

    def _infer_within(self, node: s.Within, scope: Scope) -> ValueType:
        is_relative = node.what in v.RELATIVES
        if scope.row != "span" and (is_relative or scope.row != "call"):
            help_ = f"write it at the caller: `a[{node.what}[…]] -> b`" if scope.row == "call" else None
            return self.report_problem(
                "misplaced", f"`{node.what}[…]` belongs in a condition about spans", node.at, help_
            )
        row: v.RowKind = "span" if is_relative else node.what  # type: ignore[assignment]  # a part otherwise
        self.check_condition(node.where, scope.with_row(row))
        return ValueType("boolean")

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
                f"there is no `when … as {node.step}` before this",
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
                "syntax", "one header name is needed", node.at, 'write `response.headers["content-type"]`'
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
        if node.keys and node.name != "json":
            return self.report_problem("unknown-field", f"`{node.name}(…)` has no parts", node.at)
        if node.name in v.SELECTION_FUNCTIONS or node.name in v.AGGREGATES:
            if scope.row is not None:
                return self.report_problem(
                    "misplaced",
                    f"`{node.name}(…)` reads many spans, but a condition is about one",
                    node.at,
                    f"write the field alone: `{node.name}`" if node.name in v.FIELDS[scope.row] else None,
                )
            aggregate = node.name in v.AGGREGATES
            return self._infer_aggregate(node, scope) if aggregate else self._infer_selection_function(node, scope)
        if len(node.arguments) != 1:
            return self.report_problem("arguments", f"`{node.name}` takes one argument", node.at)
        (argument,) = node.arguments
        if node.name == "exists":
            is_json = isinstance(argument, s.Function) and argument.name == "json"
            if scope.row is None or not (isinstance(argument, s.Name) or is_json):
                problem = "`exists` takes an attribute, a field or `json(…)`, and only in a condition"
                return self.report_problem("misplaced", problem, node.at)
            self.infer(argument, scope)
            return ValueType("boolean")
        argument_type = self.infer(argument, scope)
        if argument_type.is_many:
            return self.report_problem(
                "type-mismatch", f"`{node.name}` takes one value, but these are many", argument.at
            )
        if argument_type.kind not in ("text", "any"):
            return self.report_problem(
                "type-mismatch", f"`{node.name}` takes a text, but this is {argument_type.name}", argument.at
            )
        if node.name == "env" and any(is_field(part, scope) for part in s.walk(argument)):
            return self.report_problem(
                "misplaced", f"`{node.name}` takes a value known before any span is read", argument.at
            )
        return ValueType("number") if node.name == "len" else ANY_TYPE if node.name == "json" else ValueType("text")

    def _infer_selection_function(self, node: s.Function, scope: Scope) -> ValueType:
        wanted = 2 if node.name == "values" else 1
        if len(node.arguments) != wanted:
            usage = "values(SELECTION, field)" if wanted == 2 else f"{node.name}(SELECTION)"
            return self.report_problem("arguments", f"`{node.name}` is used as `{usage}`", node.at)
        first = node.arguments[0]
        result_type = v.SELECTION_FUNCTIONS[node.name]
        if isinstance(first, s.Name) and first.text == "traces":
            if node.name not in v.TRACE_FUNCTIONS:
                return self.report_problem("misplaced", f"`{node.name}` cannot be applied to `traces`", first.at)
            return result_type
        selection = to_selection(first)
        if selection is None:
            if isinstance(first, s.Function):
                return self.report_problem(
                    "type-mismatch", f"`{node.name}` takes a selection of spans or calls", first.at
                )
            return self.report_problem("not-a-selection", "this selects neither spans nor calls", first.at)
        if node.name in v.CALL_ONLY_FUNCTIONS and not isinstance(selection, s.CallSelection):
            return self.report_problem("not-a-call", f"`{node.name}` applies to calls", first.at, "write `A -> B`")
        if node.name == "lag" and isinstance(selection, s.CallSelection) and selection.arrow != "~>":
            return self.report_problem("not-a-message", "`lag` applies to messages", first.at, "write `A ~> B`")
        if node.name == "calls" and isinstance(selection, s.CallSelection) and (selection.attempts or selection.pick):
            return self.report_problem("misplaced", "`calls` counts the logical calls of each request", first.at)
        if node.name == "self_time" and isinstance(selection, s.CallSelection):
            return self.report_problem("not-a-service", "`self_time` applies to spans, not to calls", first.at)
        if node.name == "critical" and not (isinstance(first, s.Name | s.Text)):
            return self.report_problem("not-a-service", "`critical` takes the name of a service", first.at)
        self.check_selection(selection, scope)
        if node.name == "values":
            row: v.RowKind = "call" if isinstance(selection, s.CallSelection) else "span"
            return replace(self.infer(node.arguments[1], scope.with_row(row)), is_many=True)
        return result_type

    def _infer_aggregate(self, node: s.Function, scope: Scope) -> ValueType:
        arguments = node.arguments
        if node.name == "p":
            if len(arguments) != 2 or not isinstance(arguments[0], s.Number):
                return self.report_problem("arguments", "`p` is used as `p(99.9, duration(…))`", node.at)
            if arguments[0].unit or not 0 < arguments[0].value <= 100:
                return self.report_problem(
                    "out-of-range", "a percentile is greater than 0 and at most 100", arguments[0].at
                )
            arguments = arguments[1:]
        if len(arguments) != 1:
            return self.report_problem("arguments", f"`{node.name}` takes one argument", node.at)
        argument_type = self.infer(arguments[0], scope)
        if isinstance(arguments[0], s.Response) and arguments[0].step in scope.repeated:
            argument_type = replace(argument_type, is_many=True)
        if (
            not argument_type.is_many and argument_type is not ANY_TYPE
        ):  # ANY_TYPE itself is the result of a reported problem
            return self.report_problem(
                "not-many",
                f"`{node.name}` needs many values, but this is one",
                arguments[0].at,
                "such as `duration(…)`, `attempts(…)` or `values(…)`",
            )
        if argument_type.kind in ("text", "boolean") and node.name != "distinct":
            return self.report_problem(
                "type-mismatch", f"`{node.name}` needs numbers, but these are not", arguments[0].at
            )
        return (
            ValueType("number")
            if node.name == "distinct"
            else replace(read_as_number(arguments[0], argument_type, scope), is_many=False)
        )

    def _infer_compare(self, node: s.Compare, scope: Scope) -> ValueType:
        left, right = self._infer_sides(node, scope)
        for problem in find_comparison_problems(node, left, right):
            self.report(problem)
        return ValueType("boolean")

    def _infer_sides(self, node: s.Compare, scope: Scope) -> tuple[ValueType, ValueType]:
        """Return the types of both sides.

        A word on the right of `kind` or `status` is one of their values. ``baseline`` has the type of the other side.
        """
        for side, other in ((node.left, node.right), (node.right, node.left)):
            if scope.baseline and mentions_baseline(side) and not mentions_baseline(other):
                other_type = self.infer(other, scope)
                inner_scope = replace(
                    scope, variables={**scope.variables, "baseline": replace(other_type, is_many=False)}
                )
                side_type = replace(self.infer(side, inner_scope), is_many=other_type.is_many)
                return (side_type, other_type) if side is node.left else (other_type, side_type)
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
            self.report_problem("incomplete", "the list is empty", node.at)
        for option in node.options:
            if isinstance(option, s.ValueRange):
                low, high = self.infer(option.low, scope), self.infer(option.high, scope)
                if option.low.value > option.high.value:
                    self.report_problem(
                        "out-of-range", "this range is empty: its low end is above its high end", option.at
                    )
                option_type = low if low == high else ANY_TYPE
            elif isinstance(option, s.Name) and value.kind in v.ENUMERATIONS:
                self._check_word(option, value)
                continue
            else:
                option_type = self.infer(option, scope)
            for problem in find_equality_problems(s.Compare("==", node.value, option, option.at), value, option_type):
                self.report(problem)
        return ValueType("boolean")

    def _infer_junction(self, node: s.AnyOf | s.AllOf, scope: Scope) -> ValueType:
        if scope.row is None and isinstance(node, s.AnyOf):
            types = [self.infer(term, scope) for term in node.terms]
            if all(type_.kind in ("text", "any", "number") for type_ in types):
                return types[0] if len(set(types)) == 1 else ANY_TYPE
        for term in node.terms:
            self.check_condition(term, scope)
        return ValueType("boolean")

    def _infer_arithmetic(self, node: s.Arithmetic, scope: Scope) -> ValueType:
        left, right = (read_as_number(side, self.infer(side, scope), scope) for side in (node.left, node.right))
        result = infer_arithmetic_type(node, left, right)
        if isinstance(result, ValueType):
            return result
        self.report(result)
        return ANY_TYPE


def to_selection(node: s.Expression) -> s.Selection | None:
    """Return `node` as a selection, or None. A bare name or string is a service."""
    if isinstance(node, s.SpanSelection | s.CallSelection):
        return node
    if isinstance(node, s.Name | s.Text):
        return s.SpanSelection("entry", node, None, None, node.at)
    return None


def mentions_baseline(node: s.Expression | s.Claim) -> bool:
    """Return whether `node` refers to the baseline traces."""
    return any(isinstance(part, s.Name) and part.text == "baseline" for part in s.walk(node))


def _infer_number_type(node: s.Number) -> ValueType:
    kinds: Mapping[str, v.ValueKind] = {"": "number", "ns": "duration", "%": "fraction", "pp": "points", "/s": "rate"}
    return ValueType(kinds[node.unit])


def _suggest_service_usage(name: str) -> str:
    return f'a service is used as in `duration({name})`; a text is written "{name}"'
