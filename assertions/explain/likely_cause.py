"""Where a difference to the baseline arose: own time, network, errors and calls of each service.

The duration of a request contains that of the requests that it leads to. So each service is compared by what it adds
itself: its own time, the time between it and the services beside it, the errors that no callee explains, and the calls
that it makes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from spanproof.assertions.explain.text_formatting import format_list
from spanproof.assertions.explain.units import format_duration, format_fraction
from spanproof.query_lang.check.readings import Reading
from spanproof.query_lang.sql.read_tables import compile_table
from spanproof.query_lang.sql.row_aliases import CHILD_COVERAGE_SQL

if TYPE_CHECKING:
    import duckdb

MAX_CAUSES: Final = 3
_MIN_VALUES: Final = 5
_MIN_DEVIATIONS: Final = 4.0  # a difference is named if it is so many times its standard error
_MIN_NS: Final = 1_000_000  # a shorter difference is no cause
_SHOWN: Final = 3

# Of each service, per request that it served: its own time, that of all its spans but the requests that it made, less
# their children; and whether it failed although no call that it made did.
_SERVICES_SQL: Final = """
SELECT e.service, count(*), avg(own.ns), var_samp(own.ns),
    avg(CAST(e.error AND NOT coalesce(failing.found, false) AS DOUBLE)), avg(e.end_ns - e.start_ns)
FROM {traces} sel
JOIN {topology} e ON e.trace_id = sel.trace_id AND e.is_entry
LEFT JOIN (
    SELECT t.entry_key, sum(t.end_ns - t.start_ns - coalesce(c.covered_ns, 0)) AS ns
    FROM {traces} sel JOIN {topology} t ON t.trace_id = sel.trace_id LEFT JOIN {covered} c ON c.parent_key = t.span_key
    WHERE t.role NOT IN (3, 4)  -- CLIENT, PRODUCER
    GROUP BY t.entry_key
) own ON own.entry_key = e.span_key
LEFT JOIN (
    SELECT c.caller_entry, true AS found FROM {traces} sel JOIN {calls} c ON c.trace_id = sel.trace_id
    WHERE c.failed GROUP BY c.caller_entry
) failing ON failing.caller_entry = e.span_key
WHERE e.service IS NOT NULL
GROUP BY e.service
"""
# Of each pair of services: the time of a call that the callee's span does not explain, and the calls that
# failed although the callee recorded no error.
_EDGES_SQL: Final = """
SELECT c.caller, c.callee, count(*), avg(t.ns), var_samp(t.ns),
    avg(CAST(c.failed AND NOT coalesce(e.error, false) AS DOUBLE))
FROM {traces} sel JOIN {calls} c ON c.trace_id = sel.trace_id
LEFT JOIN {topology} e ON e.span_key = c.callee_entry,
LATERAL (SELECT CASE WHEN c.callee_entry IS NULL THEN c.duration_ns ELSE c.network_ns END AS ns) t
WHERE NOT c.async
GROUP BY c.caller, c.callee
"""


@dataclass(frozen=True, slots=True)
class LikelyCause:
    """A service in which a difference arose; ``effect`` is its size in parts of the baseline's request, 1 for all."""

    service: str
    effect: float
    reason: str


class _Values(Struct, frozen=True):
    """A number of values, and their mean and variance."""

    n: int
    mean: float
    variance: float


class _Side(Struct):
    """What the traces of a window show."""

    own: dict[str, _Values]
    service_errors: dict[str, _Values]
    network: dict[tuple[str, str], _Values]
    edge_errors: dict[tuple[str, str], _Values]
    request_ns: float  # the longest mean duration of a service's requests
    traces: int

    def weigh(self, values: _Values) -> float:
        """Return how often a trace has such a value."""
        return values.n / max(1, self.traces)

    def find_calls(self, edge: tuple[str, str]) -> _Values | None:
        """Return the calls of each request of the caller; a Poisson distribution's variance."""
        requests = self.own.get(edge[0])
        if requests is None:
            return None
        made = self.network.get(edge)
        mean = 0.0 if made is None else made.n / requests.n
        return _Values(requests.n, mean, max(mean, 1 / requests.n))


class _Change(Struct, frozen=True):
    effect: float
    text: str


def find_likely_causes(connection: duckdb.DuckDBPyConnection, traces: str) -> tuple[LikelyCause, ...]:
    """Return the services in which the traces in the table `traces` differ from ``baseline``, the furthest first."""
    current, baseline = (_read_side(connection, table) for table in (traces, "baseline"))
    changes: dict[str, list[_Change]] = defaultdict(list)
    for service in current.own.keys() & baseline.own.keys():
        changes[service] += _compare_service(service, current, baseline)
    edges = (current.network.keys() | baseline.network.keys()) - {("", "")}
    services = {name for edge in edges for name in edge}
    for service in services:
        changes[service] += _compare_edges(service, [edge for edge in edges if service in edge], current, baseline)
    causes = [
        LikelyCause(service, sum(each.effect for each in found), "; ".join(each.text for each in found))
        for service, found in changes.items()
        if found
    ]
    causes.sort(key=lambda cause: (-cause.effect, cause.service))
    if not causes:
        return ()
    return tuple(cause for cause in causes[:MAX_CAUSES] if cause.effect >= causes[0].effect / 10)


def _read_side(connection: duckdb.DuckDBPyConnection, traces: str) -> _Side:
    tables: dict[str, str] = {name: compile_table(name, Reading()) for name in ("topology", "calls")}
    tables |= {"traces": traces, "covered": CHILD_COVERAGE_SQL.format(traces=traces, topology=tables["topology"])}
    ((count,),) = connection.execute(f"SELECT count(*) FROM {traces}").fetchall()  # noqa: S608 (one of our tables)
    side = _Side({}, {}, {}, {}, 0.0, count)
    for service, n, own, variance, errors, duration in connection.execute(_SERVICES_SQL.format(**tables)).fetchall():
        side.own[service] = _make_values(n, own, variance)
        side.service_errors[service] = _make_share(n, errors)
        side.request_ns = max(side.request_ns, duration or 0.0)
    for caller, callee, n, network, variance, errors in connection.execute(_EDGES_SQL.format(**tables)).fetchall():
        side.network[caller, callee] = _make_values(n, network, variance)
        side.edge_errors[caller, callee] = _make_share(n, errors)
    return side


def _make_values(n: int, mean: Any, variance: Any) -> _Values:
    return _Values(n, float(mean or 0.0), float(variance or 0.0))


def _make_share(n: int, share: Any) -> _Values:
    mean = float(share or 0.0)
    smoothed = (mean * n + 1) / (n + 2)  # the variance of a share that was never seen is not 0
    return _Values(n, mean, smoothed * (1 - smoothed))


def _find_change(current: _Values | None, baseline: _Values | None) -> float:
    """Return the difference of two means; 0 if it may be chance."""
    if current is None or baseline is None or min(current.n, baseline.n) < _MIN_VALUES:
        return 0.0
    difference = current.mean - baseline.mean
    error = math.sqrt(current.variance / current.n + baseline.variance / baseline.n)
    return difference if abs(difference) >= _MIN_DEVIATIONS * error else 0.0


def _compare_service(service: str, current: _Side, baseline: _Side) -> list[_Change]:
    changes: list[_Change] = []
    slower_ns = _find_change(current.own[service], baseline.own[service])
    if slower_ns >= _MIN_NS:
        text = f"own time {_format_times(current.own[service], baseline.own[service])}"
        effect = slower_ns * current.weigh(current.own[service]) / max(baseline.request_ns, _MIN_NS)
        changes.append(_Change(effect, text))
    more = _find_change(current.service_errors[service], baseline.service_errors[service])
    if more > 0:
        rates = (format_fraction(side.service_errors[service].mean) for side in (current, baseline))
        effect = more * current.weigh(current.own[service])
        changes.append(_Change(effect, "errors of its own {} against {}".format(*rates)))
    return changes


def _compare_edges(service: str, edges: list[tuple[str, str]], current: _Side, baseline: _Side) -> list[_Change]:
    """Return what changed on the calls to and from a service.

    What slows one of many neighbours is that neighbour; what slows all of them is the service in their midst. So the
    effect counts by the part of the calls that are slower.
    """
    changes: list[_Change] = []
    judged = [edge for edge in edges if edge in current.network and edge in baseline.network]
    slower = {edge: _find_change(current.network[edge], baseline.network[edge]) for edge in judged}
    slow = sorted((edge for edge in judged if slower[edge] >= _MIN_NS), key=lambda edge: -slower[edge])
    if slow:
        added_ns = sum(slower[edge] * current.weigh(current.network[edge]) for edge in slow)
        effect = added_ns * _find_part(slow, judged, current) / max(baseline.request_ns, _MIN_NS)
        shown = [
            f"{caller} -> {callee} {_format_times(current.network[caller, callee], baseline.network[caller, callee])}"
            for caller, callee in slow
        ]
        changes.append(_Change(effect, f"network {format_list(shown, _SHOWN)}"))
    failing = {edge: _find_change(current.edge_errors[edge], baseline.edge_errors[edge]) for edge in judged}
    failed = sorted((edge for edge in judged if failing[edge] > 0), key=lambda edge: -failing[edge])
    if failed:
        shown = [
            f"{caller} -> {callee} {format_fraction(current.edge_errors[caller, callee].mean)}"
            for caller, callee in failed
        ]
        added = sum(failing[edge] * current.weigh(current.network[edge]) for edge in failed)
        effect = added * _find_part(failed, judged, current)
        changes.append(_Change(effect, f"calls that fail on the way {format_list(shown, _SHOWN)}"))
    return changes + _compare_calls([edge for edge in edges if edge[0] == service], current, baseline)


def _find_part(some: list[tuple[str, str]], all_: list[tuple[str, str]], side: _Side) -> float:
    """Return the part of the calls on `all_` edges that is on `some` of them."""
    return sum(side.network[edge].n for edge in some) / sum(side.network[edge].n for edge in all_)


def _compare_calls(edges: list[tuple[str, str]], current: _Side, baseline: _Side) -> list[_Change]:
    """Return how a caller calls others more often, or less, per request."""
    changed: dict[tuple[str, str], tuple[float, float, float]] = {}
    for edge in edges:
        now, before = current.find_calls(edge), baseline.find_calls(edge)
        difference = _find_change(now, before)
        if difference and now is not None and before is not None:
            changed[edge] = (abs(difference) / max(now.mean, before.mean), now.mean, before.mean)
    if not changed:
        return []
    ordered = sorted(changed, key=lambda edge: -changed[edge][0])
    shown = [f"{edge[1]} {changed[edge][1]:.3g} times against {changed[edge][2]:.3g}" for edge in ordered]
    effect = sum(relative for relative, _, _ in changed.values()) / len(edges)
    return [_Change(effect, f"a request calls {format_list(shown, _SHOWN)}")]


def _format_times(current: _Values, baseline: _Values) -> str:
    now, before = (format_duration(round(float(f"{each.mean:.3g}"))) for each in (current, baseline))
    return f"{now} against {before}"
