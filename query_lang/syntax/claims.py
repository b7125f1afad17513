"""Nodes of claims, and of the expectations that hold them."""

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
    """``left operator right`` over whole selections."""

    condition: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Every:
    """Each thing selected satisfies the condition."""

    selection: Selection
    condition: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Some:
    """In each trace something selected satisfies the condition."""

    selection: Selection
    condition: Expression | None
    at: TextRange


@dataclass(frozen=True, slots=True)
class No:
    """Nothing selected satisfies the condition."""

    selection: Selection
    condition: Expression | None
    at: TextRange


@dataclass(frozen=True, slots=True)
class Step:
    """One stop of a path: any of the targets."""

    targets: tuple[SpanSelection, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class PathSegment:
    """A step, and the legs that all go on from the same instance of it."""

    step: Step
    arrow: Arrow | None
    branches: tuple[PathSegment, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Path:
    """A path is there; ``no``: it is not; ``only``: and there is no other call between instrumented services."""

    segment: PathSegment
    mode: Literal["some", "no", "only"]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Before:
    """The last of ``first`` ends before the first of ``second`` starts."""

    first: Selection
    second: Selection
    at: TextRange


@dataclass(frozen=True, slots=True)
class Limit:
    """A clause ``name operator value``."""

    name: str
    operator: Comparator
    value: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Flag:
    """A clause of words: ``recovered``, ``exhausted``, ``backoff grows``."""

    name: str
    at: TextRange


@dataclass(frozen=True, slots=True)
class Cause:
    """``cause condition``, of each failed attempt."""

    condition: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class OpensAfter:
    """``opens after N failures``."""

    failures: Expression
    at: TextRange


Clause: TypeAlias = Limit | Flag | Cause | OpensAfter


@dataclass(frozen=True, slots=True)
class Retry:
    """What failed retryably at first was tried again, as the clauses say."""

    call: Selection
    clauses: tuple[Clause, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class NoRetry:
    """No logical call has more than one attempt."""

    call: Selection
    at: TextRange


@dataclass(frozen=True, slots=True)
class Fallback:
    """Where the call failed for good, the caller turned to ``to``."""

    call: Selection
    to: SpanSelection
    at: TextRange


@dataclass(frozen=True, slots=True)
class Circuit:
    """After failures in a row the caller stops asking."""

    call: Selection
    clauses: tuple[Clause, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Timeout:
    """No attempt lasted longer than the limit, and at least one was cut off."""

    call: Selection
    limit: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Budget:
    """The whole, and each service's share of the critical path, kept within its part."""

    total: Expression
    parts: tuple[tuple[Name | Text | None, Expression], ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class NotWorse:
    """``value not worse than baseline by margin``."""

    value: Expression
    reference: Expression
    margin: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Contract:
    """The response matches a JSON schema, or conforms to an OpenAPI document."""

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
    """``in >= 99% of traces``."""

    operator: Comparator
    value: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Expectation:
    """A claim with what is said about how to judge it."""

    claim: Claim
    share: ShareClause | None
    by: Name | None
    confidence: Expression | None
    label: Text | None
    at: TextRange
