"""Puts what a plan found into words: what was seen, what was expected, what came nearest."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from spanproof.assertions import units
from spanproof.assertions.claim_text import ClaimText
from spanproof.assertions.lacking import find_lacking
from spanproof.assertions.path_words import describe_miss
from spanproof.assertions.paths import Miss, PathFinder, fill_service, read_stops
from spanproof.assertions.resilience_words import TIERS, explain_circuit, explain_fallback, explain_retry
from spanproof.assertions.verdict import GRAVITY, Mark, Outcome, Verdict, Witness
from spanproof.assertions.wording import count, listed, times
from spanproof.query_lang import legs
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import Bindings, fill, is_constant
from spanproof.query_lang.diagnostics import nearest
from spanproof.query_lang.plan import Plan

if TYPE_CHECKING:
    import duckdb

    from spanproof.assertions.shares import Traces
    from spanproof.assertions.tally import Finding, Tally


class Explainer:
    """Words for the verdicts on one claim."""

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
        self.about = ClaimText(expectation.claim, text)
        self.bindings = bindings
        self.missing = missing
        self.brief = False

    def without_witnesses(self) -> Explainer:
        """Return the same, but that it looks no witnesses up."""
        brief = copy(self)
        brief.brief = True
        return brief

    # ## The verdicts

    def error(self, message: str) -> Verdict:
        """The claim could not be judged."""
        return Verdict(Outcome.ERROR, "error", message.splitlines()[0], self.claim.at, "")

    def passed(self, plan: Plan, tally: Tally) -> Verdict:
        """The claim holds."""
        sample = tally.sample(ok=True) or tally.sample(ok=None)
        observed = units.show(sample.value, plan.value) if sample and plan.value.kind != "nothing" else None
        witnesses = self._witnesses(sample)
        n = self._n(plan, tally, sample)
        return Verdict(
            Outcome.PASS, "pass", self._holds(plan, tally, sample, n), self.claim.at, "", n, observed, witnesses
        )

    def fail(self, plan: Plan, tally: Tally) -> Verdict:
        """A counterexample is in hand, or the claim does not hold on complete evidence."""
        sample = tally.sample(ok=False)
        n = self._n(plan, tally, sample)
        match self.claim:
            case s.Path(mode="only") if sample and sample.note and sample.note[0] == legs.OTHER_CALL:
                reason, id_ = f"there were other calls: {sample.value}", "other-call"
                mark = f"{tally.holds} of {tally.n} traces; also called: {sample.value}"
            case s.Path(mode="some" | "only") as claim:
                return self._path_missed(claim, tally, sample)
            case s.Path(mode="no"):
                reason, id_ = "this path was taken", "path-taken"
                mark = f"taken {times(tally.fails)}"
            case s.Retry() as claim:
                reason, id_, mark = explain_retry(claim, sample, tally)
            case s.NoRetry():
                reason, id_ = f"it was tried {times(sample.value if sample else 0)}", "retried"
                mark = f"{tally.fails} of {tally.n} calls were retried"
            case s.Fallback() as claim:
                reason, id_, mark = explain_fallback(self.about.source(claim.to.at), sample, tally)
            case s.Before():
                gap = units.show_duration(-sample.value) if sample else ""
                reason, id_ = f"the second started {gap} before the first had ended", "out-of-order"
                mark = f"{tally.fails} of {tally.n} traces"
            case s.Timeout() as claim:
                reason, id_ = f"an attempt lasted {self._seen(plan, sample)}, not cut off in time", "timeout"
                mark = f"{self._seen(plan, sample)}; {tally.fails} of {tally.n} attempts"
            case s.Circuit():
                reason, id_, mark = explain_circuit(sample, tally)
            case s.Budget() as claim:
                number = sample.note[0] if sample and sample.note else 0
                what = self.about.budget_part(claim, number)
                reason, id_ = f"{what} took {self._seen(plan, sample)}", "over-budget"
                mark = f"{self._seen(plan, sample)}"
            case s.No():
                reason, id_ = f"{tally.fails} matched", "not-absent"
                shown = f", {self.about.subject()} {self._seen(plan, sample)}" if self._shows(plan, sample) else ""
                mark = reason + shown
            case s.Some() as claim:
                return self._none_found(claim, tally)
            case _:
                reason, id_, mark = self._compared(plan, tally, sample)
        observed = self.about.observed(plan, sample)
        lacks = self._lacking() if sample is not None and sample.value == 0 and plan.family == "number" else ()
        return Verdict(
            Outcome.FAIL, id_, reason, self.about.place(sample), mark, n, observed, self._witnesses(sample),
            marks=self.about.other_marks(tally, sample), lacks=lacks,
        )  # fmt: skip

    def gravest(self, judged: dict[str | None, Verdict], by: s.Name) -> tuple[str | None, Verdict]:
        """The group with the gravest verdict, and that; the reason says on which, and how many groups there are."""
        group, verdict = max(judged.items(), key=lambda item: GRAVITY.index(item[1].outcome))
        holding = sum(each.outcome is Outcome.PASS for each in judged.values())
        if verdict.outcome is Outcome.PASS:
            return group, replace(verdict, reason=f"in each of {count(len(judged), 'group')} by {by.text}")
        name = "missing" if group is None else group
        reason = f"{by.text} {name}: {verdict.reason}; {holding} of {count(len(judged), 'group')} held"
        return group, replace(verdict, reason=reason, final=all(each.final for each in judged.values()))

    def waiting(self) -> Verdict:
        """The traces are not complete, and the claim needs them to be."""
        listed = "; ".join(self.missing) or "the traces are not complete"
        return Verdict(Outcome.INCONCLUSIVE, "incomplete", listed, self.claim.at, "cannot be decided", final=False)

    def untold(self, plan: Plan, tally: Tally) -> Verdict:
        """Some findings can be told neither way."""
        reason = f"{plan.untold} ({tally.empty} of {tally.n + tally.empty})"
        return Verdict(Outcome.INCONCLUSIVE, "untold", reason, self.claim.at, "cannot be decided", tally.n)

    def nothing(self, plan: Plan) -> Verdict:
        """There was nothing to judge: never a pass."""
        if plan.if_then:
            reason = f"not exercised: {self.about.condition()} never happened"
            return Verdict(
                Outcome.INCONCLUSIVE, "not-exercised", reason, self.claim.at, "not exercised", lacks=self._lacking()
            )
        help_ = self._nearest()
        reason = "nothing matched" + (f"; {help_}" if help_ else "")
        return Verdict(
            Outcome.INCONCLUSIVE, "nothing-matched", reason, self.about.selection_at(), "nothing matched", help=help_,
            lacks=self._lacking(),
        )  # fmt: skip

    def open(self, plan: Plan, tally: Tally) -> Verdict:
        """The evidence cannot decide yet, or time is up."""
        listed = "; ".join(self.missing) or "the trace is not complete"
        sample = tally.sample(ok=False)
        seen = ""
        if sample is not None and sample.value is not None and plan.value.kind != "nothing":
            seen = f", so far {self.about.subject()} {units.show(sample.value, plan.value)}"
        return Verdict(
            Outcome.INCONCLUSIVE, "incomplete", listed + seen, self.claim.at, "cannot be decided", tally.n,
            witnesses=self._witnesses(sample), final=False,
        )  # fmt: skip

    def share(self, traces: Traces, share: s.Share, *, passed: bool | None) -> Verdict:
        """``in OP P of traces``."""
        held = f"{traces.holds} of {count(traces.n, 'trace')} ({units.show_fraction(traces.holds / traces.n)})"
        empty = traces.fates["nothing"] + traces.fates["coming"]
        left_out = f"; {empty} had nothing to judge" if empty else ""
        if passed is None:
            reason = f"held in {held} so far, {traces.fates['open']} are not complete{left_out}"
            return Verdict(
                Outcome.INCONCLUSIVE, "incomplete", reason, share.at, "cannot be decided", traces.n, final=False
            )
        outcome, id_ = (Outcome.PASS, "pass") if passed else (Outcome.FAIL, "share")
        sample = next(iter(traces.samples.get(passed, ())), None)
        return Verdict(
            outcome, id_, f"held in {held}{left_out}", share.at, f"held in {held}", traces.n,
            units.show_fraction(traces.holds / traces.n), self._witnesses(sample),
        )  # fmt: skip

    def path_taken(self, witnesses: tuple[Witness, ...]) -> Verdict:
        """The path was taken in the one trace that was looked at."""
        in_one = f"in {count(1, 'trace')}"
        return Verdict(Outcome.PASS, "pass", in_one, self.claim.at, "", 1, witnesses=witnesses)

    # ## What the evidence says

    def _shows(self, plan: Plan, sample: Finding | None) -> bool:
        return sample is not None and sample.value is not None and plan.value.kind != "nothing"

    def _n(self, plan: Plan, tally: Tally, sample: Finding | None) -> int:
        return sample.note[0] if plan.family == "number" and sample and sample.note else tally.n

    def _holds(self, plan: Plan, tally: Tally, sample: Finding | None, n: int) -> str:
        match self.claim:
            case s.Path(mode="no") | s.No():
                return "none was seen"
            case s.Path():
                return f"in {count(tally.n, 'trace')}"
            case s.Retry():
                tier = sample.note[2] if sample and sample.note else 0
                attempts = sample.note[1] if sample and sample.note else 0
                return f"{count(tally.n, 'call')}, {count(attempts, 'attempt')} ({TIERS[tier]})"
            case s.NoRetry():
                return f"{count(tally.n, 'call')}, none retried"
            case s.Fallback():
                return count(tally.n, "call") + " fell back"
            case s.Comparison():
                return f"{self._seen(plan, sample)}{self._of(n)}"
            case s.Every():
                return f"all {tally.n}"
            case s.Circuit():
                return f"opened {times(tally.n)}"
            case s.Timeout():
                return f"{count(tally.n, 'attempt')} cut off in time, the longest after {self._seen(plan, sample)}"
            case _:
                return f"in {count(tally.n, 'trace')}"

    def _seen(self, plan: Plan, sample: Finding | None) -> str:
        value = units.show(sample.value, plan.value) if sample else "nothing"
        if plan.family == "number" and plan.value.kind == "fraction" and sample and sample.note and sample.note[0]:
            return f"{value}, {sample.note[1]} of {sample.note[0]}"
        return value

    def _of(self, n: int) -> str:
        quantile = any(isinstance(part, s.Function) and part.name.startswith("p") for part in s.walk(self.claim))
        if isinstance(self.claim, s.Comparison) and is_constant(self.claim.condition):
            return ""
        return f" (n = {n}, nearest rank)" if quantile else f" (n = {n})"

    def _compared(self, plan: Plan, tally: Tally, sample: Finding | None) -> tuple[str, str, str]:
        seen = self._seen(plan, sample)
        subject = self.about.subject()
        if isinstance(self.claim, s.Every):
            which = f"{tally.fails} of {tally.n} did not"
            return f"{subject} was {seen}" if subject else which, "not-every", f"{seen}; {which}" if subject else which
        verb = "is" if plan.family == "number" else "was"
        if plan.family == "number":
            n = self._n(plan, tally, sample)
            mark = seen + ("" if "of" in seen else self._of(n))
            limit = self.about.limit()
            return f"{subject} {verb} {seen}{limit}", "comparison", mark
        which = f"{tally.fails} of {tally.n}"
        return f"{subject} {verb} {seen}{self.about.limit()}", "comparison", f"{seen} ({which})"

    def _none_found(self, claim: s.Some, tally: Tally) -> Verdict:
        help_ = self._nearest()
        mark = f"{tally.holds} of {tally.n} traces"
        return Verdict(
            Outcome.FAIL, "none-found", "none was found", self.about.selection_at(), mark, tally.n, help=help_,
            lacks=self._lacking(),
        )  # fmt: skip

    # ## Paths

    def _path_missed(self, claim: s.Path, tally: Tally, sample: Finding | None) -> Verdict:
        trace = sample.trace_id.hex if sample and sample.trace_id else ""
        miss = self._follow(claim, trace).miss() if trace else None
        held = f"{tally.holds} of {tally.n} traces" if tally.n > 1 else "not taken"
        if miss is None:
            return Verdict(Outcome.FAIL, "path-mismatch", "the path was not taken", claim.at, held, tally.n)
        reason, nearest_, help_ = describe_miss(self.about, miss)
        if miss.kind == "start":
            help_ = self._nearest()
        taken = self._count_taken(miss) if tally.n > 1 and nearest_ and miss.kind == "callee" else ""
        mark = f"{held}; nearest: {nearest_}{taken}" if nearest_ else held
        witnesses = self._named(list(miss.witness)) or (Witness(trace, ""),)
        marks = (Mark(miss.caller.at, "followed up to here"),) if miss.caller and miss.kind != "split" else ()
        lacks = self._lacking() if miss.kind in ("callee", "start") else ()
        return Verdict(
            Outcome.FAIL, "path-mismatch", reason, miss.step.at, mark, tally.n, nearest_, witnesses, help_,
            marks=marks, lacks=lacks,
        )  # fmt: skip

    def _follow(self, claim: s.Path, trace_id: str) -> PathFinder:
        return PathFinder(claim, self.bindings, read_stops(self.connection, claim, self.bindings, trace_id))

    def _count_taken(self, miss: Miss) -> str:
        """Say in how many traces what was called instead was called, where that is one service."""
        callees = {hop.service for hop in miss.seen}
        near = nearest(self.about.source(miss.step.at), callees, 1) or (list(callees) if len(callees) == 1 else [])
        callers = [fill_service(target, self.bindings) for target in miss.caller.targets] if miss.caller else []
        if len(near) != 1 or len(callers) != 1 or callers[0] is None:
            return ""
        ((n,),) = self.connection.execute(
            "SELECT count(DISTINCT trace_id) FROM exchanges SEMI JOIN selected USING (trace_id)"
            " WHERE caller = $caller AND callee = $callee",
            {"caller": callers[0], "callee": near[0]},
        ).fetchall()
        return f" ({n})"

    def _lacking(self) -> tuple[str, ...]:
        return find_lacking(self.connection, self.claim, self.about.selections(), self.bindings)

    def _nearest(self) -> str | None:
        """Name what does exist near the services and operations that the claim names."""
        rows = self.connection.execute(
            "SELECT DISTINCT e.callee, e.operation FROM exchanges e SEMI JOIN selected USING (trace_id)"
            " UNION SELECT DISTINCT s.service, s.name FROM spans s SEMI JOIN selected USING (trace_id)"
        ).fetchall()
        seen: dict[str, set[str]] = {}
        for service, operation in rows:
            seen.setdefault(service, set()).add(operation)
        if not seen:
            return "no span of these traces has arrived"
        for part in self.about.selections():
            targets = (part.caller, part.callee) if isinstance(part, s.Call) else (part,)
            for target in targets:
                service = fill_service(target, self.bindings)
                if service is not None and service not in seen:
                    near = nearest(service, seen)
                    names = listed(near or sorted(seen))
                    return f"`{service}` is not among the services seen: {'nearest ' if near else ''}{names}"
                if service is not None and target.operation is not None:
                    wanted = fill(target.operation, self.bindings, braces=True)
                    return f"`{service}` has no `{wanted}`: {listed(sorted(seen[service]))}"
        return None

    # ## Witnesses

    def _witnesses(self, sample: Finding | None) -> tuple[Witness, ...]:
        if sample is None or self.brief:
            return ()
        keys = [key for key in sample.witness or [] if key is not None]
        if isinstance(self.claim, s.Path) and sample.trace_id is not None and keys:
            keys = list(self._follow(self.claim, sample.trace_id.hex).witness(keys[0]))
        return self._named(keys)

    def _named(self, keys: list[int]) -> tuple[Witness, ...]:
        """Return the ids of spans by their keys, in the order given."""
        rows = self.connection.execute(
            "SELECT span_key, trace_id, span_id FROM spans WHERE span_key IN (SELECT unnest($keys::BIGINT[]))",
            {"keys": keys},
        ).fetchall()
        named = {key: Witness(trace_id.hex, f"{span_id:016x}") for key, trace_id, span_id in rows}
        return tuple(named[key] for key in keys if key in named)
