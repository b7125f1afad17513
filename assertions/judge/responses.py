"""Judge of claims about responses; each response of a repeated request is judged separately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
from msgspec.structs import replace

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
    """Judge a contract, or a claim about the responses of a repeated request; return None for other claims."""
    claim = expectation.claim
    try:
        substituted = substitute_aggregates(expectation, bindings)
    except MissingValue as error:
        return Verdict(Outcome.INCONCLUSIVE, "nothing", str(error), claim.at, "")
    if substituted != expectation:
        verdict = judge.judge(substituted, text, bindings)
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
        reason = "this claim reads two repeated requests, whose responses cannot be paired"
        return Verdict(Outcome.ERROR, "error", reason, claim.at, "")
    (repeated_responses,) = repeated.values()
    single_claim = replace(expectation, share=None)
    results: dict[str, object] = {}  # by the values that the claim reads from a response
    verdicts: dict[object, Verdict] = {}  # by result, from the first response with it

    def judge_one(answer: TriggerResponse) -> Verdict:
        responses = {name: answer if each is repeated_responses else each for name, each in bindings.responses.items()}
        single_bindings = replace(bindings, responses=responses)
        values = _read_response_values(claim, single_bindings)
        if values not in results:
            results[values] = _evaluate_claim(judge, single_claim, single_bindings)
        result = results[values]
        if result not in verdicts:
            verdicts[result] = judge.judge(single_claim, text, single_bindings)
        return verdicts[result]

    return _judge_each_response(expectation, bindings, repeated_responses.responses, judge_one)


def _judge_contract(claim: s.Contract, response: TriggerResponse, folder: Path) -> Verdict:
    from spanproof.assertions.judge.contracts import judge_contract  # slow to import, and rarely needed

    return judge_contract(claim, response, folder)


def _find_repeated_responses(claim: s.Claim, bindings: Bindings) -> Iterator[RepeatedResponses]:
    for part in s.walk(claim):
        response = bindings.responses.get(part.step) if isinstance(part, s.Response) else None
        if isinstance(response, RepeatedResponses):
            yield response


def _evaluate_claim(judge: Judge, expectation: s.Expectation, bindings: Bindings) -> object:
    """Return whether a claim about a response holds, or the error text. A verdict takes ten times as long."""
    try:
        plan = compile_claim(expectation, bindings)
        sql = f"SELECT ok FROM ({plan.sql})"  # noqa: S608 (SQL of a plan)
        return judge.connection.execute(sql, plan.parameters).fetchall()[0][0]
    except duckdb.InterruptException:
        raise
    except (MissingValue, duckdb.Error) as error:
        return str(error)


def _read_response_values(claim: s.Claim, bindings: Bindings) -> str:
    """Return the values that a claim reads from the responses, as a text."""
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
    """Judge each response. Return the worst verdict, or the verdict on the share of passing responses."""
    verdicts = [judge_response_alone(answer) for answer in responses]
    counts = Counter(each.outcome for each in verdicts)
    n, passed = len(verdicts), counts[Outcome.PASS]
    worst = max(verdicts, key=lambda each: OUTCOMES_BY_SEVERITY.index(each.outcome))
    verdict = replace(worst, n=n, final=all(each.final for each in verdicts))
    share = expectation.share
    if share is None or counts[Outcome.ERROR] or counts[Outcome.INCONCLUSIVE]:
        part = f"all {n}" if counts[worst.outcome] == n else f"{counts[worst.outcome]} of {n}"
        return replace(verdict, reason=f"{worst.reason}; {part} responses")
    reason = f"{passed} of {n} responses hold"
    if COMPARATORS[share.operator](Decimal(passed) / n, to_decimal(evaluate(share.value, bindings))):
        return replace(verdict, outcome=Outcome.PASS, id="pass", reason=reason, mark="", help=None)
    return replace(verdict, outcome=Outcome.FAIL, id="share", reason=f"{reason}; {worst.reason}", at=share.at)
