"""Nodes of claims and of the expectations that contain them."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from spanproof.query_lang.syntax.expressions import (
    Arrow,
    Comparator,
    Expression,
    Name,
    Selection,
    SpanSelection,
    Text,
    TextRange,
)


class ComparisonClaim(Struct, frozen=True):
    """Claim ``left operator right`` over whole selections."""

    condition: Expression
    at: TextRange


class Every(Struct, frozen=True):
    """Claim that every selected row satisfies the condition."""

    selection: Selection
    condition: Expression
    at: TextRange


class Some(Struct, frozen=True):
    """Claim that at least one selected row of each trace satisfies the condition."""

    selection: Selection
    condition: Expression | None
    at: TextRange


class No(Struct, frozen=True):
    """Claim that no selected row satisfies the condition."""

    selection: Selection
    condition: Expression | None
    at: TextRange


class Step(Struct, frozen=True):
    """Step of a path: a call to any of the targets matches it."""

    targets: tuple[SpanSelection, ...]
    at: TextRange


class PathSegment(Struct, frozen=True):
    """Step of a path, and the branches that all continue from the same instance of it."""

    step: Step
    arrow: Arrow | None
    branches: tuple[PathSegment, ...]
    at: TextRange


class Path(Struct, frozen=True):
    """Claim about a path.

    Mode ``some``: the path exists. ``no``: it does not exist. ``only``: it exists, and there is no other call between
    instrumented services.
    """

    segment: PathSegment
    mode: Literal["some", "no", "only"]
    at: TextRange


class Before(Struct, frozen=True):
    """Claim that the last row of ``first`` ends before the first row of ``second`` starts, by at most ``limit``."""

    first: Selection
    second: Selection
    limit: Expression | None
    at: TextRange


class IfThen(Struct, frozen=True):
    """Claim that ``consequence`` holds in each trace in which ``condition`` holds."""

    condition: Claim
    consequence: Claim
    at: TextRange


class Limit(Struct, frozen=True):
    """Clause ``name operator value``."""

    name: str
    operator: Comparator
    value: Expression
    at: TextRange


class Flag(Struct, frozen=True):
    """Clause without a value: ``recovered``, ``exhausted``, ``backoff grows``."""

    name: str
    at: TextRange


class Cause(Struct, frozen=True):
    """Clause ``cause condition``, a condition on each failed attempt."""

    condition: Expression
    at: TextRange


class OpensAfter(Struct, frozen=True):
    """Clause ``opens after N failures``."""

    failures: Expression
    at: TextRange


Clause: TypeAlias = Limit | Flag | Cause | OpensAfter


class Retry(Struct, frozen=True):
    """Claim that calls whose first attempt failed retryably were retried as the clauses require."""

    call: Selection
    clauses: tuple[Clause, ...]
    at: TextRange


class NoRetry(Struct, frozen=True):
    """Claim that no logical call has more than one attempt."""

    call: Selection
    at: TextRange


class Fallback(Struct, frozen=True):
    """Claim that the caller called ``to`` after all attempts of the call had failed."""

    call: Selection
    to: SpanSelection
    at: TextRange


class Circuit(Struct, frozen=True):
    """Claim that the caller stops calling after consecutive failures."""

    call: Selection
    clauses: tuple[Clause, ...]
    at: TextRange


class Timeout(Struct, frozen=True):
    """Claim that no attempt lasted longer than the limit, and that at least one was cut off."""

    call: Selection
    limit: Expression
    at: TextRange


class Budget(Struct, frozen=True):
    """Claim that the trace's duration stays within the total, and each service's critical path time within its part."""

    total: Expression
    parts: tuple[tuple[Name | Text | None, Expression], ...]
    at: TextRange


class Margin(Struct, frozen=True):
    """Allowed change ``20% or 1ms``: of its two values, the larger one."""

    value: Expression
    floor: Expression | None
    at: TextRange


class BaselineTest(Struct, frozen=True):
    """Claim ``value not worse than baseline by margin`` or, if two-sided, ``value within margin of baseline``."""

    value: Expression
    reference: Expression
    margin: Margin
    is_two_sided: bool
    at: TextRange


class Contract(Struct, frozen=True):
    """Claim that the response matches a JSON schema, or conforms to an OpenAPI document."""

    kind: Literal["schema", "openapi"]
    document: Text
    at: TextRange


Claim: TypeAlias = (
    ComparisonClaim
    | Every
    | Some
    | No
    | Path
    | Before
    | IfThen
    | Retry
    | NoRetry
    | Fallback
    | Circuit
    | Timeout
    | Budget
    | BaselineTest
    | Contract
)


class ShareClause(Struct, frozen=True):
    """Suffix ``in >= 99% of traces``."""

    operator: Comparator
    value: Expression
    at: TextRange


class Having(Struct, frozen=True):
    """Suffix ``having count >= 50``: which groups are large enough to judge."""

    operator: Comparator
    value: Expression
    at: TextRange


class Expectation(Struct, frozen=True):
    """Claim with the suffixes that control its evaluation. `by` is empty if there are no groups."""

    claim: Claim
    share: ShareClause | None
    by: tuple[Name, ...]
    having: Having | None
    confidence: Expression | None
    label: Text | None
    at: TextRange
