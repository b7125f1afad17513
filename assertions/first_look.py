"""A look at one request for which there is no proof yet: what came back, and which way it went."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from spanproof.assertions.belonging import Belonging
from spanproof.assertions.evaluate import Judge
from spanproof.assertions.events import Event, ProofFinished
from spanproof.assertions.proof_run import ProofRun, Terms
from spanproof.assertions.reports.wording import show_short
from spanproof.assertions.selected import Selected
from spanproof.assertions.triggers.context import TriggerFailed
from spanproof.assertions.verdict import Outcome
from spanproof.collector.store import Store
from spanproof.query_lang.constants import Bindings
from spanproof.query_lang.modules import load_text
from spanproof.query_lang.parse import parse_claim
from spanproof.query_lang.writing import is_plain, write_ns, write_text

if TYPE_CHECKING:
    import duckdb

SLACK: Final = 3  # a limit is this many times what was seen: machines differ
LEAST_NS: Final = 100_000_000
ENTRY: Final = """
SELECT span_key, service, name, end_ns - start_ns
FROM tree WHERE is_entry AND depth = 0 AND trace_id = $trace::UUID ORDER BY start_ns, span_key LIMIT 1
"""
HOPS: Final = """
SELECT h.caller_entry, h.async, h.callee, h.callee_entry
FROM hops h JOIN judged USING (trace_id)
WHERE h.caller_entry IS NOT NULL AND h.callee <> 'unknown' ORDER BY h.start_ns, h.callee
"""
SPANS: Final = """
SELECT count(*), coalesce(bool_or(t.error), false), list(DISTINCT t.service ORDER BY t.service)
FROM tree t JOIN judged USING (trace_id)
"""
# Holds for every trace, and can be told of a whole one alone: what waits for it waits for the whole trace.
WHOLE: Final = 'expect no span has trace_id == ""'
Hop: TypeAlias = tuple[int, bool, str, int | None]  # from a request, by a message, to a service, its request


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What was seen of a request: its answer, its spans, and what can be claimed of them.

    ``missing`` says what was still lacking when the time was up.
    """

    status: int
    took_ns: int
    spans: int
    services: tuple[str, ...]
    claims: tuple[str, ...]
    missing: str | None
    notes: tuple[str, ...]


def look_at(store: Store, when: str, within: str, emit: Callable[[Event], None]) -> FirstLook:
    """Send the request of a `when`, wait until its trace is settled, and say what was seen. Raises TriggerFailed."""
    text = f'proof "a first look" {{\n{when}\nsettle within {within}\n{WHOLE}\n}}\n'
    module = load_text(text, Path("first"), "first")
    finished: list[ProofFinished] = []

    def take(event: Event) -> None:
        if isinstance(event, ProofFinished):
            finished.append(event)
        emit(event)

    run = ProofRun(store, take, module, module.proofs[0], Terms())
    run.carry_out()
    (done,) = finished
    if done.error is not None:
        raise TriggerFailed(done.error)
    verdict = done.judged[0].verdict
    missing = None if verdict.outcome is Outcome.PASS else verdict.reason
    sent = run.segments[0].sent
    assert sent is not None  # noqa: S101 (a `when` has sent it)
    with store.cursor() as connection:
        belonging = Belonging(sent)
        state = belonging.examine(connection, belonging.relate(connection))
        spans, any_error, services = connection.execute(SPANS).fetchall()[0]
        judge = Judge(connection)
        claims = list(_find_claims(connection, belonging.find_shown(state), any_error=any_error))
        judge.select(Selected(dict.fromkeys(state.traces, True)))
        holding = tuple(claim for claim in claims if _holds(judge, claim))
    answer = sent.answers[0]
    return FirstLook(answer.status, answer.duration_ns, spans, tuple(services or ()), holding, missing, done.notes)


def _find_claims(connection: duckdb.DuckDBPyConnection, shown: str, *, any_error: bool) -> Iterator[str]:
    """Yield what can be claimed of a trace: its way, that nothing failed, how long it took."""
    row = connection.execute(ENTRY, {"trace": shown}).fetchone()
    if row is None:
        return
    key, service, operation, took_ns = row
    requests = f"{write_service(service)} {write_operation(operation)}"
    paths = write_paths(connection.execute(HOPS).fetchall(), key, service)
    yield from (f"path {path}" for path in paths)
    if not paths:
        yield f"count({requests}) == 1"
    if not any_error:
        yield "no span has error"
    yield write_limit(f"duration({requests})", took_ns)


def _holds(judge: Judge, claim: str) -> bool:
    """Tell whether a claim holds of what was seen: what was lost on the way may be in the way of that."""
    parsed = parse_claim(claim.partition("  #")[0])
    if parsed.expectation is None:
        return False
    return judge.judge(parsed.expectation, claim, Bindings()).outcome is Outcome.PASS


def write_limit(value: str, seen_ns: int) -> str:
    """Return the claim that a duration keeps within a round limit: 1, 2 or 5 of some unit, with room above."""
    wanted, step = max(seen_ns * SLACK, LEAST_NS), LEAST_NS
    while 5 * step < wanted:
        step *= 10
    limit_ns = next(factor * step for factor in (1, 2, 5) if factor * step >= wanted)
    return f"{value} < {write_ns(limit_ns)}  # it took {show_short(seen_ns)}"


def write_paths(hops: list[Hop], entry: int, service: str) -> tuple[str, ...]:
    """Return the ways that a request went, as paths; none where it asked nobody.

    All branches of a step begin with the same arrow, so that where calls and messages part, messages are told apart.
    """
    of = {caller: list(group) for caller, group in groupby(sorted(hops, key=_caller), key=_caller)}
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
        written = [_join(f"{name} {arrow}", list(legs[arrow].values())) for arrow in ("->", "~>") if arrow in legs]
        apart.update(dict.fromkeys(written[1:]))
        return written[0] if written else name

    whole = write(entry, service, frozenset())
    return () if whole == write_service(service) else (whole, *apart)


def _caller(hop: Hop) -> int:
    return hop[0]


def _join(begin: str, legs: list[str]) -> str:
    return f"{begin} {legs[0]}" if len(legs) == 1 else f"{begin} {{ {', '.join(legs)} }}"


def write_service(name: str) -> str:
    """Return a service as paths name it."""
    return name if is_plain(name) else write_text(name)


def write_operation(name: str) -> str:
    """Return an operation's name, in which braces stand for themselves unless they hold the proof's own variable."""
    written = write_text(name)
    return written if "{base}" in name else written.replace("\\{", "{")
