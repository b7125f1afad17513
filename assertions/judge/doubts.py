"""What the stored traces leave open, and the verdict where that decides a claim."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from spanproof.assertions.explain.claim_text import find_selections
from spanproof.assertions.explain.text_formatting import format_list, matches_glob
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.query_lang.check.constants import Bindings, MissingValue, evaluate, is_constant, to_decimal
from spanproof.query_lang.check.declarations import parse_declared_call
from spanproof.query_lang.check.readings import DeclaredCall, Doubt, Reading
from spanproof.query_lang.compile.critical_path import reads_single_shares
from spanproof.query_lang.syntax import nodes as s

if TYPE_CHECKING:
    import duckdb

# Claims that themselves say that one service retries another take attempts that are possibly one call as one.
_ACCEPTS_POSSIBLE: Final = (s.Retry, s.Fallback, s.Circuit)
_CALL_DOUBTS: Final[tuple[Doubt, ...]] = ("possible", "redirects")
_SHOWN: Final = 3
_DOUBTFUL_SQL: Final = (
    # read as separate calls, they may have other callees
    "SELECT doubt, caller, callee FROM combined_calls WHERE doubt IS NOT NULL AND trace_id IN ({traces})"
    " UNION SELECT doubt, caller, callee FROM separate_calls WHERE doubt IS NOT NULL AND trace_id IN ({traces})"
    " ORDER BY ALL"
)
_UNFINISHED_SQL: Final = (
    "SELECT DISTINCT service, name, is_entry, role IN (3, 4) FROM topology"
    " WHERE end_ns IS NULL AND trace_id IN ({traces}) ORDER BY ALL"
)
_UNFINISHED_WITNESS_SQL: Final = (
    "SELECT EXISTS (FROM topology t JOIN spans s ON s.span_key = t.span_key WHERE t.end_ns IS NULL"
    " AND t.trace_id IN (SELECT unnest($traces::UUID[])) AND s.span_id IN (SELECT unnest($spans::UBIGINT[])))"
)
# Most stores have neither, which takes no join to find out.
_ANY_OPEN_SQL: Final = (
    "SELECT EXISTS (FROM combined_calls WHERE doubt IS NOT NULL), EXISTS (FROM topology WHERE end_ns IS NULL)"
)


class UnfinishedSpan(Struct, frozen=True):
    """The service and the name of spans without an end; `is_request`: they are client or producer spans."""

    service: str
    name: str
    is_entry: bool
    is_request: bool


class OpenEvidence(Struct, frozen=True):
    """What is open in the judged traces: calls (caller, callee) per doubt, and unfinished spans.

    ``unended`` are the calls of which a failed attempt may have ended after the next one began.
    """

    calls: dict[Doubt, tuple[tuple[str, str], ...]]
    unended: tuple[tuple[str, str], ...]
    unfinished: tuple[UnfinishedSpan, ...]

    def list_readings(
        self, claim: s.Claim, reading: Reading, bindings: Bindings
    ) -> Iterator[tuple[Reading, tuple[Doubt, ...]]]:
        """Yield the readings under which a claim is judged, each with the doubts of which it takes the other side.

        A name among the variables may stand for any service.
        """
        doubts: list[Doubt] = [
            doubt
            for doubt, calls in self.calls.items()
            if _concerns(doubt, claim) and _filter(calls, claim, bindings.variables)
        ]
        if "possible" in doubts and all(_is_declared(call, reading) for call in self.calls["possible"]):
            doubts.remove("possible")
        doubts += ["unfinished"] if self.unfinished else []
        durations = _list_compared_durations(claim, bindings) if self.unfinished else []
        readings: list[tuple[Reading, tuple[Doubt, ...]]] = [
            (replace(reading, has_unfinished=bool(self.unfinished)), ())
        ]
        for doubt in doubts:
            readings += [
                (other, (*otherwise, doubt))
                for current, otherwise in readings
                for other in current.list_others(doubt, durations)
            ]
        yield from readings

    def make_inconclusive(
        self, claim: s.Claim, first: Verdict, other: Verdict, doubts: tuple[Doubt, ...], variables: Collection[str]
    ) -> Verdict:
        """Return the verdict on a claim that two readings judge differently."""
        reasons = "; ".join(self._explain(doubt, claim, first, other, variables) for doubt in doubts)
        # what one reading observed of a span that never ended was not observed
        observed = None if "unfinished" in doubts else first.observed
        return replace(
            first, outcome=Outcome.INCONCLUSIVE, id="ambiguous", reason=reasons, mark="cannot be decided",
            observed=observed, final=False, cause=reasons,
        )  # fmt: skip

    def choose_observation(
        self,
        connection: duckdb.DuckDBPyConnection,
        claim: s.Claim,
        at_once: Verdict,
        endless: Verdict,
        variables: Collection[str],
    ) -> Verdict:
        """Return the one of two equal outcomes whose value was observed; else the outcome without a value.

        `at_once` takes unfinished spans as ended at once, and `endless` as endless. Neither was observed.
        """
        if at_once.observed == endless.observed:
            return at_once
        for verdict in (at_once, endless):
            if verdict.witnesses and not _has_unfinished_witness(connection, verdict):
                return verdict
        spans = self._name_unfinished(claim, variables)
        durations = "durations" if len(spans) > 1 else "duration"
        reason = f"decided without the {durations} of {format_list(spans, _SHOWN)}, which never ended"
        mark = "at any duration" if at_once.mark else ""
        return replace(at_once, reason=reason, mark=mark, observed=None)

    def _explain(self, doubt: Doubt, claim: s.Claim, first: Verdict, other: Verdict, variables: Collection[str]) -> str:
        if doubt == "unfinished":
            return self._explain_unfinished(claim, variables)
        calls = _name_calls(_filter(self.calls[doubt], claim, variables))
        listed = format_list(calls, _SHOWN)
        if doubt == "redirects":
            counters = f"counters of {listed} also count" if len(calls) > 1 else f"a counter of {listed} also counts"
            return f"{counters} redirects, and the spans of earlier requests are missing"
        lines = " or ".join(f"`retries {call}`" for call in calls[:_SHOWN])
        distinct = " or ".join(f"`distinct {call}`" for call in calls[:_SHOWN])
        return (
            f"nothing records whether later attempts of {listed} repeat failed ones:"
            f" as one call: {first.outcome} ({first.reason}), as separate calls: {other.outcome}"
            f" ({other.reason}); write {lines} if they are one call, {distinct} if they are not"
        )

    def _explain_unfinished(self, claim: s.Claim, variables: Collection[str]) -> str:
        calls = _name_calls(_filter(self.unended, claim, variables))
        if calls and not isinstance(claim, s.Timeout):
            listed = format_list(calls, _SHOWN)
            if len(calls) == 1:
                return (
                    f"a failed attempt of {listed} never ended, so that it is unknown whether the next one repeats it"
                )
            return f"failed attempts of {listed} never ended, so that it is unknown whether the next ones repeat them"
        spans = self._name_unfinished(claim, variables)
        durations = "their durations are" if len(spans) > 1 else "its duration is"
        return f"{format_list(spans, _SHOWN)} never ended, so that {durations} unknown"

    def _name_unfinished(self, claim: s.Claim, variables: Collection[str]) -> list[str]:
        """Return the unfinished spans that a claim selects, or else those of its services, or else all.

        Any of them may have a share of a critical path.
        """
        spans: tuple[UnfinishedSpan, ...] = ()
        if not reads_single_shares(claim):
            calls, selections = _list_selections(claim)
            spans = tuple(
                span
                for span in self.unfinished
                if any(_is_selected(span, each, variables) for each in selections)
                or any(_is_part_of_call(span, each, variables) for each in calls)
            )
            targets = [*selections, *(target for call in calls for target in (call.caller, call.callee))]
            spans = spans or tuple(
                span
                for span in self.unfinished
                if any(each.service is not None and _may_select(each, span.service, variables) for each in targets)
            )
        return list(dict.fromkeys(f'{span.service} "{span.name}"' for span in spans or self.unfinished))


NOTHING_OPEN: Final = OpenEvidence({}, (), ())


def find_open_evidence(connection: duckdb.DuckDBPyConnection, *, has_baseline: bool) -> OpenEvidence:
    """Return what is open in the traces in ``selected`` and, if there is one, in ``baseline``."""
    traces = "SELECT trace_id FROM selected" + (" UNION ALL SELECT trace_id FROM baseline" if has_baseline else "")  # noqa: S608
    ((has_doubtful, has_unfinished),) = connection.execute(_ANY_OPEN_SQL).fetchall()
    doubtful = connection.execute(_DOUBTFUL_SQL.format(traces=traces)).fetchall() if has_doubtful else []
    unfinished = connection.execute(_UNFINISHED_SQL.format(traces=traces)).fetchall() if has_unfinished else []
    # the doubt of a call may be `possible unended`; `unended` alone follows from unfinished spans
    calls = {
        doubt: tuple(dict.fromkeys((caller, callee) for text, caller, callee in doubtful if doubt in text))
        for doubt in _CALL_DOUBTS
    }
    return OpenEvidence(
        {doubt: found for doubt, found in calls.items() if found},
        tuple(dict.fromkeys((caller, callee) for text, caller, callee in doubtful if "unended" in text)),
        tuple(UnfinishedSpan(*row) for row in unfinished),
    )


def _has_unfinished_witness(connection: duckdb.DuckDBPyConnection, verdict: Verdict) -> bool:
    values = {
        "traces": [each.trace_id for each in verdict.witnesses],
        "spans": [int(each.span_id, 16) for each in verdict.witnesses if each.span_id],
    }
    ((found,),) = connection.execute(_UNFINISHED_WITNESS_SQL, values).fetchall()
    return bool(found)


def _name_calls(calls: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{caller} -> {callee}" for caller, callee in calls]


def _list_selections(claim: s.Claim) -> tuple[list[s.CallSelection], list[s.SpanSelection]]:
    """Return the calls that a claim selects, and its selections of spans that are not a part of these."""
    selections = find_selections(claim)
    calls = [each for each in selections if isinstance(each, s.CallSelection)]
    parts = {target.at for call in calls for target in (call.caller, call.callee)}
    return calls, [each for each in selections if isinstance(each, s.SpanSelection) and each.at not in parts]


def _filter(
    calls: Iterable[tuple[str, str]], claim: s.Claim, variables: Collection[str]
) -> tuple[tuple[str, str], ...]:
    """Return the calls that a claim selects."""
    selections, _ = _list_selections(claim)
    return tuple(
        (caller, callee)
        for caller, callee in calls
        if any(
            _may_select(each.caller, caller, variables) and _may_select(each.callee, callee, variables)
            for each in selections
        )
    )


def _is_selected(span: UnfinishedSpan, target: s.SpanSelection, variables: Collection[str]) -> bool:
    """Return whether a selection of spans may contain a span, as far as its service and its name say."""
    operation = None if target.operation is None else target.operation.plain
    is_named = operation is None or "{" in operation or matches_glob(operation, span.name)
    is_kind = span.is_entry or target.spans == "any"
    return is_kind and is_named and _may_select(target, span.service, variables)


def _is_part_of_call(span: UnfinishedSpan, call: s.CallSelection, variables: Collection[str]) -> bool:
    is_caller = span.is_request and _may_select(call.caller, span.service, variables)
    return is_caller or (span.is_entry and _may_select(call.callee, span.service, variables))


def _may_select(target: s.SpanSelection, service: str, variables: Collection[str]) -> bool:
    """Return whether a selection may be about a service: it names it, any service, or a variable."""
    if isinstance(target.service, s.Name):
        return target.service.text == service or target.service.text in variables
    return not isinstance(target.service, s.Text) or "{" in target.service.plain or target.service.plain == service


def _list_compared_durations(claim: s.Claim, bindings: Bindings) -> list[int]:
    """Return the durations for which, besides the shortest and the longest, an unfinished span may decide a claim.

    A single bound needs none. A single equation or range needs its limits; several comparisons may hold only between
    their limits, so just above each.
    """
    comparisons = [
        (isinstance(part, s.Compare) and part.operator not in ("==", "!="), limits)
        for part in s.walk(claim)
        if isinstance(part, s.Compare | s.OneOf) and (limits := _list_limits(part, bindings))
    ]
    durations = {limit for _, limits in comparisons for limit in limits}
    if len(comparisons) > 1:
        durations |= {limit + 1 for limit in durations}
    elif any(is_bound for is_bound, _ in comparisons):
        return []
    return sorted(durations - {0})


def _list_limits(comparison: s.Compare | s.OneOf, bindings: Bindings) -> list[int]:
    """Return the constant durations of a comparison."""
    nodes: list[s.Expression] = []
    if isinstance(comparison, s.Compare):
        nodes += [comparison.left, comparison.right]
    else:
        for option in comparison.options:
            nodes += [option.low, option.high] if isinstance(option, s.ValueRange) else [option]
    limits = []
    for node in nodes:
        names = {part.text for part in s.walk(node) if isinstance(part, s.Name)}
        if not is_constant(node) or not names <= set(bindings.variables):
            continue
        with suppress(MissingValue):  # judging reports it
            constant = evaluate(node, bindings)
            if constant is not None and constant.kind == "duration":
                limits.append(int(to_decimal(constant)))
    return limits


def _is_declared(call: tuple[str, str], reading: Reading) -> bool:
    return any(
        all(name in ("*", service) for name, service in zip((each.caller, each.callee), call, strict=True))
        for each in reading.declared
    )


def read_declared_calls(connection: duckdb.DuckDBPyConnection) -> tuple[DeclaredCall, ...]:
    """Return the calls that the rules of the store declare to be retries or distinct."""
    ((retried, distinct),) = connection.execute("SELECT retried_calls, distinct_calls FROM rules").fetchall()
    joined = [parse_declared_call(text, joined=True) for text in retried]
    return (*joined, *(parse_declared_call(text, joined=False) for text in distinct))


def _concerns(doubt: Doubt, claim: s.Claim) -> bool:
    """Return whether a doubt about calls can change the verdict on a claim."""
    if isinstance(claim, s.IfThen):
        return _concerns(doubt, claim.condition) or _concerns(doubt, claim.consequence)
    if doubt == "possible" and isinstance(claim, _ACCEPTS_POSSIBLE):
        return False
    # claims about single attempts are about the attempts as they are
    return any(isinstance(part, s.CallSelection) and not part.attempts for part in s.walk(claim))
