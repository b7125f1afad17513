"""Explanations of verdicts: the observed value, the expected one, and the nearest miss."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from spanproof.assertions.explain import units
from spanproof.assertions.explain.claim_text import ClaimText
from spanproof.assertions.explain.missing_services import find_missing_services
from spanproof.assertions.explain.path_text import describe_mismatch
from spanproof.assertions.explain.resilience_text import RETRY_TIERS, explain_circuit, explain_fallback, explain_retry
from spanproof.assertions.explain.text_formatting import format_count, format_list, format_times
from spanproof.assertions.findings.path_search import PathFinder, PathMismatch, read_hops, resolve_service
from spanproof.assertions.findings.verdict import OUTCOMES_BY_SEVERITY, Mark, Outcome, Verdict, Witness
from spanproof.query_lang.check.constants import Bindings, interpolate, is_constant
from spanproof.query_lang.compile import path_segments
from spanproof.query_lang.compile.plan import Plan
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import find_nearest

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
    ) -> None:
        self.connection = connection
        self.claim = expectation.claim
        self.claim_text = ClaimText(expectation.claim, text)
        self.bindings = bindings
        self.missing = missing
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
                reason, id_, mark = explain_retry(claim, sample, counts)
            case s.NoRetry():
                reason, id_ = f"it was tried {format_times(sample.value if sample else 0)}", "retried"
                mark = f"{counts.fails} of {counts.n} calls were retried"
            case s.Fallback() as claim:
                reason, id_, mark = explain_fallback(self.claim_text.read_source(claim.to.at), sample, counts)
            case s.Before():
                gap = units.format_duration(-sample.value) if sample else ""
                reason, id_ = f"the second started {gap} before the first had ended", "out-of-order"
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

    def choose_worst_group(self, judged: dict[str | None, Verdict], by: s.Name) -> tuple[str | None, Verdict]:
        """Return the group with the worst verdict, and that verdict; its reason names the group and counts them all."""
        group, verdict = max(judged.items(), key=lambda item: OUTCOMES_BY_SEVERITY.index(item[1].outcome))
        holding = sum(each.outcome is Outcome.PASS for each in judged.values())
        if verdict.outcome is Outcome.PASS:
            return group, replace(verdict, reason=f"in each of {format_count(len(judged), 'group')} by {by.text}")
        name = "missing" if group is None else group
        reason = f"{by.text} {name}: {verdict.reason}; {holding} of {format_count(len(judged), 'group')} held"
        return group, replace(verdict, reason=reason, final=all(each.final for each in judged.values()))

    def make_incomplete(self) -> Verdict:
        """Return the verdict on a claim that needs complete traces, while they are incomplete."""
        listed = "; ".join(self.missing) or "the traces are not complete"
        return Verdict(Outcome.INCONCLUSIVE, "incomplete", listed, self.claim.at, "cannot be decided", final=False)

    def make_indeterminate(self, plan: Plan, counts: FindingCounts) -> Verdict:
        """Return the verdict for findings that neither hold nor fail."""
        reason = f"{plan.undecided_reason} ({counts.empty} of {counts.n + counts.empty})"
        return Verdict(Outcome.INCONCLUSIVE, "untold", reason, self.claim.at, "cannot be decided", counts.n)

    def make_nothing_matched(self, plan: Plan) -> Verdict:
        """Return the verdict on a claim that matched nothing; it never passes."""
        if plan.needs_occasion:
            reason = f"not exercised: {self.claim_text.describe_precondition()} never happened"
            return Verdict(
                Outcome.INCONCLUSIVE,
                "not-exercised",
                reason,
                self.claim.at,
                "not exercised",
                missing_services=self._find_missing_services(),
            )
        help_ = self._suggest_nearest()
        reason = "nothing matched" + (f"; {help_}" if help_ else "")
        return Verdict(
            Outcome.INCONCLUSIVE, "nothing-matched", reason, self.claim_text.locate_first_selection(),
            "nothing matched", help=help_, missing_services=self._find_missing_services(),
        )  # fmt: skip

    def make_undecided(self, plan: Plan, counts: FindingCounts) -> Verdict:
        """Return the verdict for evidence that does not decide yet, or did not before the time limit."""
        listed = "; ".join(self.missing) or "the trace is not complete"
        sample = counts.find_sample(ok=False)
        observed = ""
        if sample is not None and sample.value is not None and plan.value_type.kind != "nothing":
            observed = f", so far {self.claim_text.read_subject()} {units.format_value(sample.value, plan.value_type)}"
        return Verdict(
            Outcome.INCONCLUSIVE, "incomplete", listed + observed, self.claim.at, "cannot be decided", counts.n,
            witnesses=self._find_witnesses(sample), final=False,
        )  # fmt: skip

    def make_share_verdict(self, trace_counts: TraceCounts, share: s.ShareClause, *, passed: bool | None) -> Verdict:
        """Return the verdict on ``in OP P of traces``; `passed` is None while it is open."""
        fraction = units.format_fraction(trace_counts.holds / trace_counts.n)
        held = f"{trace_counts.holds} of {format_count(trace_counts.n, 'trace')} ({fraction})"
        empty = trace_counts.states["nothing"] + trace_counts.states["coming"]
        left_out = f"; {empty} had nothing to judge" if empty else ""
        if passed is None:
            reason = f"held in {held} so far, {trace_counts.states['open']} are not complete{left_out}"
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
                return f"{format_count(counts.n, 'call')}, {format_count(attempts, 'attempt')} ({RETRY_TIERS[tier]})"
            case s.NoRetry():
                return f"{format_count(counts.n, 'call')}, none retried"
            case s.Fallback():
                return format_count(counts.n, "call") + " fell back"
            case s.ComparisonClaim():
                return f"{self._format_observed(plan, sample)}{self._format_sample_size(n)}"
            case s.Every():
                return f"all {counts.n}"
            case s.Circuit():
                return f"opened {format_times(counts.n)}"
            case s.Timeout():
                longest = self._format_observed(plan, sample)
                return f"{format_count(counts.n, 'attempt')} cut off in time, the longest after {longest}"
            case _:
                return f"in {format_count(counts.n, 'trace')}"

    def _format_observed(self, plan: Plan, sample: Finding | None) -> str:
        value = units.format_value(sample.value, plan.value_type) if sample else "nothing"
        if plan.family == "number" and plan.value_type.kind == "fraction" and sample and sample.note and sample.note[0]:
            return f"{value}, {sample.note[1]} of {sample.note[0]}"
        return value

    def _format_sample_size(self, n: int) -> str:
        quantile = any(isinstance(part, s.Function) and part.name.startswith("p") for part in s.walk(self.claim))
        if isinstance(self.claim, s.ComparisonClaim) and is_constant(self.claim.condition):
            return ""
        return f" (n = {n}, nearest rank)" if quantile else f" (n = {n})"

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
        verb = "is" if plan.family == "number" else "was"
        if plan.family == "number":
            n = self._count_values(plan, counts, sample)
            mark = observed + ("" if "of" in observed else self._format_sample_size(n))
            limit = self.claim_text.format_limit()
            return f"{subject} {verb} {observed}{limit}", "comparison", mark
        failed_count = f"{counts.fails} of {counts.n}"
        return (
            f"{subject} {verb} {observed}{self.claim_text.format_limit()}",
            "comparison",
            f"{observed} ({failed_count})",
        )

    def _explain_none_found(self, claim: s.Some, counts: FindingCounts) -> Verdict:
        help_ = self._suggest_nearest()
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
            help_ = self._suggest_nearest()
        matched_instead = (
            self._count_matched_instead(mismatch) if counts.n > 1 and nearest_ and mismatch.kind == "callee" else ""
        )
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

    def _count_matched_instead(self, mismatch: PathMismatch) -> str:
        """Return the number of traces with the call that replaced the expected one, if one service received it."""
        callees = {hop.service for hop in mismatch.observed_hops}
        near = find_nearest(self.claim_text.read_source(mismatch.step.at), callees, 1) or (
            list(callees) if len(callees) == 1 else []
        )
        callers = (
            [resolve_service(target, self.bindings) for target in mismatch.caller.targets] if mismatch.caller else []
        )
        if len(near) != 1 or len(callers) != 1 or callers[0] is None:
            return ""
        ((n,),) = self.connection.execute(
            "SELECT count(DISTINCT trace_id) FROM attempts SEMI JOIN selected USING (trace_id)"
            " WHERE caller = $caller AND callee = $callee",
            {"caller": callers[0], "callee": near[0]},
        ).fetchall()
        return f" ({n})"

    def _find_missing_services(self) -> tuple[str, ...]:
        return find_missing_services(self.connection, self.claim, self.claim_text.find_selections(), self.bindings)

    def _suggest_nearest(self) -> str | None:
        """Return a hint at the existing services or operations nearest to those in the claim."""
        rows = self.connection.execute(
            "SELECT DISTINCT e.callee, e.operation FROM attempts e SEMI JOIN selected USING (trace_id)"
            " UNION SELECT DISTINCT s.service, s.name FROM spans s SEMI JOIN selected USING (trace_id)"
        ).fetchall()
        operations_by_service: dict[str, set[str]] = {}
        for service, operation in rows:
            operations_by_service.setdefault(service, set()).add(operation)
        if not operations_by_service:
            return "no span of these traces has arrived"
        for part in self.claim_text.find_selections():
            targets = (part.caller, part.callee) if isinstance(part, s.CallSelection) else (part,)
            for target in targets:
                service = resolve_service(target, self.bindings)
                if service is not None and service not in operations_by_service:
                    near = find_nearest(service, operations_by_service)
                    names = format_list(near or sorted(operations_by_service))
                    return f"`{service}` is not among the observed services: {'nearest ' if near else ''}{names}"
                if service is not None and target.operation is not None:
                    expected = interpolate(target.operation, self.bindings, keep_unknown=True)
                    return f"`{service}` has no `{expected}`: {format_list(sorted(operations_by_service[service]))}"
        return None

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
