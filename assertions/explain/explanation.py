"""Explanations of verdicts: the observed value, the expected one, and the nearest miss."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from spanproof.assertions.explain import units
from spanproof.assertions.explain.claim_text import ClaimText
from spanproof.assertions.explain.evidence_text import blame_part, describe_difference, quote_status_message
from spanproof.assertions.explain.hints import suggest_nearest
from spanproof.assertions.explain.missing_services import find_missing_services
from spanproof.assertions.explain.path_text import count_matched_instead, describe_mismatch, explain_order
from spanproof.assertions.explain.resilience_text import RETRY_TIERS, explain_circuit, explain_fallback, explain_retry
from spanproof.assertions.explain.text_formatting import format_count, format_times
from spanproof.assertions.findings.path_search import PathFinder, read_hops, resolve_service
from spanproof.assertions.findings.verdict import Mark, Outcome, Verdict, Witness
from spanproof.query_lang.check.constants import Bindings, is_constant
from spanproof.query_lang.check.operands import compares_value_sets
from spanproof.query_lang.compile import path_segments
from spanproof.query_lang.sql.plan import Plan
from spanproof.query_lang.syntax import nodes as s

if TYPE_CHECKING:
    import duckdb

    from spanproof.assertions.findings.finding_counts import Finding, FindingCounts
    from spanproof.assertions.findings.trace_share import TraceCounts


class Explainer:
    """Builder of the explained verdicts on one claim."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        expectation: s.Expectation,
        text: str,
        bindings: Bindings,
        missing: tuple[str, ...],
        *,
        has_baseline: bool = False,
    ) -> None:
        self.connection = connection
        self.claim = expectation.claim
        self.claim_text = ClaimText(expectation.claim, text)
        self.bindings = bindings
        self.missing = missing
        self.has_baseline = has_baseline
        self.is_without_witnesses = False

    def without_witnesses(self) -> Explainer:
        """Return a copy that does not look up witnesses."""
        explainer = copy(self)
        explainer.is_without_witnesses = True
        return explainer

    # ## The verdicts

    def make_error(self, message: str) -> Verdict:
        """Return the verdict on a claim that cannot be judged."""
        return Verdict(Outcome.ERROR, "error", message.splitlines()[0], self.claim.at, "")

    def make_pass(self, plan: Plan, counts: FindingCounts) -> Verdict:
        """Return the verdict on a claim that holds."""
        sample = counts.find_sample(ok=True) or counts.find_sample(ok=None)
        observed = (
            units.format_value(sample.value, plan.value_type) if sample and plan.value_type.kind != "nothing" else None
        )
        witnesses = self._find_witnesses(sample)
        n = self._count_values(plan, counts, sample)
        return Verdict(
            Outcome.PASS,
            "pass",
            self._describe_pass(plan, counts, sample, n),
            self.claim.at,
            "",
            n,
            observed,
            witnesses,
        )

    def make_failure(self, plan: Plan, counts: FindingCounts) -> Verdict:
        """Return the verdict on a claim with a counterexample, or one that complete evidence does not support."""
        sample = counts.find_sample(ok=False)
        n = self._count_values(plan, counts, sample)
        match self.claim:
            case s.Path(mode="only") if sample and sample.note and sample.note[0] == path_segments.OTHER_CALL_MADE:
                reason, id_ = f"there were other calls: {sample.value}", "other-call"
                mark = f"{counts.holds} of {counts.n} traces; also called: {sample.value}"
            case s.Path(mode="some" | "only") as claim:
                return self._explain_path_mismatch(claim, counts, sample)
            case s.Path(mode="no"):
                reason, id_ = "this path was taken", "path-taken"
                mark = f"taken {format_times(counts.fails)}"
            case s.Retry() as claim:
                reason, id_, mark = explain_retry(claim, self.claim_text, sample, counts)
                reason += describe_difference(self.connection, sample) + self._qualify(sample, 3)
            case s.NoRetry():
                reason, id_ = f"it was tried {format_times(sample.value if sample else 0)}", "retried"
                mark = f"{counts.fails} of {counts.n} calls were retried"
            case s.Fallback() as claim:
                reason, id_, mark = explain_fallback(self.claim_text.read_source(claim.to.at), sample, counts)
            case s.Before() as claim:
                reason, id_ = explain_order(claim, self.claim_text, sample)
                mark = f"{counts.fails} of {counts.n} traces"
            case s.Timeout() as claim:
                reason, id_ = f"an attempt lasted {self._format_observed(plan, sample)}, not cut off in time", "timeout"
                mark = f"{self._format_observed(plan, sample)}; {counts.fails} of {counts.n} attempts"
            case s.Circuit():
                reason, id_, mark = explain_circuit(sample, counts)
            case s.Budget() as claim:
                number = sample.note[0] if sample and sample.note else 0
                part = self.claim_text.name_budget_part(claim, number)
                reason, id_ = f"{part} took {self._format_observed(plan, sample)}", "over-budget"
                mark = f"{self._format_observed(plan, sample)}"
                if not number and sample is not None and sample.trace_id is not None:
                    reason += blame_part(
                        self.connection, sample.trace_id.hex, self.bindings, has_baseline=self.has_baseline
                    )
            case s.No():
                reason, id_ = f"{counts.fails} matched", "not-absent"
                observed_value = (
                    f", {self.claim_text.read_subject()} {self._format_observed(plan, sample)}"
                    if self._has_value(plan, sample)
                    else ""
                )
                mark = reason + observed_value
            case s.Some() as claim:
                return self._explain_none_found(claim, counts)
            case _:
                reason, id_, mark = self._explain_comparison(plan, counts, sample)
        reason += quote_status_message(self.connection, sample)
        observed = self.claim_text.format_observed(plan, sample)
        missing = (
            self._find_missing_services()
            if sample is not None and sample.value == 0 and plan.family == "number"
            else ()
        )
        return Verdict(
            Outcome.FAIL, id_, reason, self.claim_text.find_failed_part(sample), mark, n, observed,
            self._find_witnesses(sample),
            marks=self.claim_text.make_related_marks(counts, sample), missing_services=missing,
        )  # fmt: skip

    def make_overrun(self, plan: Plan, counts: FindingCounts) -> Verdict:
        """Return the verdict on a budget whose total is exceeded, while later spans may change its parts."""
        sample = next((each for each in counts.samples if each.ok is False and each.note == [0]), None)
        took = self._format_observed(plan, sample)
        return Verdict(
            Outcome.FAIL, "over-budget", f"the whole took {took}; its parts are open, as more spans may still arrive",
            self.claim_text.find_failed_part(sample), took, counts.n, took, self._find_witnesses(sample), final=False,
        )  # fmt: skip

    def make_nothing_selected(self) -> Verdict:
        """Return the verdict on any claim about a window without traces."""
        return Verdict(
            Outcome.INCONCLUSIVE, "nothing-matched", "the window contains no trace", self.claim.at, "no trace",
            cause="no trace",
        )  # fmt: skip

    def make_incomplete(self) -> Verdict:
        """Return the verdict on a claim that needs complete traces, while they are incomplete."""
        listed = self._describe_missing_spans()
        return Verdict(
            Outcome.INCONCLUSIVE, "incomplete", listed, self.claim.at, "cannot be decided", final=False, cause=listed
        )

    def make_indeterminate(self, plan: Plan, counts: FindingCounts) -> Verdict:
        """Return the verdict for findings that neither hold nor fail."""
        reason = f"{plan.undecided_reason} ({counts.empty} of {counts.n + counts.empty})"
        return Verdict(Outcome.INCONCLUSIVE, "untold", reason, self.claim.at, "cannot be decided", counts.n)

    def make_nothing_matched(self, plan: Plan) -> Verdict:
        """Return the verdict on a claim that matched nothing; it never passes."""
        if plan.needs_occasion:
            reason = f"not exercised: {self.claim_text.describe_missing_occasion()}"
            return Verdict(
                Outcome.INCONCLUSIVE,
                "not-exercised",
                reason,
                self.claim.at,
                "not exercised",
                missing_services=self._find_missing_services(),
            )
        help_ = self.suggest_nearest()
        reason = "nothing matched" + (f"; {help_}" if help_ else "")
        return Verdict(
            Outcome.INCONCLUSIVE, "nothing-matched", reason, self.claim_text.locate_first_selection(),
            "nothing matched", help=help_, missing_services=self._find_missing_services(),
        )  # fmt: skip

    def suggest_nearest(self) -> str | None:
        """Return the nearest services and operations that exist, or None."""
        return suggest_nearest(self.connection, self.claim_text.find_selections(), self.bindings)

    def make_undecided(self, plan: Plan, counts: FindingCounts) -> Verdict:
        """Return the verdict for evidence that does not decide yet, or did not before the time limit."""
        listed = self._describe_missing_spans()
        sample = counts.find_sample(ok=False)
        observed = ""
        if sample is not None and sample.value is not None and plan.value_type.kind != "nothing":
            observed = f", so far {self.claim_text.read_subject()} {units.format_value(sample.value, plan.value_type)}"
        return Verdict(
            Outcome.INCONCLUSIVE, "incomplete", listed + observed, self.claim.at, "cannot be decided", counts.n,
            witnesses=self._find_witnesses(sample), final=False, cause=listed,
        )  # fmt: skip

    def make_share_verdict(self, trace_counts: TraceCounts, share: s.ShareClause, *, passed: bool | None) -> Verdict:
        """Return the verdict on ``in OP P of traces``; `passed` is None while it is open."""
        fraction = units.format_fraction(trace_counts.holds / trace_counts.n)
        held = f"{trace_counts.holds} of {format_count(trace_counts.n, 'trace')} ({fraction})"
        empty = trace_counts.states["nothing"] + trace_counts.states["coming"]
        left_out = f"; {empty} had nothing to judge" if empty else ""
        if passed is None:
            numbers = {"not complete": trace_counts.incomplete, "undecided": trace_counts.undecided}
            open_ = " and ".join(f"{number} {word}" for word, number in numbers.items() if number)
            reason = f"held in {held} so far, {open_}{left_out}"
            return Verdict(
                Outcome.INCONCLUSIVE, "incomplete", reason, share.at, "cannot be decided", trace_counts.n, final=False
            )
        outcome, id_ = (Outcome.PASS, "pass") if passed else (Outcome.FAIL, "share")
        sample = next(iter(trace_counts.samples.get(passed, ())), None)
        return Verdict(
            outcome, id_, f"held in {held}{left_out}", share.at, f"held in {held}", trace_counts.n,
            units.format_fraction(trace_counts.holds / trace_counts.n), self._find_witnesses(sample),
        )  # fmt: skip

    def make_path_matched(self, witnesses: tuple[Witness, ...]) -> Verdict:
        """Return the verdict on a path that the only selected trace contains."""
        reason = f"in {format_count(1, 'trace')}"
        return Verdict(Outcome.PASS, "pass", reason, self.claim.at, "", 1, witnesses=witnesses)

    # ## Parts of an explanation

    def _qualify(self, sample: Finding | None, index: int) -> str:
        """Return that only the caller's spans tell, as a suffix, if the note of a finding says so at `index`."""
        if sample is None or not sample.note or not sample.note[index]:
            return ""
        call = self.claim.call if isinstance(self.claim, s.Retry | s.NoRetry) else None
        caller = resolve_service(call.caller, self.bindings) if isinstance(call, s.CallSelection) else None
        return f", as far as {f'`{caller}`' if caller else 'the caller'}'s spans tell"

    def _has_value(self, plan: Plan, sample: Finding | None) -> bool:
        return sample is not None and sample.value is not None and plan.value_type.kind != "nothing"

    def _count_values(self, plan: Plan, counts: FindingCounts, sample: Finding | None) -> int:
        return sample.note[0] if plan.family == "number" and sample and sample.note else counts.n

    def _describe_pass(self, plan: Plan, counts: FindingCounts, sample: Finding | None, n: int) -> str:
        match self.claim:
            case s.Path(mode="no") | s.No():
                return "none was seen"
            case s.Path():
                return f"in {format_count(counts.n, 'trace')}"
            case s.Retry():
                tier = sample.note[2] if sample and sample.note else 0
                attempts = sample.note[1] if sample and sample.note else 0
                counted = f"{format_count(counts.n, 'call')}, {format_count(attempts, 'attempt')}"
                return f"{counted} ({RETRY_TIERS[tier]}){self._qualify(sample, 3)}"
            case s.NoRetry():
                return f"{format_count(counts.n, 'call')}, none retried{self._qualify(sample, 1)}"
            case s.Fallback():
                return format_count(counts.n, "call") + " fell back"
            case s.ComparisonClaim(condition=condition) if not compares_value_sets(condition):
                return self._add_sample_size(self._format_observed(plan, sample), n)
            case s.Every():
                return f"all {counts.n}"
            case s.Circuit():
                return f"opened {format_times(counts.n)}"
            case s.Timeout():
                longest = self._format_observed(plan, sample)
                return f"{format_count(counts.n, 'attempt')} cut off in time, the longest after {longest}"
            case _:
                return f"in {format_count(counts.traces or counts.n, 'trace')}"

    def _format_observed(self, plan: Plan, sample: Finding | None) -> str:
        value = units.format_value(sample.value, plan.value_type) if sample else "nothing"
        if plan.family == "number" and plan.value_type.kind == "fraction" and sample and sample.note and sample.note[0]:
            return f"{value}, {sample.note[1]} of {sample.note[0]}"
        return value

    def _add_sample_size(self, observed: str, n: int) -> str:
        if " of " in observed or (isinstance(self.claim, s.ComparisonClaim) and is_constant(self.claim.condition)):
            return observed
        quantile = any(isinstance(part, s.Function) and part.name.startswith("p") for part in s.walk(self.claim))
        return f"{observed} (n = {n}, nearest rank)" if quantile else f"{observed} (n = {n})"

    def _explain_comparison(self, plan: Plan, counts: FindingCounts, sample: Finding | None) -> tuple[str, str, str]:
        observed = self._format_observed(plan, sample)
        subject = self.claim_text.read_subject()
        if isinstance(self.claim, s.Every):
            failed_count = f"{counts.fails} of {counts.n} did not"
            return (
                f"{subject} was {observed}" if subject else failed_count,
                "not-every",
                f"{observed}; {failed_count}" if subject else failed_count,
            )
        if isinstance(self.claim, s.ComparisonClaim) and compares_value_sets(self.claim.condition):
            reason = self.claim_text.explain_value_sets(plan, sample)
            return reason, "comparison", f"{reason}; {counts.fails} of {format_count(counts.n, 'trace')}"
        verb = "is" if plan.family == "number" else "was"
        if plan.family == "number":
            n = self._count_values(plan, counts, sample)
            mark = self._add_sample_size(observed, n)
            limit = self.claim_text.format_limit() + self.claim_text.format_computed_limit(plan, sample)
            return f"{subject} {verb} {observed}{limit}", "comparison", mark
        failed_count = f"{counts.fails} of {counts.n}"
        return (
            f"{subject} {verb} {observed}{self.claim_text.format_limit()}",
            "comparison",
            f"{observed} ({failed_count})",
        )

    def _explain_none_found(self, claim: s.Some, counts: FindingCounts) -> Verdict:
        help_ = suggest_nearest(self.connection, self.claim_text.find_selections(), self.bindings)
        mark = f"{counts.holds} of {counts.n} traces"
        return Verdict(
            Outcome.FAIL, "none-found", "none was found", self.claim_text.locate_first_selection(), mark, counts.n,
            help=help_, missing_services=self._find_missing_services(),
        )  # fmt: skip

    # ## Paths

    def _explain_path_mismatch(self, claim: s.Path, counts: FindingCounts, sample: Finding | None) -> Verdict:
        trace = sample.trace_id.hex if sample and sample.trace_id else ""
        mismatch = self._make_path_finder(claim, trace).find_mismatch() if trace else None
        held = f"{counts.holds} of {counts.n} traces" if counts.n > 1 else "not taken"
        if mismatch is None:
            return Verdict(Outcome.FAIL, "path-mismatch", "the path was not taken", claim.at, held, counts.n)
        reason, nearest_, help_ = describe_mismatch(self.claim_text, mismatch)
        if mismatch.kind == "start":
            help_ = suggest_nearest(self.connection, self.claim_text.find_selections(), self.bindings)
        matched_instead = ""
        if counts.n > 1 and nearest_ and mismatch.kind == "callee":
            matched_instead = count_matched_instead(self.connection, self.claim_text, mismatch, self.bindings)
        mark = f"{held}; nearest: {nearest_}{matched_instead}" if nearest_ else held
        witnesses = self._read_witnesses(list(mismatch.witness_keys)) or (Witness(trace, ""),)
        marks = (
            (Mark(mismatch.caller.at, "followed up to here"),) if mismatch.caller and mismatch.kind != "split" else ()
        )
        missing = self._find_missing_services() if mismatch.kind in ("callee", "start") else ()
        return Verdict(
            Outcome.FAIL, "path-mismatch", reason, mismatch.step.at, mark, counts.n, nearest_, witnesses, help_,
            marks=marks, missing_services=missing,
        )  # fmt: skip

    def _make_path_finder(self, claim: s.Path, trace_id: str) -> PathFinder:
        return PathFinder(claim, self.bindings, read_hops(self.connection, claim, self.bindings, trace_id))

    def _describe_missing_spans(self) -> str:
        return "; ".join(self.missing) or "more spans may still arrive"

    def _find_missing_services(self) -> tuple[str, ...]:
        return find_missing_services(self.connection, self.claim, self.claim_text.find_selections(), self.bindings)

    # ## Witnesses

    def _find_witnesses(self, sample: Finding | None) -> tuple[Witness, ...]:
        if sample is None or self.is_without_witnesses:
            return ()
        keys = [key for key in sample.witness or [] if key is not None]
        if isinstance(self.claim, s.Path) and sample.trace_id is not None and keys:
            keys = list(self._make_path_finder(self.claim, sample.trace_id.hex).find_witness(keys[0]))
        return self._read_witnesses(keys)

    def _read_witnesses(self, keys: list[int]) -> tuple[Witness, ...]:
        """Return the ids of the spans with these keys, in this order."""
        rows = self.connection.execute(
            "SELECT span_key, trace_id, span_id FROM spans WHERE span_key IN (SELECT unnest($keys::BIGINT[]))",
            {"keys": keys},
        ).fetchall()
        witness_by_key = {key: Witness(trace_id.hex, f"{span_id:016x}") for key, trace_id, span_id in rows}
        return tuple(witness_by_key[key] for key in keys if key in witness_by_key)
