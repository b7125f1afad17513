"""Deterministic sample run with one proof for each outcome."""

from __future__ import annotations

import dataclasses

from msgspec.structs import replace

from spanproof.assertions.explain.likely_cause import LikelyCause
from spanproof.assertions.explain.trace_evidence import SpanView, TraceView
from spanproof.assertions.findings.verdict import Mark, Outcome, Verdict, Witness, find_worst_outcome
from spanproof.assertions.reports.documents import RunDocument, describe_proof
from spanproof.assertions.run.events import ClaimJudged, ProofFinished, Wait
from spanproof.query_lang.check.checker import check_file
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import parse_file

MS = 1_000_000
BEGIN_NS = 1_769_860_800_000_000_000
TEXT = """\
proof "card is charged" [smoke, checkout] {
  when POST "http://shop.example/checkout"
  expect response.status == 201
  expect path gateway -> orders -> payments
  expect count(orders -> payments) == 1
  expect duration(gateway) < 800ms
}
"""
FILE = parse_file(TEXT, "checks/checkout.proof")
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE = TraceView(
    TRACE_ID, BEGIN_NS, 612 * MS,
    (
        SpanView("01", "gateway", "POST /checkout", "server", BEGIN_NS, 612 * MS, False, False, False, ()),
        SpanView("02", "orders", "POST /orders", "server", BEGIN_NS + 10 * MS, 587 * MS, False, True, False, (True,),
                 {"http.request.method": "POST", "http.response.status_code": "201", "note": "<b>&"}),
        SpanView("03", "inventory", "GET /stock?a=1&b=<2>", "server", BEGIN_NS + 20 * MS, 36 * MS, False, False,
                 False, (True, False)),
        SpanView("04", "payments-legacy", "POST /charge", "server", BEGIN_NS + 60 * MS, 527 * MS, True, True, True,
                 (True, True)),
    ),
    2,
)  # fmt: skip
WAITS = (
    Wait(3 * MS, 4, ("no span of this trace has arrived",)),
    Wait(250 * MS, 2, ("`orders` called `payments-legacy`, whose own span has not arrived",)),
    Wait(640 * MS, 1, ()),
)


def find_range(text: str) -> s.TextRange:
    start = TEXT.index(text)
    return s.TextRange(start, start + len(text))


STATUS, PATH, COUNT, DURATION = (
    find_range(text)
    for text in (
        "response.status == 201",
        "path gateway -> orders -> payments",
        "count(orders -> payments) == 1",
        "duration(gateway) < 800ms",
    )
)
PASSED = (
    Verdict(Outcome.PASS, "pass", "201", STATUS, "", observed="201"),
    Verdict(Outcome.PASS, "pass", "in 1 trace", PATH, "", 1, witnesses=(Witness(TRACE_ID, "02"),)),
    Verdict(Outcome.PASS, "pass", "1 (n = 1)", COUNT, "", 1, "1"),
    Verdict(Outcome.PASS, "pass", "612ms (n = 1)", DURATION, "", 1, "612ms"),
)
FAILED = (
    PASSED[0],
    Verdict(
        Outcome.FAIL, "path-mismatch", "`orders` called `payments-legacy`, not `payments`", find_range("payments"),
        "not taken; nearest: `payments-legacy`", 1, "`payments-legacy`",
        (Witness(TRACE_ID, "02"), Witness(TRACE_ID, "04")),
        "if that is intended, write `(payments | payments-legacy)`",
        marks=(Mark(find_range("orders"), "the path was followed up to here"),), missing_services=("payments",),
    ),
    Verdict(
        Outcome.FAIL, "comparison", "count(orders -> payments) is 0, not == 1", COUNT, "0 (n = 0)", 0, "0",
        missing_services=("payments",), follows_from=1,
    ),
    PASSED[3],
)  # fmt: skip
UNDECIDED = (
    PASSED[0],
    Verdict(
        Outcome.INCONCLUSIVE, "incomplete", "`orders` called `payments`, whose own span has not arrived", PATH,
        "cannot be decided", 0,
    ),
    PASSED[2],
    PASSED[3],
)  # fmt: skip


def finish(*verdicts: Verdict, error: str | None = None, view: TraceView | None = None) -> ProofFinished:
    assert check_file(FILE) == ()
    (proof,) = FILE.items
    assert isinstance(proof, s.Proof)
    expectations = [item for item in proof.statements if isinstance(item, s.Expectation)]
    judged = tuple(ClaimJudged(FILE, each, verdict) for each, verdict in zip(expectations, verdicts, strict=False))
    outcome = Outcome.ERROR if error else find_worst_outcome([verdict.outcome for verdict in verdicts])
    return ProofFinished(FILE, proof, outcome, judged, view, 1_234 * MS, error, WAITS if verdicts else ())


CAUSES = (
    LikelyCause("payments", 0.4, "own time 612ms against 80ms; network `orders -> payments 9ms against 2ms`"),
    LikelyCause("orders", 0.05, "a request calls `payments 2 times against 1`"),
)
FINISHED = {
    "pass": finish(*PASSED),
    "fail": replace(finish(*FAILED, view=TRACE), likely_causes=CAUSES),
    "inconclusive": finish(*UNDECIDED, view=dataclasses.replace(TRACE, spans=TRACE.spans[:2], hidden=0)),
    "error": finish(error="POST http://shop.example/checkout failed: [Errno 111] Connection refused"),
    "flaky": replace(finish(*PASSED), tries=(finish(error="refused"), finish(*FAILED, view=TRACE))),
}


def make_run(*endings: str) -> RunDocument:
    """Return a run whose proofs have these outcomes."""
    proofs = tuple(describe_proof(FINISHED[ending]) for ending in endings)
    outcome = find_worst_outcome([proof.outcome for proof in proofs])
    return RunDocument("0123456789abcdef", "run", BEGIN_NS, BEGIN_NS + 1_500 * MS, outcome, proofs)
