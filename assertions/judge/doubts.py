"""What the stored traces leave open, and the verdict where that decides a claim."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from spanproof.assertions.explain.text_formatting import format_list
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.query_lang.check.constants import Bindings, MissingValue, evaluate, is_constant, to_decimal
from spanproof.query_lang.check.declarations import parse_declared_call
from spanproof.query_lang.check.readings import DeclaredCall, Doubt, Reading
from spanproof.query_lang.syntax import nodes as s

if TYPE_CHECKING:
    import duckdb

# Claims that themselves say that one service retries another take attempts that are possibly one call as one.
_ACCEPTS_POSSIBLE: Final = (s.Retry, s.Fallback, s.Circuit)
_SHOWN_CALLS: Final = 3
_DOUBTFUL_SQL: Final = (
    # the spans of calls in doubt because an attempt has no end are unfinished
    "SELECT DISTINCT CASE WHEN doubt = 'possible unended' THEN 'possible' ELSE doubt END, caller, callee FROM calls"
    " WHERE doubt <> 'unended' AND trace_id IN ({traces})"
)
_UNFINISHED_SQL: Final = (
    "SELECT DISTINCT 'unfinished', service, name FROM topology WHERE end_ns IS NULL AND trace_id IN ({traces})"
)
# Most stores have neither, which takes no join to find out.
_ANY_OPEN_SQL: Final = "SELECT EXISTS (FROM calls WHERE doubt IS NOT NULL), EXISTS (FROM topology WHERE end_ns IS NULL)"


class OpenEvidence(Struct, frozen=True):
    """What is open in the judged traces: calls (caller, callee) per doubt, and unfinished spans (service, name)."""

    items: dict[Doubt, tuple[tuple[str, str], ...]]

    def list_readings(
        self, claim: s.Claim, reading: Reading, bindings: Bindings
    ) -> Iterator[tuple[Reading, tuple[Doubt, ...]]]:
        """Yield the readings under which a claim is judged, each with the doubts of which it takes the other side.

        A name among the variables may stand for any service.
        """
        variables = bindings.variables
        doubts = [doubt for doubt in self.items if _concerns(doubt, claim) and self._is_about(doubt, claim, variables)]
        if "possible" in doubts and all(_is_declared(call, reading) for call in self.items["possible"]):
            doubts.remove("possible")
        durations = _list_compared_durations(claim, bindings) if "unfinished" in doubts else []
        readings: list[tuple[Reading, tuple[Doubt, ...]]] = [
            (replace(reading, has_unfinished="unfinished" in self.items), ())
        ]
        for doubt in doubts:
            readings += [
                (other, (*otherwise, doubt))
                for current, otherwise in readings
                for other in current.list_others(doubt, durations)
            ]
        yield from readings

    def make_inconclusive(self, claim: s.Claim, first: Verdict, other: Verdict, doubts: tuple[Doubt, ...]) -> Verdict:
        """Return the verdict on a claim that two readings judge differently."""
        reasons = [self._explain(doubt, claim, first, other) for doubt in doubts]
        return replace(
            first, outcome=Outcome.INCONCLUSIVE, id="ambiguous", reason="; ".join(reasons), mark="cannot be decided",
            final=False, cause=" ".join(f"{doubt} {self.items[doubt]}" for doubt in doubts),
        )  # fmt: skip

    def _is_about(self, doubt: Doubt, claim: s.Claim, variables: Collection[str]) -> bool:
        """Return whether a claim selects any of the calls in doubt."""
        if doubt == "unfinished":
            return True
        calls = [part for part in s.walk(claim) if isinstance(part, s.CallSelection)]
        return any(
            _may_select(call.caller, caller, variables) and _may_select(call.callee, callee, variables)
            for call in calls
            for caller, callee in self.items[doubt]
        )

    def _explain(self, doubt: Doubt, claim: s.Claim, first: Verdict, other: Verdict) -> str:
        items = self._select_items(doubt, claim)
        match doubt:
            case "possible":
                calls = format_list([f"{caller} -> {callee}" for caller, callee in items[:_SHOWN_CALLS]])
                lines = " or ".join(f"`retries {caller} -> {callee}`" for caller, callee in items[:_SHOWN_CALLS])
                distinct = " or ".join(f"`distinct {caller} -> {callee}`" for caller, callee in items[:_SHOWN_CALLS])
                return (
                    f"nothing records whether later attempts of {calls} repeat failed ones:"
                    f" as one call: {first.outcome} ({first.reason}), as separate calls: {other.outcome}"
                    f" ({other.reason}); write {lines} if they are one call, {distinct} if they are not"
                )
            case "redirects":
                calls = format_list([f"{caller} -> {callee}" for caller, callee in items[:_SHOWN_CALLS]])
                return f"a counter of {calls} also counts redirects, and the spans of earlier requests are missing"
            case "unfinished":
                spans = format_list([f'{service} "{name}"' for service, name in items[:_SHOWN_CALLS]])
                return f"{spans} never ended, so that its duration is unknown"

    def _select_items(self, doubt: Doubt, claim: s.Claim) -> tuple[tuple[str, str], ...]:
        """Return the items that the claim names, or all of them if it names none."""
        services = [part.service for part in s.walk(claim) if isinstance(part, s.SpanSelection)]
        names = {each.plain if isinstance(each, s.Text) else each.text for each in services if each is not None}
        named = tuple(item for item in self.items[doubt] if names & set(item))
        return named or self.items[doubt]


NOTHING_OPEN: Final = OpenEvidence({})


def find_open_evidence(connection: duckdb.DuckDBPyConnection, *, has_baseline: bool) -> OpenEvidence:
    """Return what is open in the traces in ``selected`` and, if there is one, in ``baseline``."""
    traces = "SELECT trace_id FROM selected" + (" UNION ALL SELECT trace_id FROM baseline" if has_baseline else "")  # noqa: S608
    items: dict[Doubt, tuple[tuple[str, str], ...]] = {}
    (has_any,) = connection.execute(_ANY_OPEN_SQL).fetchall()
    rows: list[tuple[Doubt, str, str]] = []
    for is_needed, sql in zip(has_any, (_DOUBTFUL_SQL, _UNFINISHED_SQL), strict=True):
        rows += connection.execute(sql.format(traces=traces)).fetchall() if is_needed else []
    for doubt, caller, callee in sorted(rows):
        items[doubt] = (*items.get(doubt, ()), (caller, callee))
    return OpenEvidence(items)


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
    """Return whether a doubt can change the verdict on a claim."""
    if doubt == "unfinished":
        return True
    if isinstance(claim, s.IfThen):
        return _concerns(doubt, claim.condition) or _concerns(doubt, claim.consequence)
    if doubt == "possible" and isinstance(claim, _ACCEPTS_POSSIBLE):
        return False
    # claims about single attempts are about the attempts as they are
    return any(isinstance(part, s.CallSelection) and not part.attempts for part in s.walk(claim))
