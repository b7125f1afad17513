"""A look at one request for which there is no proof yet: what came back, and which way it went."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from spanproof.assertions.explain.text_formatting import format_short_duration
from spanproof.assertions.findings.judged_traces import SelectedTraces
from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.judge.evaluate import Judge
from spanproof.assertions.run.events import ProofFinished, RunEvent
from spanproof.assertions.run.proof_run import ProofRun, RunSettings
from spanproof.assertions.run.trace_correlation import TraceCorrelation
from spanproof.assertions.triggers.context import TriggerFailed
from spanproof.collector.storage.store import Store
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.check.modules import load_module_text
from spanproof.query_lang.syntax.parser import parse_claim
from spanproof.query_lang.syntax.printer import format_duration_ns, format_string, is_plain_name

if TYPE_CHECKING:
    import duckdb

LIMIT_FACTOR: Final = 3  # a limit is this many times what was seen: machines differ
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
# Holds for every trace, and can be told of a whole one alone: what waits for it waits for the whole trace.
COMPLETENESS_CLAIM: Final = 'expect no span has trace_id == ""'
HopRow: TypeAlias = tuple[int, bool, str, int | None]  # from a request, by a message, to a service, its request


@dataclass(frozen=True, slots=True)
class Exploration:
    """What was seen of a request: its answer, its spans, and what can be claimed of them.

    ``missing`` says what was still lacking when the time was up.
    """

    status: int
    duration_ns: int
    span_count: int
    services: tuple[str, ...]
    claims: tuple[str, ...]
    missing: str | None
    notes: tuple[str, ...]


def explore_request(store: Store, when: str, within: str, emit: Callable[[RunEvent], None]) -> Exploration:
    """Send the request of a `when`, wait until its trace is settled, and say what was seen. Raises TriggerFailed."""
    text = f'proof "a first look" {{\n{when}\nsettle within {within}\n{COMPLETENESS_CLAIM}\n}}\n'
    module = load_module_text(text, Path("first"), "first")
    finished: list[ProofFinished] = []

    def take(event: RunEvent) -> None:
        if isinstance(event, ProofFinished):
            finished.append(event)
        emit(event)

    run = ProofRun(store, take, module, module.proofs[0], RunSettings())
    run.execute()
    (done,) = finished
    if done.error is not None:
        raise TriggerFailed(done.error)
    verdict = done.judged[0].verdict
    missing = None if verdict.outcome is Outcome.PASS else verdict.reason
    sent = run.claim_groups[0].sent_requests
    assert sent is not None  # noqa: S101 (a `when` has sent it)
    with store.cursor() as connection:
        belonging = TraceCorrelation(sent)
        state = belonging.examine_completeness(connection, belonging.find_traces(connection))
        spans, any_error, services = connection.execute(SPAN_TOTALS_SQL).fetchall()[0]
        judge = Judge(connection)
        claims = list(_derive_claims(connection, belonging.choose_displayed_trace(state), any_error=any_error))
        judge.select_traces(SelectedTraces(dict.fromkeys(state.trace_ids, True)))
        holding = tuple(claim for claim in claims if _is_passing(judge, claim))
    answer = sent.responses[0]
    return Exploration(answer.status, answer.duration_ns, spans, tuple(services or ()), holding, missing, done.notes)


def _derive_claims(connection: duckdb.DuckDBPyConnection, trace_id: str, *, any_error: bool) -> Iterator[str]:
    """Yield what can be claimed of a trace: its way, that nothing failed, how long it took."""
    row = connection.execute(ENTRY_SPAN_SQL, {"trace": trace_id}).fetchone()
    if row is None:
        return
    key, service, operation, took_ns = row
    requests = f"{write_service(service)} {write_operation(operation)}"
    paths = write_paths(connection.execute(HOPS_SQL).fetchall(), key, service)
    yield from (f"path {path}" for path in paths)
    if not paths:
        yield f"count({requests}) == 1"
    if not any_error:
        yield "no span has error"
    yield write_duration_claim(f"duration({requests})", took_ns)


def _is_passing(judge: Judge, claim: str) -> bool:
    """Tell whether a claim holds of what was seen: what was lost on the way may be in the way of that."""
    parsed = parse_claim(claim.partition("  #")[0])
    if parsed.expectation is None:
        return False
    return judge.judge(parsed.expectation, claim, Bindings()).outcome is Outcome.PASS


def write_duration_claim(value: str, observed_ns: int) -> str:
    """Return the claim that a duration keeps within a round limit: 1, 2 or 5 of some unit, with room above."""
    wanted, step = max(observed_ns * LIMIT_FACTOR, MIN_LIMIT_NS), MIN_LIMIT_NS
    while 5 * step < wanted:
        step *= 10
    limit_ns = next(factor * step for factor in (1, 2, 5) if factor * step >= wanted)
    return f"{value} < {format_duration_ns(limit_ns)}  # it took {format_short_duration(observed_ns)}"


def write_paths(hops: list[HopRow], entry: int, service: str) -> tuple[str, ...]:
    """Return the ways that a request went, as paths; none where it asked nobody.

    All branches of a step begin with the same arrow, so that where calls and messages part, messages are told apart.
    """
    of = {caller: list(group) for caller, group in groupby(sorted(hops, key=_get_caller_entry), key=_get_caller_entry)}
    apart: dict[str, None] = {}

    def write(entry: int | None, service: str, above: frozenset[int]) -> str:
        name = write_service(service)
        if entry is None or entry in above:
            return name
        legs: dict[str, dict[str, str]] = {}  # by arrow, then by callee: the longest of the ways from there
        for _, is_message, callee, callee_entry in of.get(entry, ()):
            leg = write(callee_entry, callee, above | {entry})
            known = legs.setdefault("~>" if is_message else "->", {})
            known[callee] = max(known.get(callee, ""), leg, key=len)
        written = [
            _join_branches(f"{name} {arrow}", list(legs[arrow].values())) for arrow in ("->", "~>") if arrow in legs
        ]
        apart.update(dict.fromkeys(written[1:]))
        return written[0] if written else name

    whole = write(entry, service, frozenset())
    return () if whole == write_service(service) else (whole, *apart)


def _get_caller_entry(hop: HopRow) -> int:
    return hop[0]


def _join_branches(begin: str, branches: list[str]) -> str:
    return f"{begin} {branches[0]}" if len(branches) == 1 else f"{begin} {{ {', '.join(branches)} }}"


def write_service(name: str) -> str:
    """Return a service as paths name it."""
    return name if is_plain_name(name) else format_string(name)


def write_operation(name: str) -> str:
    """Return an operation's name, in which braces stand for themselves unless they hold the proof's own variable."""
    written = format_string(name)
    return written if "{base}" in name else written.replace("\\{", "{")
