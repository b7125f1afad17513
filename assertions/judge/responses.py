"""Claims about responses: of a request that was repeated, about each of them by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import duckdb

from spanproof.assertions.findings.comparators import COMPARATORS
from spanproof.assertions.findings.verdict import OUTCOMES_BY_SEVERITY, Outcome, Verdict
from spanproof.assertions.judge.evaluate import Judge
from spanproof.assertions.judge.response_aggregates import substitute_aggregates
from spanproof.assertions.triggers.responses import RepeatedResponses, TriggerResponse
from spanproof.query_lang.check.constants import Bindings, MissingValue, evaluate, to_decimal
from spanproof.query_lang.compile.compiler import compile_claim
from spanproof.query_lang.syntax import nodes as s

ResponseJudge = Callable[[TriggerResponse], Verdict]


def judge_response(
    judge: Judge, expectation: s.Expectation, text: str, bindings: Bindings, folder: Path
) -> Verdict | None:
    """Judge a contract, or a claim about the responses of a repeated request; None where it is neither."""
    claim = expectation.claim
    try:
        with_numbers = substitute_aggregates(expectation, bindings)
    except MissingValue as error:
        return Verdict(Outcome.INCONCLUSIVE, "nothing", str(error), claim.at, "")
    if with_numbers != expectation:
        verdict = judge.judge(with_numbers, text, bindings)
        n = max(len(each.responses) for each in _find_repeated_responses(claim, bindings))
        return replace(verdict, n=max(n, verdict.n), reason=f"{verdict.reason}; of {n} responses")
    if isinstance(claim, s.Contract):
        latest = bindings.responses.get(None)
        if isinstance(latest, RepeatedResponses):
            return _judge_each_response(
                expectation, bindings, latest.responses, lambda answer: _judge_contract(claim, answer, folder)
            )
        return _judge_contract(claim, latest, folder) if isinstance(latest, TriggerResponse) else None
    repeated = {id(each): each for each in _find_repeated_responses(claim, bindings)}
    if not repeated:
        return None
    if len(repeated) > 1:
        reason = "this is about two repeated requests, whose responses do not belong together"
        return Verdict(Outcome.ERROR, "error", reason, claim.at, "")
    (many,) = repeated.values()
    alone = replace(expectation, share=None)
    held: dict[str, object] = {}  # by what a claim sees of an answer
    verdicts: dict[object, Verdict] = {}  # of the first answer for which it held, and for which it did not

    def judge_one(answer: TriggerResponse) -> Verdict:
        responses = {name: answer if each is many else each for name, each in bindings.responses.items()}
        bound = replace(bindings, responses=responses)
        seen = _read_response_values(claim, bound)
        if seen not in held:
            held[seen] = _evaluate_claim(judge, alone, bound)
        holds = held[seen]
        if holds not in verdicts:
            verdicts[holds] = judge.judge(alone, text, bound)
        return verdicts[holds]

    return _judge_each_response(expectation, bindings, many.responses, judge_one)


def _judge_contract(claim: s.Contract, response: TriggerResponse, folder: Path) -> Verdict:
    from spanproof.assertions.judge.contracts import judge_contract  # heavy, and seldom needed

    return judge_contract(claim, response, folder)


def _find_repeated_responses(claim: s.Claim, bindings: Bindings) -> Iterator[RepeatedResponses]:
    for part in s.walk(claim):
        response = bindings.responses.get(part.step) if isinstance(part, s.Response) else None
        if isinstance(response, RepeatedResponses):
            yield response


def _evaluate_claim(judge: Judge, expectation: s.Expectation, bindings: Bindings) -> object:
    """Tell whether a claim about a response holds, or why nobody can tell: a verdict takes ten times as long."""
    try:
        plan = compile_claim(expectation, bindings)
        sql = f"SELECT ok FROM ({plan.sql})"  # noqa: S608 (a plan's own)
        return judge.connection.execute(sql, plan.parameters).fetchall()[0][0]
    except duckdb.InterruptException:
        raise
    except (MissingValue, duckdb.Error) as error:
        return str(error)


def _read_response_values(claim: s.Claim, bindings: Bindings) -> str:
    """Return what a claim sees of the responses."""
    try:
        return repr([evaluate(part, bindings) for part in s.walk(claim) if isinstance(part, s.Response)])
    except MissingValue as error:
        return str(error)


def _judge_each_response(
    expectation: s.Expectation,
    bindings: Bindings,
    responses: tuple[TriggerResponse, ...],
    judge_response_alone: ResponseJudge,
) -> Verdict:
    """Judge each answer; the verdict is the gravest, or that on the share of those that pass."""
    verdicts = [judge_response_alone(answer) for answer in responses]
    counts = Counter(each.outcome for each in verdicts)
    n, passed = len(verdicts), counts[Outcome.PASS]
    gravest = max(verdicts, key=lambda each: OUTCOMES_BY_SEVERITY.index(each.outcome))
    said = replace(gravest, n=n, final=all(each.final for each in verdicts))
    share = expectation.share
    if share is None or counts[Outcome.ERROR] or counts[Outcome.INCONCLUSIVE]:
        part = f"all {n}" if counts[gravest.outcome] == n else f"{counts[gravest.outcome]} of {n}"
        return replace(said, reason=f"{gravest.reason}; {part} responses")
    reason = f"{passed} of {n} responses hold"
    if COMPARATORS[share.operator](Decimal(passed) / n, to_decimal(evaluate(share.value, bindings))):
        return replace(said, outcome=Outcome.PASS, id="pass", reason=reason, mark="", help=None)
    return replace(said, outcome=Outcome.FAIL, id="share", reason=f"{reason}; {gravest.reason}", at=share.at)
