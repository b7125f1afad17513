"""Which type an expression has where it stands, and what is wrong with it if none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from spanproof.query_lang import syntax as s
from spanproof.query_lang import vocabulary as v
from spanproof.query_lang.diagnostics import Diagnostic, did_you_mean
from spanproof.query_lang.operands import NUMERIC, calculate, find_faults, find_mismatch
from spanproof.query_lang.vocabulary import Type

ANY = Type("any")


@dataclass(frozen=True, slots=True)
class Scope:
    """Where an expression stands: the names it can use, and the kind of thing a condition is about."""

    variables: Mapping[str, Type] = field(default_factory=dict)
    row: v.Row | None = None
    baseline: bool = False
    requests: frozenset[str] = frozenset()
    repeated: frozenset[str | None] = frozenset()  # requests with many responses; None is the latest

    def of(self, row: v.Row) -> Scope:
        """Return the same scope inside a condition about a span, a call, an event or a link."""
        return replace(self, row=row)


class Types:
    """Infers types; problems go to `report`, and what has one is taken to be of any type from there on."""

    def __init__(self, report: Callable[[Diagnostic], None] = lambda diagnostic: None) -> None:
        self.report = report

    def problem(self, id_: str, message: str, at: s.Source, help_: str | None = None) -> Type:
        """Report a problem; return the type of what cannot be known."""
        self.report(Diagnostic(id_, message, at, help_))
        return ANY

    def of(self, node: s.Expression, scope: Scope) -> Type:
        """Return the type of `node` where it stands."""
        match node:
            case s.Number():
                return _unit(node)
            case s.Text():
                self.check_names(node, scope)
                return Type("text")
            case s.Name():
                return self._name(node, scope)
            case s.Response():
                return self._response(node, scope)
            case s.Within():
                if scope.row not in ("span", "call"):
                    return self.problem("misplaced", f"`{node.what}[…]` belongs in a condition about spans", node.at)
                self.condition(node.where, scope.of(node.what))
                return Type("boolean")
            case s.Target() | s.Call():
                return self.problem(
                    "misplaced", "a selection is no value", node.at, "write `count(…)` or `duration(…)` around it"
                )
            case s.Function():
                return self._function(node, scope)
            case s.Compare():
                return self._compare(node, scope)
            case s.OneOf():
                return self._one_of(node, scope)
            case s.AnyOf() | s.AllOf():
                return self._junction(node, scope)
            case s.Not():
                self.condition(node.term, scope)
                return Type("boolean")
            case s.Arithmetic():
                return self._arithmetic(node, scope)
            case s.Negative():
                found = _as_number(node.value, self.of(node.value, scope), scope)
                if found.kind not in NUMERIC:
                    return self.problem("type-mismatch", f"`-` does not go with {found.name}", node.at)
                return found
            case s.Range():
                return self.problem("misplaced", "a range stands after `in`", node.at)

    def condition(self, node: s.Expression, scope: Scope) -> None:
        """Check that `node` is true or false."""
        found = self.of(node, scope)
        if found.kind not in ("boolean", "any"):
            self.problem("not-a-condition", f"this is {found.name}, not a condition", node.at)
        elif isinstance(node, s.Name) and found.kind == "any" and scope.row:
            self.problem(
                "not-a-condition",
                f"`{node.text}` alone is no condition",
                node.at,
                f"write `exists({node.text})` or compare it with something",
            )

    def expect(self, node: s.Expression, scope: Scope, kind: v.Kind, what: str) -> None:
        """Check that `node` is one value of `kind`."""
        found = self.of(node, scope)
        if found.many or found.kind not in (kind, "any"):
            hint = "write a unit, such as `50ms`" if kind == "duration" and found.kind == "number" else None
            self.problem("type-mismatch", f"{what} is a {kind}, and this is {found.name}", node.at, hint)

    def selection(self, node: s.Selection, scope: Scope) -> None:
        """Check the conditions and names in a selection."""
        if isinstance(node, s.Call):
            if node.arrow == "->>":
                self.problem("misplaced", "`->>` belongs in a path; a call is `->`, a message `~>`", node.at)
            self.target(node.caller, scope, "span")
            self.target(node.callee, scope, "call")
        else:
            self.target(node, scope, "span")

    def target(self, node: s.Target, scope: Scope, row: v.Row) -> None:
        """Check one service with its condition, which is about `row`.

        Braces in an operation may be a route's own, as in ``"GET /orders/{id}"``: they need not be known.
        """
        if isinstance(node.service, s.Text):
            self.check_names(node.service, scope)
        if node.where is not None:
            self.condition(node.where, scope.of(row))

    def check_names(self, node: s.Text, scope: Scope) -> None:
        """Check that each ``{name}`` in a string is known."""
        for part in node.parts:
            if isinstance(part, s.Name) and part.text not in scope.variables and "response" not in part.text.split("."):
                self.problem(
                    "unknown-name",
                    f"`{part.text}` is not known here",
                    part.at,
                    did_you_mean(part.text, scope.variables) or "a brace is written `\\{`",
                )

    # ## One method for each kind of node that needs more than a line

    def _name(self, node: s.Name, scope: Scope) -> Type:
        if node.text in v.CONSTANTS:
            return Type("nothing" if node.text == "null" else "boolean")
        if scope.row is not None:
            known = v.FIELDS[scope.row]
            if node.text in known:
                return Type(known[node.text])
            if node.text in scope.variables:
                return scope.variables[node.text]
            if "." in node.text:
                return ANY
            hint = did_you_mean(node.text, [*known, *scope.variables])
            return self.problem(
                "unknown-field",
                f"a {scope.row} has no field `{node.text}`",
                node.at,
                hint or f"an attribute without a dot in its name is written `span.{node.text}`",
            )
        if node.text in scope.variables:
            return scope.variables[node.text]
        if node.text == "baseline":
            if not scope.baseline:
                return self.problem(
                    "no-baseline", "`baseline` needs a `compare baseline from …` in the same proof", node.at
                )
            return ANY
        hint = did_you_mean(node.text, [*scope.variables, "baseline", "response.status"])
        return self.problem("unknown-name", f"`{node.text}` is not known here", node.at, hint or _of_service(node.text))

    def _response(self, node: s.Response, scope: Scope) -> Type:
        if node.step is not None and node.step not in scope.requests:
            return self.problem(
                "unknown-name",
                f"no `when … as {node.step}` stands before this",
                node.at,
                did_you_mean(node.step, scope.requests),
            )
        if node.part not in v.RESPONSE_PARTS:
            listed = ", ".join(f"`{part}`" for part in v.RESPONSE_PARTS)
            return self.problem(
                "unknown-field",
                f"a response has no `{node.part}`" if node.part else "this names no part of the response",
                node.at,
                did_you_mean(node.part, v.RESPONSE_PARTS) or f"its parts are {listed}",
            )
        if node.part == "headers" and len(node.keys) != 1:
            return self.problem("syntax", "one header is meant", node.at, 'write `response.headers["content-type"]`')
        if node.keys and node.part not in ("headers", "json"):
            return self.problem("unknown-field", f"`response.{node.part}` has no parts", node.at)
        return Type(v.RESPONSE_PARTS[node.part])

    def _function(self, node: s.Function, scope: Scope) -> Type:
        if node.name not in v.FUNCTIONS:
            return self.problem(
                "unknown-function",
                f"`{node.name}` is not a function",
                node.name_at,
                did_you_mean(node.name, v.FUNCTIONS) or "functions are " + ", ".join(v.FUNCTIONS),
            )
        if node.name in v.SELECTION_FUNCTIONS or node.name in v.AGGREGATES:
            if scope.row is not None:
                return self.problem(
                    "misplaced",
                    f"`{node.name}(…)` looks at many spans; a condition is about one",
                    node.at,
                    f"write the field alone: `{node.name}`" if node.name in v.FIELDS[scope.row] else None,
                )
            aggregate = node.name in v.AGGREGATES
            return self._aggregate(node, scope) if aggregate else self._of_selection(node, scope)
        if len(node.arguments) != 1:
            return self.problem("arguments", f"`{node.name}` takes one argument", node.at)
        (argument,) = node.arguments
        if node.name == "exists":
            if scope.row is None or not isinstance(argument, s.Name):
                return self.problem("misplaced", "`exists` asks for an attribute or field, in a condition", node.at)
            self.of(argument, scope)
            return Type("boolean")
        found = self.of(argument, scope)
        if found.many:
            return self.problem("type-mismatch", f"`{node.name}` takes one value, and these are many", argument.at)
        if found.kind not in ("text", "any"):
            return self.problem("type-mismatch", f"`{node.name}` takes a text, and this is {found.name}", argument.at)
        if node.name in ("env", "json") and any(_is_field(part, scope) for part in s.walk(argument)):
            return self.problem("misplaced", f"`{node.name}` takes a value known before any span is seen", argument.at)
        return Type("number") if node.name == "len" else ANY if node.name == "json" else Type("text")

    def _of_selection(self, node: s.Function, scope: Scope) -> Type:
        wanted = 2 if node.name == "values" else 1
        if len(node.arguments) != wanted:
            usage = "values(SELECTION, field)" if wanted == 2 else f"{node.name}(SELECTION)"
            return self.problem("arguments", f"`{node.name}` is used as `{usage}`", node.at)
        first = node.arguments[0]
        yields = v.SELECTION_FUNCTIONS[node.name]
        if isinstance(first, s.Name) and first.text == "traces":
            if node.name not in v.TAKES_TRACES:
                return self.problem("misplaced", f"`{node.name}` cannot be asked of `traces`", first.at)
            return yields
        selection = as_selection(first)
        if selection is None:
            if isinstance(first, s.Function):
                return self.problem("type-mismatch", f"`{node.name}` takes a selection of spans or calls", first.at)
            return self.problem("not-a-selection", "this selects neither spans nor calls", first.at)
        if node.name in v.NEEDS_CALL and not isinstance(selection, s.Call):
            return self.problem("not-a-call", f"`{node.name}` is asked of a call", first.at, "write `A -> B`")
        if node.name == "lag" and isinstance(selection, s.Call) and selection.arrow != "~>":
            return self.problem("not-a-message", "`lag` is asked of a message", first.at, "write `A ~> B`")
        if node.name == "self_time" and isinstance(selection, s.Call):
            return self.problem("not-a-service", "`self_time` is asked of spans, not of calls", first.at)
        if node.name == "critical" and not (isinstance(first, s.Name | s.Text)):
            return self.problem("not-a-service", "`critical` is asked of a service by its name", first.at)
        self.selection(selection, scope)
        if node.name == "values":
            row: v.Row = "call" if isinstance(selection, s.Call) else "span"
            return replace(self.of(node.arguments[1], scope.of(row)), many=True)
        return yields

    def _aggregate(self, node: s.Function, scope: Scope) -> Type:
        arguments = node.arguments
        if node.name == "p":
            if len(arguments) != 2 or not isinstance(arguments[0], s.Number):
                return self.problem("arguments", "`p` is used as `p(99.9, duration(…))`", node.at)
            if arguments[0].unit or not 0 < arguments[0].value <= 100:
                return self.problem("out-of-range", "a percentile lies above 0 and up to 100", arguments[0].at)
            arguments = arguments[1:]
        if len(arguments) != 1:
            return self.problem("arguments", f"`{node.name}` takes one argument", node.at)
        found = self.of(arguments[0], scope)
        if isinstance(arguments[0], s.Response) and arguments[0].step in scope.repeated:
            found = replace(found, many=True)
        if not found.many and found is not ANY:  # ANY itself has been reported already
            return self.problem(
                "not-many",
                f"`{node.name}` needs many values, and this is one",
                arguments[0].at,
                "such as `duration(…)`, `attempts(…)` or `values(…)`",
            )
        if found.kind in ("text", "boolean") and node.name != "distinct":
            return self.problem("type-mismatch", f"`{node.name}` needs numbers, and these are not", arguments[0].at)
        return (
            Type("number") if node.name == "distinct" else replace(_as_number(arguments[0], found, scope), many=False)
        )

    def _compare(self, node: s.Compare, scope: Scope) -> Type:
        left, right = self._sides(node, scope)
        for fault in find_faults(node, left, right):
            self.report(fault)
        return Type("boolean")

    def _sides(self, node: s.Compare, scope: Scope) -> tuple[Type, Type]:
        """Type both sides; a word beside `kind` or `status` is one of their values.

        ``baseline`` is of the type of the other side.
        """
        for side, other in ((node.left, node.right), (node.right, node.left)):
            if scope.baseline and mentions_baseline(side) and not mentions_baseline(other):
                beside = self.of(other, scope)
                inner = replace(scope, variables={**scope.variables, "baseline": replace(beside, many=False)})
                found = replace(self.of(side, inner), many=beside.many)
                return (found, beside) if side is node.left else (beside, found)
        if isinstance(node.right, s.Name) and isinstance(node.left, s.Name):
            left = self.of(node.left, scope)
            if left.kind in v.ENUMERATIONS and node.right.text not in scope.variables:
                self._word(node.right, left)
                return left, left
        return self.of(node.left, scope), self.of(node.right, scope)

    def _word(self, node: s.Name, type_: Type) -> None:
        words = v.ENUMERATIONS[type_.kind]
        if node.text not in words:
            listed = ", ".join(f"`{word}`" for word in words)
            hint = did_you_mean(node.text, words)
            self.problem(
                "unknown-word", f"`{node.text}` is not {type_.name}", node.at, hint or f"it is one of {listed}"
            )

    def _one_of(self, node: s.OneOf, scope: Scope) -> Type:
        value = self.of(node.value, scope)
        if not node.options:
            self.problem("incomplete", "nothing is in an empty list", node.at)
        for option in node.options:
            if isinstance(option, s.Range):
                low, high = self.of(option.low, scope), self.of(option.high, scope)
                if option.low.value > option.high.value:
                    self.problem("out-of-range", "this range is empty: its low end is above its high end", option.at)
                found = low if low == high else ANY
            elif isinstance(option, s.Name) and value.kind in v.ENUMERATIONS:
                self._word(option, value)
                continue
            else:
                found = self.of(option, scope)
            for fault in find_mismatch(s.Compare("==", node.value, option, option.at), value, found):
                self.report(fault)
        return Type("boolean")

    def _junction(self, node: s.AnyOf | s.AllOf, scope: Scope) -> Type:
        if scope.row is None and isinstance(node, s.AnyOf):
            found = [self.of(term, scope) for term in node.terms]
            if all(type_.kind in ("text", "any", "number") for type_ in found):
                return found[0] if len(set(found)) == 1 else ANY
        for term in node.terms:
            self.condition(term, scope)
        return Type("boolean")

    def _arithmetic(self, node: s.Arithmetic, scope: Scope) -> Type:
        left, right = (_as_number(side, self.of(side, scope), scope) for side in (node.left, node.right))
        found = calculate(node, left, right)
        if isinstance(found, Type):
            return found
        self.report(found)
        return ANY


def as_selection(node: s.Expression) -> s.Selection | None:
    """Return `node` as a selection: a bare name or string is a service."""
    if isinstance(node, s.Target | s.Call):
        return node
    if isinstance(node, s.Name | s.Text):
        return s.Target("entry", node, None, None, node.at)
    return None


def mentions_baseline(node: s.Expression | s.Claim) -> bool:
    """Tell whether `node` speaks of the baseline traces."""
    return any(isinstance(part, s.Name) and part.text == "baseline" for part in s.walk(node))


def names(nodes: Iterable[s.Name]) -> dict[str, Type]:
    """Return variables of any type for `nodes`."""
    return {node.text: ANY for node in nodes}


def _unit(node: s.Number) -> Type:
    kinds: Mapping[str, v.Kind] = {"": "number", "ns": "duration", "%": "fraction", "pp": "points", "/s": "rate"}
    return Type(kinds[node.unit])


def _is_field(node: object, scope: Scope) -> bool:
    """Tell whether `node` names a field or attribute of what a condition is about."""
    constant = isinstance(node, s.Name) and (node.text in scope.variables or node.text in v.CONSTANTS)
    return scope.row is not None and isinstance(node, s.Name) and not constant


def _as_number(node: s.Expression, found: Type, scope: Scope) -> Type:
    """Return the type of `node` where it is calculated with: an attribute is read as a number."""
    values = isinstance(node, s.Function) and node.name == "values"
    return replace(found, kind="number") if found.kind == "any" and (values or _is_field(node, scope)) else found


def _of_service(name: str) -> str:
    return f'a service is asked about as in `duration({name})`; a text is written "{name}"'
