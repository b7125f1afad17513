"""Descriptions of the step at which a path ends early, and of a wrong order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spanproof.assertions.explain import units
from spanproof.assertions.explain.claim_text import ClaimText
from spanproof.assertions.explain.text_formatting import format_list
from spanproof.assertions.findings.finding_counts import Finding
from spanproof.assertions.findings.path_search import PathMismatch, resolve_service
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import find_nearest

if TYPE_CHECKING:
    import duckdb


def describe_mismatch(claim_text: ClaimText, mismatch: PathMismatch) -> tuple[str, str | None, str | None]:
    """Return the reason, the nearest miss, and a hint."""
    expected = claim_text.read_source(mismatch.step.at)
    if mismatch.kind == "start":
        return f"no request of `{expected}` in this trace", None, None
    caller = claim_text.read_source(mismatch.caller.at) if mismatch.caller else "the caller"
    if mismatch.kind == "split":
        return f"no single request of `{caller}` has all of these branches", None, None
    if mismatch.kind == "message":
        arrow = "->" if mismatch.arrow == "~>" else "~>"
        return (
            f"`{caller}` reached `{expected}` {'by a call' if arrow == '->' else 'by a message'}",
            f"{arrow} {expected}",
            f"write `{arrow}` for a {'call' if arrow == '->' else 'message'}",
        )
    if mismatch.kind == "operation":
        observed = format_list([hop.operation for hop in mismatch.observed_hops])
        return f"`{caller}` called {observed}, not `{expected}`", observed, None
    if not mismatch.observed_hops:
        did = "sent no message" if mismatch.arrow == "~>" else "called nothing"
        return f"`{caller}` {did}, so not `{expected}`", None, None
    observed = format_list([hop.service for hop in mismatch.observed_hops])
    if mismatch.kind == "further":
        return (
            f"`{caller}` called {observed}, not `{expected}`",
            observed,
            f"`{expected}` was reached further on: write `->>`",
        )
    near = find_nearest(expected, {hop.service for hop in mismatch.observed_hops}, 1)
    if near:
        help_ = f"if that is intended, write `({expected} | {near[0]})`"
        return f"`{caller}` called `{near[0]}`, not `{expected}`", f"`{near[0]}`", help_
    return f"`{caller}` called {observed}, not `{expected}`", observed, None


def count_matched_instead(
    connection: duckdb.DuckDBPyConnection, claim_text: ClaimText, mismatch: PathMismatch, bindings: Bindings
) -> str:
    """Return the number of traces with the call that replaced the expected one, if one service received it."""
    callees = {hop.service for hop in mismatch.observed_hops}
    near = find_nearest(claim_text.read_source(mismatch.step.at), callees, 1) or (
        list(callees) if len(callees) == 1 else []
    )
    callers = [resolve_service(target, bindings) for target in mismatch.caller.targets] if mismatch.caller else []
    if len(near) != 1 or len(callers) != 1 or callers[0] is None:
        return ""
    ((n,),) = connection.execute(
        "SELECT count(DISTINCT trace_id) FROM attempts SEMI JOIN selected USING (trace_id)"
        " WHERE caller = $caller AND callee = $callee",
        {"caller": callers[0], "callee": near[0]},
    ).fetchall()
    return f" ({n})"


def explain_order(claim: s.Before, claim_text: ClaimText, sample: Finding | None) -> tuple[str, str]:
    """Return the reason for which the order is wrong, and the id of the verdict."""
    if sample is None or sample.value is None:
        return "the order is another one", "out-of-order"
    if claim.limit is not None and sample.note and sample.note[0]:
        limit = claim_text.read_source(claim.limit.at)
        return f"the second started {units.format_duration(sample.value)} after the first, not within {limit}", "late"
    return f"the second started {units.format_duration(-sample.value)} before the first had ended", "out-of-order"
