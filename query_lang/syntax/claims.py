"""Nodes of claims and of the expectations that contain them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

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


@dataclass(frozen=True, slots=True)
class ComparisonClaim:
    """Claim ``left operator right`` over whole selections."""

    condition: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Every:
    """Claim that every selected row satisfies the condition."""

    selection: Selection
    condition: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Some:
    """Claim that at least one selected row of each trace satisfies the condition."""

    selection: Selection
    condition: Expression | None
    at: TextRange


@dataclass(frozen=True, slots=True)
class No:
    """Claim that no selected row satisfies the condition."""

    selection: Selection
    condition: Expression | None
    at: TextRange


@dataclass(frozen=True, slots=True)
class Step:
    """Step of a path: a call to any of the targets matches it."""

    targets: tuple[SpanSelection, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class PathSegment:
    """Step of a path, and the branches that all continue from the same instance of it."""

    step: Step
    arrow: Arrow | None
    branches: tuple[PathSegment, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Path:
    """Claim about a path.

    Mode ``some``: the path exists. ``no``: it does not exist. ``only``: it exists, and there is no other call between
    instrumented services.
    """

    segment: PathSegment
    mode: Literal["some", "no", "only"]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Before:
    """Claim that the last row of ``first`` ends before the first row of ``second`` starts."""

    first: Selection
    second: Selection
    at: TextRange


@dataclass(frozen=True, slots=True)
class Limit:
    """Clause ``name operator value``."""

    name: str
    operator: Comparator
    value: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Flag:
    """Clause without a value: ``recovered``, ``exhausted``, ``backoff grows``."""

    name: str
    at: TextRange


@dataclass(frozen=True, slots=True)
class Cause:
    """Clause ``cause condition``, a condition on each failed attempt."""

    condition: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class OpensAfter:
    """Clause ``opens after N failures``."""

    failures: Expression
    at: TextRange


Clause: TypeAlias = Limit | Flag | Cause | OpensAfter


@dataclass(frozen=True, slots=True)
class Retry:
    """Claim that calls whose first attempt failed retryably were retried as the clauses require."""

    call: Selection
    clauses: tuple[Clause, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class NoRetry:
    """Claim that no logical call has more than one attempt."""

    call: Selection
    at: TextRange


@dataclass(frozen=True, slots=True)
class Fallback:
    """Claim that the caller called ``to`` after all attempts of the call had failed."""

    call: Selection
    to: SpanSelection
    at: TextRange


@dataclass(frozen=True, slots=True)
class Circuit:
    """Claim that the caller stops calling after consecutive failures."""

    call: Selection
    clauses: tuple[Clause, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Timeout:
    """Claim that no attempt lasted longer than the limit, and that at least one was cut off."""

    call: Selection
    limit: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Budget:
    """Claim that the trace's duration stays within the total, and each service's critical path time within its part."""

    total: Expression
    parts: tuple[tuple[Name | Text | None, Expression], ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class NotWorse:
    """Claim ``value not worse than baseline by margin``."""

    value: Expression
    reference: Expression
    margin: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Contract:
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
class ShareClause:
    """Suffix ``in >= 99% of traces``."""

    operator: Comparator
    value: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Expectation:
    """Claim with the suffixes that control its evaluation."""

    claim: Claim
    share: ShareClause | None
    by: Name | None
    confidence: Expression | None
    label: Text | None
    at: TextRange
