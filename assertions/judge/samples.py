"""Samples of a population: the values of the traces of a window, by group."""

from __future__ import annotations

import math
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from msgspec import Struct

from spanproof.assertions.findings.finding_counts import GroupKey
from spanproof.assertions.judge import statistics as stats
from spanproof.collector.storage.arrow_columns import fetch_table
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.samples import (
    FIELD_SEPARATOR,
    MISSING_FIELD,
    SampleQuery,
    compile_calls_sample,
    compile_sample,
    is_calls_per_request,
)
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v

if TYPE_CHECKING:
    import duckdb

Array: TypeAlias = "np.ndarray[Any, Any]"
_WHOLE: Final[GroupKey] = ()


class RateSample(Struct, frozen=True):
    """Share of values that are true. ``effective_size`` is the number of independent values that they are worth."""

    n: int
    hits: int
    effective_size: float

    @property
    def estimate(self) -> float:
        """The share in the sample."""
        return self.hits / self.n

    def bound(self, confidence: float) -> stats.ConfidenceBounds:
        """Return the estimate with bounds that each hold at `confidence`."""
        return stats.bound_rate(self.estimate * self.effective_size, self.effective_size, confidence)


class MeanSample(Struct, frozen=True):
    """Mean of values, with its error between clusters. If no value differs, one that does is taken to add ``unit``."""

    n: int
    estimate: float
    standard_error: float
    clusters: int
    unit: float

    def bound(self, confidence: float) -> stats.ConfidenceBounds:
        """Return the estimate with bounds that each hold at `confidence`."""
        return stats.bound_mean(self.estimate, self.standard_error, self.clusters, self.unit, confidence)


class QuantileSample(Struct, frozen=True):
    """Quantile of values in ascending order. ``effective_size`` is rounded down."""

    n: int
    values: Array
    share: Decimal
    effective_size: int

    @property
    def estimate(self) -> float:
        """The value at the nearest rank."""
        top, bottom = self.share.as_integer_ratio()
        return float(self.values[-(-self.n * top // bottom) - 1])

    def bound(self, confidence: float) -> stats.ConfidenceBounds:
        """Return the estimate with bounds that each hold at `confidence`."""
        size = self.effective_size
        lower, upper = stats.bound_quantile_ranks(size, self.share, confidence)
        # ranks of the effective sample, scaled to the ranks of all values
        low = -math.inf if lower is None else float(self.values[max(1, lower * self.n // size) - 1])
        high = math.inf if upper is None else float(self.values[-(-upper * self.n // size) - 1])
        return stats.ConfidenceBounds(self.estimate, low, high)


Sample: TypeAlias = RateSample | MeanSample | QuantileSample


def read_samples(
    connection: duckdb.DuckDBPyConnection,
    node: s.Function,
    by: tuple[s.Name, ...],
    bindings: Bindings,
    tables: tuple[str, ...],
) -> list[dict[GroupKey, Sample]]:
    """Return the samples of an error rate, a mean or a quantile, by group, for each table of traces.

    Without groups, the key is empty. The mean of calls per request is 0 in a group without calls that another table
    has.
    """
    if is_calls_per_request(node):
        return _read_calls_samples(connection, node, by, bindings, tables)
    samples = []
    for traces in tables:
        query = compile_sample(node, by, bindings, traces)
        share = Decimal(0) if query.kind != "quantile" else v.read_percentage(node.name, node.arguments) / 100
        groups = _read_rows(connection, query)
        samples.append({key if by else _WHOLE: _make_sample(query.kind, rows, share) for key, rows in groups.items()})
    return samples


class SampleRows(Struct, frozen=True):
    """Columns of a group's rows; see `SampleQuery`."""

    traces: Array
    begins_ns: Array
    counts: Array
    totals: Array


def _read_rows(connection: duckdb.DuckDBPyConnection, query: SampleQuery) -> dict[GroupKey, SampleRows]:
    table = fetch_table(connection, query.sql, query.parameters)
    encoded = table.column("grp").combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    columns = [table.column(name).to_numpy() for name in ("trace", "begin_ns", "n", "total")]
    order = np.argsort(codes, kind="stable")
    order = order[np.isfinite(columns[-1].astype(float)[order])]  # an infinite attribute is no number to average
    starts = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
    groups = {}
    for number, text in enumerate(encoded.dictionary.to_pylist()):
        chosen = order[starts[number] : starts[number + 1]]
        if len(chosen):
            groups[_read_key(text)] = SampleRows(*(column[chosen] for column in columns))
    return groups


def _read_key(text: str) -> GroupKey:
    return tuple(None if each == MISSING_FIELD else each for each in text.split(FIELD_SEPARATOR))


def _make_sample(kind: str, rows: SampleRows, share: Decimal) -> Sample:
    if kind == "quantile":
        values = np.sort(rows.totals)
        n = len(values)
        top, bottom = share.as_integer_ratio()
        estimate = values[-(-n * top // bottom) - 1]
        clusters = _sum_clusters(rows, rows.totals <= estimate)
        size = math.floor(stats.compute_effective_size(*clusters))
        return QuantileSample(n, values, share, size)
    clusters = stats.order_clusters(rows.begins_ns, rows.traces, rows.counts, rows.totals)
    n = int(rows.counts.sum())
    if kind == "rate":
        return RateSample(n, int(rows.totals.sum()), stats.compute_effective_size(*clusters))
    mean, error, size = stats.estimate_ratio(*clusters)
    return MeanSample(n, mean, error, size, abs(mean) or 1.0)


def _sum_clusters(rows: SampleRows, hits: Array) -> tuple[Array, Array]:
    """Return the numbers of values and of hits per trace, in the order in which the traces began."""
    traces, codes, counts = np.unique(rows.traces, return_inverse=True, return_counts=True)
    sums = np.bincount(codes, weights=hits)
    return stats.order_clusters(_find_first(rows.begins_ns, codes, len(traces)), traces, counts, sums)


def _find_first(begins_ns: Array, codes: Array, count: int) -> Array:
    """Return the earliest of the times of each of the `count` traces."""
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, codes, begins_ns)
    return first


def _read_calls_samples(
    connection: duckdb.DuckDBPyConnection,
    node: s.Function,
    by: tuple[s.Name, ...],
    bindings: Bindings,
    tables: tuple[str, ...],
) -> list[dict[GroupKey, Sample]]:
    """Return the samples of calls per request: of the requests of those callers that make calls of the group."""
    queries = [compile_calls_sample(node, by, bindings, traces) for traces in tables]
    read = [(_read_rows(connection, calls), _read_rows(connection, requests)) for calls, requests in queries]
    callers: dict[GroupKey, set[GroupKey]] = defaultdict(set)
    for calls, _ in read:
        for key in calls:
            callers[key[:-1]].add(key[-1:])
    if not by and not callers:  # nobody makes such a call: 0 of all requests
        callers[_WHOLE] = {name for _, requests in read for name in requests}
    samples = []
    for calls, requests in read:
        sides: dict[GroupKey, Sample] = {}
        for group, names in callers.items():
            served = [requests[name] for name in sorted(names) if name in requests]
            if served:
                made = [calls[group + name] for name in sorted(names) if group + name in calls]
                sides[group] = _make_calls_sample(served, made)
        samples.append(sides)
    return samples


def _make_calls_sample(served: list[SampleRows], made: list[SampleRows]) -> Sample:
    all_traces = np.concatenate([rows.traces for rows in served])
    traces, codes = np.unique(all_traces, return_inverse=True)
    requests = np.bincount(codes, weights=np.concatenate([rows.counts for rows in served]))
    begins_ns = _find_first(np.concatenate([rows.begins_ns for rows in served]), codes, len(traces))
    called = np.zeros(len(traces))
    for rows in made:
        places = np.minimum(np.searchsorted(traces, rows.traces), len(traces) - 1)
        is_served = traces[places] == rows.traces
        np.add.at(called, places[is_served], rows.totals[is_served])
    mean, error, size = stats.estimate_ratio(*stats.order_clusters(begins_ns, traces, requests, called))
    return MeanSample(int(requests.sum()), mean, error, size, 1.0)
