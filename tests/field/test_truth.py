"""The truth about claims, computed from logs that are written by hand."""

from __future__ import annotations

from spanproof.tests.field.arrivals import Attempt, Outcome, Request, RunLog
from spanproof.tests.field.plans import PLANS
from spanproof.tests.field.truth import MS, Names, Truth, group_calls, list_claims

NAMES = Names("inventory", "backup")


def make_log(*outcomes: Outcome, service: str = "inventory") -> RunLog:
    """Return the log of one request that asked once, with attempts of 10 ms every 110 ms."""
    log = RunLog([Request("0" * 32, 0, 1000 * MS, 200)])
    for index, outcome in enumerate(outcomes):
        start_ns = (1 + 110 * index) * MS
        log.attempts.append(Attempt(service, "1", "/items/1", "", start_ns, start_ns + 10 * MS, outcome))
    return log


def read_truth(log: RunLog, plan: str = "503-once") -> dict[str, Truth]:
    return {claim.text: claim.truth for claim in list_claims(PLANS[plan], log, NAMES)}


def test_recovered_retry() -> None:
    truth = read_truth(make_log(Outcome.RETRYABLE, Outcome.OK))
    assert truth["retry web -> inventory { attempts == 2 }"] is Truth.HOLDS
    assert truth["retry web -> inventory { attempts == 3 }"] is Truth.FAILS
    assert truth["retry web -> inventory { recovered }"] is Truth.HOLDS
    assert truth["retry web -> inventory { exhausted }"] is Truth.FAILS
    assert truth["retry web -> inventory { backoff >= 50ms }"] is Truth.HOLDS
    assert truth["retry web -> inventory { backoff >= 300ms }"] is Truth.FAILS
    assert truth["no retry web -> inventory"] is Truth.FAILS
    assert truth["error_rate(web -> inventory) == 0%"] is Truth.HOLDS


def test_success_exercises_no_retry() -> None:
    truth = read_truth(make_log(Outcome.OK), "ok")
    assert truth["retry web -> inventory { attempts >= 2 }"] is Truth.VACUOUS
    assert truth["fallback web -> inventory => backup"] is Truth.VACUOUS
    assert truth["no retry web -> inventory"] is Truth.HOLDS


def test_failure_without_retry_fails_retry() -> None:
    truth = read_truth(make_log(Outcome.RETRYABLE))
    assert truth["retry web -> inventory { attempts >= 2 }"] is Truth.FAILS
    assert truth["retry web -> inventory { attempts == 1 }"] is Truth.FAILS
    assert truth["error_rate(web -> inventory) == 100%"] is Truth.HOLDS


def test_redirect_is_no_retry() -> None:
    truth = read_truth(make_log(Outcome.REDIRECT, Outcome.OK), "redirect")
    assert truth["no retry web -> inventory"] is Truth.HOLDS


def test_only_cuts_exercise_timeouts() -> None:
    assert read_truth(make_log(Outcome.RETRYABLE))["timeout web -> inventory within 1020ms"] is Truth.VACUOUS
    assert read_truth(make_log(Outcome.CUT))["timeout web -> inventory within 1020ms"] is Truth.HOLDS


def test_attempts_are_grouped_by_number() -> None:
    log = make_log(Outcome.RETRYABLE, Outcome.OK)
    log.attempts[1].ask = "2"
    assert [len(call) for call in group_calls(log, "inventory")] == [1, 1]


def test_circuit_opens_where_requests_make_no_attempt() -> None:
    log = RunLog()
    for index, outcome in enumerate((Outcome.RETRYABLE, Outcome.RETRYABLE, Outcome.RETRYABLE, None, None, Outcome.OK)):
        start_ns = 100 * index * MS
        log.requests.append(Request(f"{index:032x}", start_ns, start_ns + 50 * MS, 502))
        if outcome is not None:
            log.attempts.append(Attempt("inventory", "1", "/items/1", "", start_ns + MS, start_ns + 10 * MS, outcome))
    truth = read_truth(log, "outage")
    assert truth["circuit web -> inventory { opens after 3 failures }"] is Truth.HOLDS
    assert truth["circuit web -> inventory { opens after 2 failures }"] is Truth.FAILS
    assert truth["circuit web -> inventory { opens after 4 failures }"] is Truth.FAILS
    assert truth["circuit web -> inventory { opens after 3 failures, holds >= 145ms }"] is Truth.HOLDS
    assert truth["circuit web -> inventory { opens after 3 failures, holds >= 582ms }"] is Truth.FAILS
