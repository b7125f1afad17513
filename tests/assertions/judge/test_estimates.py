"""Estimates that share the allowed error."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.judge.estimate_text import explain_estimate
from spanproof.assertions.judge.estimates import (
    AllowedChange,
    DifferenceTest,
    EstimatedClaim,
    LimitTest,
    decide_together,
)
from spanproof.assertions.judge.samples import MeanSample, QuantileSample, RateSample
from spanproof.assertions.reports.documents import describe_verdict
from spanproof.assertions.reports.outcome_text import list_further_groups
from spanproof.assertions.run.events import ClaimJudged
from spanproof.query_lang.syntax.parser import ParsedFile, parse_claim
from spanproof.query_lang.syntax.vocabulary import ValueType


def claim_of(*tests: LimitTest | DifferenceTest) -> EstimatedClaim:
    return EstimatedClaim(tests, Decimal("0.05"), ValueType("fraction"))


def rate_below(limit: float, hits: int, n: int) -> LimitTest:
    return LimitTest((f"{hits} of {n}",), RateSample(n, hits, n), "<", limit)


def decide(*claims: EstimatedClaim, fraction: Decimal = Decimal(1)) -> list[Outcome]:
    return [each.outcome for row in decide_together(claims, fraction) for each in row]


def test_tests_of_all_claims_share_the_error() -> None:
    borderline = rate_below(0.05, 0, 60)  # 0.95 ** 60 = 4.6 %: decided alone, not beside an undecided one
    open_ = rate_below(0.05, 5, 100)
    assert decide(claim_of(borderline)) == [Outcome.PASS]
    assert decide(claim_of(borderline), claim_of(open_)) == [Outcome.INCONCLUSIVE] * 2
    assert decide(claim_of(borderline, open_)) == [Outcome.INCONCLUSIVE] * 2


def test_decided_tests_leave_their_share_to_the_others() -> None:
    borderline, clear = rate_below(0.05, 0, 60), rate_below(0.05, 0, 10_000)
    assert decide(claim_of(borderline), claim_of(clear)) == [Outcome.PASS] * 2
    first, second = decide_together([claim_of(clear, borderline)], Decimal(1))[0]
    assert (first.confidence, second.confidence) == (pytest.approx(0.975), pytest.approx(0.95))


def test_evaluations_of_a_gate_share_the_error() -> None:
    borderline = rate_below(0.05, 0, 60)
    assert decide(claim_of(borderline), fraction=Decimal("0.5")) == [Outcome.INCONCLUSIVE]


def test_reason_lists_the_furthest_groups_and_reports_the_others() -> None:
    text = "error_rate(*) < 5% by service with confidence 95%"
    expectation = parse_claim(text).expectation
    assert expectation is not None
    tests = [LimitTest((f"s{rate}",), RateSample(1000, 10 * rate, 1000), "<", 0.05) for rate in (20, 50, 30, 60, 40, 1)]
    claim = claim_of(*tests)
    verdict = explain_estimate(expectation, claim, decide_together([claim], Decimal(1))[0], None)
    assert verdict.reason == (
        "5 of 6 groups by service failed: `s60` 60%, 600 of 1000; `s50` 50%, 500 of 1000; `s40` 40%, 400 of 1000;"
        " and 2 more"
    )
    assert verdict.mark == "`s60` 60%, 600 of 1000"
    assert [each.text for each in verdict.groups][:2] == ["`s60` 60%, 600 of 1000", "`s50` 50%, 500 of 1000"]
    judged = ClaimJudged(ParsedFile("a.proof", text, (), ()), expectation, verdict)
    assert list_further_groups(describe_verdict(judged)) == ["`s30` 30%, 300 of 1000", "`s20` 20%, 200 of 1000"]


def test_margin_is_the_larger_of_share_and_floor() -> None:
    margin = AllowedChange(0.2, 1.0)
    assert [margin.raise_limit(value) for value in (0.0, 2.0, 10.0)] == [1.0, 3.0, 12.0]
    assert [margin.lower_limit(value) for value in (2.0, 10.0, -math.inf)] == [1.0, 8.0, -math.inf]


def test_needed_number_of_values_decides() -> None:
    """The verdict says about how many values would decide; with that many of the same kind, it is decided."""

    def test_with(n: int) -> DifferenceTest:
        current, baseline = (MeanSample(n, mean, 10 / math.sqrt(n), n, mean) for mean in (104.0, 100.0))
        return DifferenceTest((), current, baseline, AllowedChange(0.0, 5.0), False)

    (undecided,) = decide_together([claim_of(test_with(100))], Decimal(1))[0]
    assert undecided.outcome is Outcome.INCONCLUSIVE
    assert undecided.needed is not None
    assert 500 < undecided.needed < 1500
    assert decide(claim_of(test_with(int(1.1 * undecided.needed)))) == [Outcome.PASS]


def test_small_sample_of_a_quantile_names_the_least_number() -> None:
    values = np.arange(20.0)
    sample = QuantileSample(20, values, Decimal("0.95"), 20)
    (decision,) = decide_together([claim_of(LimitTest((), sample, "<", 100.0))], Decimal(1))[0]
    assert (decision.outcome, decision.needed) == (Outcome.INCONCLUSIVE, 59)


def test_values_that_never_vary_are_not_taken_as_certain() -> None:
    few, many = (MeanSample(n, 1.0, 0.0, n, 1.0) for n in (3, 60))
    assert few.bound(0.95).lower == pytest.approx(1 - (1 - 0.05 ** (1 / 3)))
    assert many.bound(0.95).lower == pytest.approx(1 - (1 - 0.05 ** (1 / 60)))
