"""Reference judge: the verdict on a claim, from the text of the contract.

Not covered, and not among the generated claims: `first` and `last`, `json`,
`calls(A -> B)`, `within` of an order, comparisons of two `values`, `if … then`, `retries` and `distinct` in generated
traces, listed clients that retry below their span, the blame of a budget, estimates that share an error (Holm),
sampling weights, drift, snapshots and conformance.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from fractions import Fraction

from msgspec.structs import replace

from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import AGGREGATES
from spanproof.tests.reference.circuit import judge_circuit
from spanproof.tests.reference.conditions import ORDERS, NotCovered, convert, holds, is_stable, value_of
from spanproof.tests.reference.estimates import find_worst_outcome, judge_estimate
from spanproof.tests.reference.numbers import One, Outcome, all_hold, can_only_grow, compare, evaluate, group_keys
from spanproof.tests.reference.order import judge_before, judge_budget
from spanproof.tests.reference.paths import judge_path
from spanproof.tests.reference.resilience import (
    judge_fallback,
    judge_no_retry,
    judge_retry,
    judge_timeout,
    may_hide_attempts,
)
from spanproof.tests.reference.selections import Group, World, is_selection_stable, select


def judge(expectation: s.Expectation, world: World) -> str:
    """Return ``pass``, ``fail`` or ``inconclusive``.

    What is uncertain is read in each way; a claim whose verdicts differ is inconclusive. So is an equation where one
    reading has more than the number, and another one less: what is uncertain may be read in one way here, in another
    there.
    """
    takes_possible = not _depends_on_joins(expectation.claim)
    outcomes = {
        (judge_reading(expectation, each), _find_side(expectation, each))
        for each in world.readings(_list_compared_durations(expectation.claim))
        if each.calls.reading.joined or not takes_possible
    }
    if len(outcomes) > 1 or _depends_on_ends(expectation, world):
        return "inconclusive"
    return outcomes.pop()[0]


def _list_compared_durations(claim: s.Claim) -> set[int]:
    """Return the durations at which the result of some comparison of a claim changes."""
    compared: list[tuple[bool, set[int]]] = []
    for part in s.walk(claim):
        if not isinstance(part, s.Compare | s.OneOf):
            continue
        nodes = [part.left, part.right] if isinstance(part, s.Compare) else list(part.options)
        sides = [
            side for node in nodes for side in ((node.low, node.high) if isinstance(node, s.ValueRange) else (node,))
        ]
        limits = {int(side.value) for side in sides if isinstance(side, s.Number) and side.unit == "ns"}
        if limits:
            compared.append((isinstance(part, s.Compare) and part.operator in ("<", "<=", ">", ">="), limits))
    durations = set[int]().union(*(limits for _, limits in compared))
    if len(compared) > 1:
        return durations | {limit + 1 for limit in durations}
    return set() if any(is_bound for is_bound, _ in compared) else durations


def _depends_on_ends(expectation: s.Expectation, world: World) -> bool:
    """Return whether unfinished spans leave open how a critical path is shared; the whole may be exceeded anyway."""
    claim = expectation.claim
    is_open = any(span.unfinished and span.trace_id in world.settled for span in world.forest.spans)
    if any(isinstance(part, s.Budget) for part in s.walk(claim)) and not (
        isinstance(claim, s.Budget) and expectation.share is None
    ):
        return is_open
    if isinstance(claim, s.Budget):
        total = value_of(claim.total, None)
        limit = None if total is None else convert(total, "number")
        roots = [root for trace in world.settled for root in world.forest.roots(trace)]
        return is_open and not any(not root.unfinished and root.duration_ns > limit for root in roots)
    aggregated = {
        id(part)
        for function in s.walk(claim)
        if isinstance(function, s.Function) and function.name in AGGREGATES
        for part in s.walk(function)
    }
    is_estimate = isinstance(claim, s.BaselineTest) or expectation.confidence is not None
    names = (
        part for part in s.walk(claim) if isinstance(part, s.Function) and (is_estimate or id(part) not in aggregated)
    )
    return is_open and any(part.name == "critical" for part in names)


def _find_side(expectation: s.Expectation, world: World) -> int | None:
    """Return the sign of a number less what it must equal, or less the highest option; None if it is no equation."""
    if expectation.share is not None or expectation.by or expectation.confidence is not None:
        return None
    node = expectation.claim.condition if isinstance(expectation.claim, s.ComparisonClaim) else None
    if isinstance(node, s.Compare) and node.operator in ("==", "!="):
        numbers = [evaluate(node.left, world, node.right), evaluate(node.right, world, node.left)]
    elif isinstance(node, s.OneOf):
        options = [option.high if isinstance(option, s.ValueRange) else option for option in node.options]
        numbers = [evaluate(each, world) for each in (node.value, *options)]
    else:
        return None
    values = [convert(each.value, "number") for each in numbers if isinstance(each, One) and each.value is not None]
    if len(values) < len(numbers) or None in values:
        return None
    value, highest = values[0], max(values[1:])
    return (value > highest) - (value < highest)


def _depends_on_joins(claim: s.Claim) -> bool:
    """Return whether possible attempts (T4) are judged both ways: in claims about whole calls, but for retries."""
    if isinstance(claim, s.IfThen):
        return _depends_on_joins(claim.condition) or _depends_on_joins(claim.consequence)
    if isinstance(claim, s.Retry | s.Fallback | s.Circuit | s.Timeout):
        return False
    return any(isinstance(part, s.CallSelection) and not part.attempts for part in s.walk(claim))


def judge_reading(expectation: s.Expectation, world: World) -> str:
    """Return the verdict for one reading of what is uncertain."""
    if isinstance(expectation.claim, s.IfThen):
        return _judge_if(expectation, expectation.claim, world)
    if isinstance(expectation.claim, s.BaselineTest) or expectation.confidence is not None:
        outcome = judge_estimate(expectation, world)
    elif expectation.by:
        outcome = _judge_groups(expectation, expectation.by, world)
    elif expectation.share is not None:
        outcome = _judge_share(expectation.claim, expectation.share, world)
    else:
        outcome = judge_claim(expectation.claim, world)
    if outcome not in ("pass", "fail"):
        return "inconclusive"
    if not _stays_with_more_attempts(expectation.claim, outcome, world) and may_hide_attempts(expectation.claim, world):
        return "inconclusive"
    return outcome


def _judge_if(expectation: s.Expectation, claim: s.IfThen, world: World) -> str:
    """Judge the consequence in each trace in which the condition holds."""
    outcomes = {trace: judge_claim(claim.condition, world.only(trace)) for trace in world.settled}
    held = [trace for trace, outcome in outcomes.items() if outcome == "pass"]
    undecided = [
        trace
        for trace, outcome in outcomes.items()
        if outcome == "open" or (outcome == "nothing" and not world.settled[trace])
    ]

    def judge_in(traces: list[str]) -> str:
        share = expectation.share
        if share is None and isinstance(claim.consequence, s.ComparisonClaim) and len(traces) > 1:
            share = s.ShareClause("==", s.Number(Decimal(1), "%", claim.at), claim.at)
        selected = replace(world, settled={trace: world.settled[trace] for trace in traces})
        return judge_reading(replace(expectation, claim=claim.consequence, share=share), selected)

    if not held:
        return "inconclusive"
    verdict = judge_in(held)
    if undecided:
        is_final = verdict == "fail" or (verdict == "pass" and judge_in(held + undecided) == "pass")
        if expectation.share is not None or not is_final:
            return "inconclusive"
    return "inconclusive" if may_hide_attempts(claim.condition, world) else verdict


def _stays_with_more_attempts(claim: s.Claim, outcome: str, world: World) -> bool:
    """Return whether attempts that nobody saw leave a verdict as it is."""
    if outcome != "pass":
        return False
    if isinstance(claim, s.Timeout):
        return True
    return (
        isinstance(claim, s.ComparisonClaim)
        and isinstance(claim.condition, s.Compare)
        and claim.condition.operator in (">", ">=")
        and can_only_grow(claim.condition, world)
    )


def judge_claim(claim: s.Claim, world: World) -> Outcome:
    """Judge a claim about the traces of `world`."""
    match claim:
        case s.ComparisonClaim():
            return compare(claim.condition, world)
        case s.Every():
            return _judge_every(claim, world)
        case s.Some():
            return _judge_some(claim, world)
        case s.No():
            return _judge_no(claim, world)
        case s.Path():
            return judge_path(claim, world)
        case s.Before():
            return judge_before(claim, world)
        case s.Retry():
            return judge_retry(claim, world)
        case s.NoRetry():
            return judge_no_retry(claim, world)
        case s.Fallback():
            return judge_fallback(claim, world)
        case s.Timeout():
            return judge_timeout(claim, world)
        case s.Circuit():
            return judge_circuit(claim, world)
        case s.Budget():
            return judge_budget(claim, world)
        case _:
            raise NotCovered(type(claim).__name__)


def _is_stable(claim: s.Every | s.Some | s.No) -> bool:
    """Return whether findings of the claim cannot change; another attempt may change a logical call."""
    if isinstance(claim.selection, s.CallSelection) and not claim.selection.attempts and claim.condition is not None:
        return False
    return is_selection_stable(claim.selection) and is_stable(claim.condition)


def _judge_every(claim: s.Every, world: World) -> Outcome:
    rows = [world.row(item) for item in select(claim.selection, world)]
    oks = [(row.trace_id, holds(claim.condition, row)) for row in rows]
    return all_hold(oks, world, stable=_is_stable(claim))


def _find_matching_traces(claim: s.Some | s.No, world: World) -> set[str]:
    rows = (world.row(item) for item in select(claim.selection, world))
    return {row.trace_id for row in rows if claim.condition is None or holds(claim.condition, row)}


def _judge_some(claim: s.Some, world: World) -> Outcome:
    matching, stable = _find_matching_traces(claim, world), _is_stable(claim)
    outcome: Outcome = "pass"
    for trace, settled in world.settled.items():
        if trace not in matching and settled:
            return "fail"
        if not settled and not (trace in matching and stable):
            outcome = "open"
    return outcome


def _judge_no(claim: s.No, world: World) -> Outcome:
    matching, stable = _find_matching_traces(claim, world), _is_stable(claim)
    if any(world.settled[trace] or stable for trace in matching):
        return "fail"
    return "pass" if world.all_settled else "open"


def _judge_share(claim: s.Claim, share: s.ShareClause, world: World) -> Outcome:
    """Judge each trace separately. Open traces may pass or fail; traces with nothing to judge may stay so."""
    counts: Counter[str] = Counter()
    for trace, settled in world.settled.items():
        outcome = judge_claim(claim, world.only(trace))
        counts["empty" if outcome == "nothing" and not settled else outcome] += 1
    limit = value_of(share.value, None)
    assert limit is not None
    required = convert(limit, "number")
    possible: set[Outcome] = set()
    for additional in range(counts["empty"] + 1):
        undecided = counts["open"] + additional
        for passing in range(undecided + 1):
            passed = counts["pass"] + passing
            total = counts["pass"] + counts["fail"] + undecided
            if total == 0:
                possible.add("nothing")
            else:
                possible.add("pass" if ORDERS[share.operator](Fraction(passed, total), required) else "fail")
    return possible.pop() if len(possible) == 1 else "open"


def _judge_groups(expectation: s.Expectation, by: tuple[s.Name, ...], world: World) -> Outcome:
    """Judge each group separately; the worst verdict counts."""
    claim = expectation.claim
    assert isinstance(claim, s.ComparisonClaim | s.Every)
    keys = group_keys(claim, by, world)
    return find_worst_outcome(judge_claim(claim, replace(world, group=Group(by, key))) for key in keys)
