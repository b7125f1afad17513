"""The tree of a proof file. Every node knows where in the text it stands (``at``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Literal, TypeAlias, TypeVar

T = TypeVar("T")
Arrow: TypeAlias = Literal["->", "->>", "~>", "=>"]
Comparator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">=", "=~", "!~", "contains"]
Unit: TypeAlias = Literal["", "ns", "%", "pp", "/s"]


@dataclass(frozen=True, slots=True)
class Source:
    """A stretch of the text: offsets in characters, ``end`` exclusive."""

    start: int
    end: int


# ## Expressions


@dataclass(frozen=True, slots=True)
class Number:
    """A number with its unit: durations in nanoseconds, percentages as fractions (1 % is 0.01)."""

    value: Decimal
    unit: Unit
    at: Source


@dataclass(frozen=True, slots=True)
class Text:
    """A string: literal parts, and names (:class:`Name`) to be put in between."""

    parts: tuple[str | Name, ...]
    at: Source

    @property
    def plain(self) -> str:
        """The text as written, with ``{name}`` where a name is to be put in."""
        return "".join(part if isinstance(part, str) else "{" + part.text + "}" for part in self.parts)


@dataclass(frozen=True, slots=True)
class Name:
    """A word: a field, an attribute, a variable or a service, by where it stands."""

    text: str
    at: Source


@dataclass(frozen=True, slots=True)
class Range:
    """``low..high``, both included."""

    low: Number
    high: Number
    at: Source


@dataclass(frozen=True, slots=True)
class Response:
    """A part of an HTTP response: ``response.json.a[0]`` is part ``json`` with keys ``("a", 0)``."""

    step: str | None
    part: str
    keys: tuple[str | int, ...]
    at: Source


@dataclass(frozen=True, slots=True)
class Within:
    """``event[…]`` or ``link[…]``: one of them satisfies the condition."""

    what: Literal["event", "link"]
    where: Expression
    at: Source


@dataclass(frozen=True, slots=True)
class Target:
    """Spans of a service: its entry spans, or any (``span``); of any service where ``service`` is None."""

    spans: Literal["entry", "any"]
    service: Name | Text | None
    operation: Text | None
    where: Expression | None
    at: Source


@dataclass(frozen=True, slots=True)
class Call:
    """Logical calls from one service to another, or their single attempts (``try``)."""

    caller: Target
    arrow: Arrow
    callee: Target
    attempts: bool
    at: Source


@dataclass(frozen=True, slots=True)
class Function:
    """``name(arguments)``."""

    name: str
    arguments: tuple[Expression, ...]
    at: Source
    name_at: Source


@dataclass(frozen=True, slots=True)
class Compare:
    """``left operator right``."""

    operator: Comparator
    left: Expression
    right: Expression
    at: Source


@dataclass(frozen=True, slots=True)
class OneOf:
    """``value in options``, or ``not in``."""

    value: Expression
    options: tuple[Expression, ...]
    negated: bool
    at: Source


@dataclass(frozen=True, slots=True)
class AnyOf:
    """``a or b``."""

    terms: tuple[Expression, ...]
    at: Source


@dataclass(frozen=True, slots=True)
class AllOf:
    """``a and b``."""

    terms: tuple[Expression, ...]
    at: Source


@dataclass(frozen=True, slots=True)
class Not:
    """``not a``."""

    term: Expression
    at: Source


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """``left operator right``."""

    operator: Literal["+", "-", "*", "/"]
    left: Expression
    right: Expression
    at: Source


@dataclass(frozen=True, slots=True)
class Negative:
    """``-value``."""

    value: Expression
    at: Source


Selection: TypeAlias = Target | Call
Expression: TypeAlias = (
    Number
    | Text
    | Name
    | Range
    | Response
    | Within
    | Target
    | Call
    | Function
    | Compare
    | OneOf
    | AnyOf
    | AllOf
    | Not
    | Arithmetic
    | Negative
)

# ## Claims


@dataclass(frozen=True, slots=True)
class Comparison:
    """``left operator right`` over whole selections."""

    condition: Expression
    at: Source


@dataclass(frozen=True, slots=True)
class Every:
    """Each thing selected satisfies the condition."""

    selection: Selection
    condition: Expression
    at: Source


@dataclass(frozen=True, slots=True)
class Some:
    """In each trace something selected satisfies the condition."""

    selection: Selection
    condition: Expression | None
    at: Source


@dataclass(frozen=True, slots=True)
class No:
    """Nothing selected satisfies the condition."""

    selection: Selection
    condition: Expression | None
    at: Source


@dataclass(frozen=True, slots=True)
class Step:
    """One stop of a path: any of the targets."""

    targets: tuple[Target, ...]
    at: Source


@dataclass(frozen=True, slots=True)
class Leg:
    """A step, and the legs that all go on from the same instance of it."""

    step: Step
    arrow: Arrow | None
    branches: tuple[Leg, ...]
    at: Source


@dataclass(frozen=True, slots=True)
class Path:
    """A path is there; ``no``: it is not; ``only``: and there is no other call between instrumented services."""

    leg: Leg
    mode: Literal["some", "no", "only"]
    at: Source


@dataclass(frozen=True, slots=True)
class Before:
    """The last of ``first`` ends before the first of ``second`` starts."""

    first: Selection
    second: Selection
    at: Source


@dataclass(frozen=True, slots=True)
class Limit:
    """A clause ``name operator value``."""

    name: str
    operator: Comparator
    value: Expression
    at: Source


@dataclass(frozen=True, slots=True)
class Flag:
    """A clause of words: ``recovered``, ``exhausted``, ``backoff grows``."""

    name: str
    at: Source


@dataclass(frozen=True, slots=True)
class Cause:
    """``cause condition``, of each failed attempt."""

    condition: Expression
    at: Source


@dataclass(frozen=True, slots=True)
class Opens:
    """``opens after N failures``."""

    failures: Expression
    at: Source


Clause: TypeAlias = Limit | Flag | Cause | Opens


@dataclass(frozen=True, slots=True)
class Retry:
    """What failed retryably at first was tried again, as the clauses say."""

    call: Selection
    clauses: tuple[Clause, ...]
    at: Source


@dataclass(frozen=True, slots=True)
class NoRetry:
    """No logical call has more than one attempt."""

    call: Selection
    at: Source


@dataclass(frozen=True, slots=True)
class Fallback:
    """Where the call failed for good, the caller turned to ``to``."""

    call: Selection
    to: Target
    at: Source


@dataclass(frozen=True, slots=True)
class Circuit:
    """After failures in a row the caller stops asking."""

    call: Selection
    clauses: tuple[Clause, ...]
    at: Source


@dataclass(frozen=True, slots=True)
class Timeout:
    """No attempt lasted longer than the limit, and at least one was cut off."""

    call: Selection
    limit: Expression
    at: Source


@dataclass(frozen=True, slots=True)
class Budget:
    """The whole, and each service's share of the critical path, kept within its part."""

    total: Expression
    parts: tuple[tuple[Name | Text | None, Expression], ...]
    at: Source


@dataclass(frozen=True, slots=True)
class NotWorse:
    """``value not worse than baseline by margin``."""

    value: Expression
    reference: Expression
    margin: Expression
    at: Source


@dataclass(frozen=True, slots=True)
class Contract:
    """The response matches a JSON schema, or conforms to an OpenAPI document."""

    kind: Literal["schema", "openapi"]
    document: Text
    at: Source


Claim: TypeAlias = (
    Comparison
    | Every
    | Some
    | No
    | Path
    | Before
    | Retry
    | NoRetry
    | Fallback
    | Circuit
    | Timeout
    | Budget
    | NotWorse
    | Contract
)


@dataclass(frozen=True, slots=True)
class Share:
    """``in >= 99% of traces``."""

    operator: Comparator
    value: Expression
    at: Source


@dataclass(frozen=True, slots=True)
class Expectation:
    """A claim with what is said about how to judge it."""

    claim: Claim
    share: Share | None
    by: Name | None
    confidence: Expression | None
    label: Text | None
    at: Source


# ## Statements


@dataclass(frozen=True, slots=True)
class Let:
    """``let name = value``."""

    name: Name
    value: Expression
    at: Source


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object with names in it that are put in when it is sent."""

    pairs: tuple[tuple[Text, Json], ...]
    at: Source


@dataclass(frozen=True, slots=True)
class JsonArray:
    """A JSON array."""

    items: tuple[Json, ...]
    at: Source


Json: TypeAlias = JsonObject | JsonArray | Text | Number | Name | Negative


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a ``when``, its ``kind`` the word that it begins with.

    ``key`` is a header's, parameter's or file field's name; ``rate`` is that of ``repeat N at rate``. ``value`` is
    missing only for a ``tls`` by itself.
    """

    kind: str
    key: Text | None
    value: Json | Expression | None
    rate: Expression | None
    at: Source


@dataclass(frozen=True, slots=True)
class When:
    """Send a request. ``kind`` is an HTTP ``method`` upper-case, ``grpc``, ``publish``, ``run`` or ``trace``."""

    kind: str
    targets: tuple[Text | Name, ...]
    options: tuple[Option, ...]
    name: Name | None
    at: Source

    def option(self, kind: str) -> Option | None:
        """Return the option of a kind that stands once at most, if it is there."""
        return next((option for option in self.options if option.kind == kind), None)


@dataclass(frozen=True, slots=True)
class Settle:
    """``settle within limit quiet quiet``."""

    limit: Expression
    quiet: Expression | None
    at: Source


@dataclass(frozen=True, slots=True)
class Window:
    """``over last D``, ``since T`` or ``between T and T``."""

    kind: Literal["last", "since", "between"]
    bounds: tuple[Expression, ...]
    at: Source


@dataclass(frozen=True, slots=True)
class Given:
    """Judge stored traces; with ``baseline`` they are what others are compared with."""

    start: Selection | None
    window: Window
    where: Expression | None
    baseline: bool
    at: Source


@dataclass(frozen=True, slots=True)
class Question:
    """``p95(duration(A)) by service over last 1h every 1m``: a number, of groups and steps of time."""

    value: Expression
    by: Name | None
    given: Given
    step: Expression | None
    at: Source


@dataclass(frozen=True, slots=True)
class Apply:
    """Use a definition."""

    name: str
    arguments: tuple[Expression, ...]
    at: Source


@dataclass(frozen=True, slots=True)
class Hook:
    """Statements that prepare or clean up."""

    time: Literal["before", "after"]
    statements: tuple[Statement, ...]
    at: Source


Statement: TypeAlias = Let | When | Settle | Given | Apply | Hook | Expectation


@dataclass(frozen=True, slots=True)
class Proof:
    """A named list of statements."""

    name: str
    tags: tuple[str, ...]
    statements: tuple[Statement, ...]
    at: Source


@dataclass(frozen=True, slots=True)
class Define:
    """Statements under a name, with parameters."""

    name: str
    parameters: tuple[Name, ...]
    statements: tuple[Statement, ...]
    at: Source


@dataclass(frozen=True, slots=True)
class Use:
    """Bring in another file's ``let`` and ``define``."""

    path: Text
    at: Source


Item: TypeAlias = Let | Proof | Define | Use | Hook
Node: TypeAlias = Expression | Claim | Expectation | Statement | Item | Leg | Step | Share | Clause | Option | Json


def children(node: object) -> Iterator[object]:
    """Yield the nodes directly below `node`, in the order of the text."""
    values = [getattr(node, field.name) for field in fields(node)]  # type: ignore[arg-type]  # every node is a dataclass
    while values:
        value = values.pop(0)
        if isinstance(value, tuple):
            values[:0] = value
        elif hasattr(value, "at"):
            yield value


def rewrite(node: T, change: Callable[[object], object]) -> T:
    """Return a node with the nodes in it that `change` returns others for replaced, outermost first."""
    changed = change(node)
    if changed is not node:
        return changed  # type: ignore[return-value]  # as the one who changes it knows
    if isinstance(node, tuple):
        return tuple(rewrite(each, change) for each in node)  # type: ignore[return-value]  # a tuple still
    if not hasattr(node, "at"):
        return node
    values = {field.name: getattr(node, field.name) for field in fields(node)}  # type: ignore[arg-type]  # a dataclass
    return replace(node, **{name: rewrite(value, change) for name, value in values.items()})  # type: ignore[type-var]


def walk(node: object) -> Iterator[object]:
    """Yield `node` and all nodes below it."""
    yield node
    for child in children(node):
        yield from walk(child)
