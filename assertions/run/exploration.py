"""Exploration of one request without a proof: its response, its trace, and claims that hold for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

from spanproof.assertions.explain.text_formatting import format_short_duration
from spanproof.assertions.findings.judged_traces import SelectedTraces
from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.judge.evaluate import Judge
from spanproof.assertions.run.events import ProofFinished, RunEvent
from spanproof.assertions.run.proof_run import ProofRun, RunSettings
from spanproof.assertions.run.trace_correlation import TraceCorrelation
from spanproof.assertions.triggers.context import TriggerFailed
from spanproof.collector.storage.interface import SpanStore
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.load.modules import load_module_text
from spanproof.query_lang.syntax.parser import parse_claim
from spanproof.query_lang.syntax.printer import format_duration_ns, format_string, is_plain_name

if TYPE_CHECKING:
    import duckdb

LIMIT_FACTOR: Final = 3  # a limit is this multiple of the observed duration, because machines differ
MIN_LIMIT_NS: Final = 100_000_000
ENTRY_SPAN_SQL: Final = """
SELECT span_key, service, name, end_ns - start_ns
FROM topology WHERE is_entry AND depth = 0 AND trace_id = $trace::UUID ORDER BY start_ns, span_key LIMIT 1
"""
HOPS_SQL: Final = """
SELECT h.caller_entry, h.async, h.callee, h.callee_entry
FROM hops h JOIN judged USING (trace_id)
WHERE h.caller_entry IS NOT NULL AND h.callee <> 'unknown' ORDER BY h.start_ns, h.callee
"""
SPAN_TOTALS_SQL: Final = """
SELECT count(*), coalesce(bool_or(t.error), false), list(DISTINCT t.service ORDER BY t.service)
FROM topology t JOIN judged USING (trace_id)
"""
# Holds for every trace, but is decided only for a complete one: waiting for it means waiting for the whole trace.
COMPLETENESS_CLAIM: Final = 'expect no span has trace_id == ""'
HopRow: TypeAlias = tuple[int, bool, str, int | None]  # caller entry, whether it is a message, callee, callee entry


class Exploration(Struct, frozen=True):
    """The result of an exploration: the response, the spans, and the claims that hold for them.

    ``missing`` describes the spans that were missing at the time limit.
    """

    status: int
    duration_ns: int
    span_count: int
    services: tuple[str, ...]
    claims: tuple[str, ...]
    missing: str | None
    notes: tuple[str, ...]


def explore_request(store: SpanStore, when: str, within: str, emit: Callable[[RunEvent], None]) -> Exploration:
    """Send the request of a `when`, wait until its trace is settled, and return the result. Raises TriggerFailed."""
    text = f'proof "a first look" {{\n{when}\nsettle within {within}\n{COMPLETENESS_CLAIM}\n}}\n'
    module = load_module_text(text, Path("first"), "first")
    finished: list[ProofFinished] = []

    def collect(event: RunEvent) -> None:
        if isinstance(event, ProofFinished):
            finished.append(event)
        emit(event)

    run = ProofRun(store, collect, module, module.proofs[0], RunSettings())
    run.execute()
    (result,) = finished
    if result.error is not None:
        raise TriggerFailed(result.error)
    verdict = result.judged[0].verdict
    missing = None if verdict.outcome is Outcome.PASS else verdict.reason
    sent_requests = run.claim_groups[0].sent_requests
    assert sent_requests is not None  # noqa: S101 (the proof has a `when`)
    with store.cursor() as connection:
        correlation = TraceCorrelation(sent_requests)
        state = correlation.examine_completeness(connection, correlation.find_traces(connection))
        spans, any_error, services = connection.execute(SPAN_TOTALS_SQL).fetchall()[0]
        judge = Judge(connection)
        claims = list(derive_claims(connection, correlation.choose_displayed_trace(state), any_error=any_error))
        judge.select_traces(SelectedTraces(dict.fromkeys(state.trace_ids, True)))
        holding = tuple(claim for claim in claims if _is_passing(judge, claim))
    response = sent_requests.responses[0]
    return Exploration(
        response.status, response.duration_ns, spans, tuple(services or ()), holding, missing, result.notes
    )


def derive_claims(connection: duckdb.DuckDBPyConnection, trace_id: str, *, any_error: bool) -> Iterator[str]:
    """Yield candidate claims about a trace: its paths, the absence of errors, its duration."""
    row = connection.execute(ENTRY_SPAN_SQL, {"trace": trace_id}).fetchone()
    if row is None:
        return
    key, service, operation, duration_ns = row
    requests = f"{write_service(service)} {write_operation(operation)}"
    paths = write_paths(connection.execute(HOPS_SQL).fetchall(), key, service)
    yield from (f"path {path}" for path in paths)
    if not paths:
        yield f"count({requests}) == 1"
    if not any_error:
        yield "no span has error"
    if duration_ns is not None:  # the span has ended
        yield write_duration_claim(f"duration({requests})", duration_ns)


def _is_passing(judge: Judge, claim: str) -> bool:
    """Return whether a claim passes for the observed traces; lost spans may prevent that."""
    parsed = parse_claim(claim.partition("  #")[0])
    if parsed.expectation is None:
        return False
    return judge.judge(parsed.expectation, claim, Bindings()).outcome is Outcome.PASS


def write_duration_claim(value: str, observed_ns: int) -> str:
    """Return the claim that a duration stays below a round limit: 1, 2 or 5 times a power of ten, with a margin."""
    minimum, step = max(observed_ns * LIMIT_FACTOR, MIN_LIMIT_NS), MIN_LIMIT_NS
    while 5 * step < minimum:
        step *= 10
    limit_ns = next(factor * step for factor in (1, 2, 5) if factor * step >= minimum)
    return f"{value} < {format_duration_ns(limit_ns)}  # it took {format_short_duration(observed_ns)}"


def write_paths(hops: list[HopRow], entry: int, service: str) -> tuple[str, ...]:
    """Return the paths that a request took; empty if it made no calls.

    All branches of a step begin with the same arrow, so a step with both calls and messages gives separate paths.
    """
    hops_by_caller = {
        caller: list(group) for caller, group in groupby(sorted(hops, key=_get_caller_entry), key=_get_caller_entry)
    }
    separate_paths: dict[str, None] = {}

    def write(entry: int | None, service: str, ancestors: frozenset[int]) -> str:
        name = write_service(service)
        if entry is None or entry in ancestors:
            return name
        segments: dict[str, dict[str, str]] = {}  # by arrow, then by callee: the longest path from the callee
        for _, is_message, callee, callee_entry in hops_by_caller.get(entry, ()):
            segment = write(callee_entry, callee, ancestors | {entry})
            by_callee = segments.setdefault("~>" if is_message else "->", {})
            by_callee[callee] = max(by_callee.get(callee, ""), segment, key=len)
        written = [
            _join_branches(f"{name} {arrow}", list(segments[arrow].values()))
            for arrow in ("->", "~>")
            if arrow in segments
        ]
        separate_paths.update(dict.fromkeys(written[1:]))
        return written[0] if written else name

    whole = write(entry, service, frozenset())
    return () if whole == write_service(service) else (whole, *separate_paths)


def _get_caller_entry(hop: HopRow) -> int:
    return hop[0]


def _join_branches(begin: str, branches: list[str]) -> str:
    return f"{begin} {branches[0]}" if len(branches) == 1 else f"{begin} {{ {', '.join(branches)} }}"


def write_service(name: str) -> str:
    """Return the name of a service as a path writes it."""
    return name if is_plain_name(name) else format_string(name)


def write_operation(name: str) -> str:
    """Return the name of an operation as a string; only the braces of ``{base}``, the proof's variable, interpolate."""
    written = format_string(name)
    return written if "{base}" in name else written.replace("\\{", "{")
