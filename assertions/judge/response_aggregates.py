"""Aggregates of the responses of a repeated request, such as ``p95(response.duration)``."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from math import ceil
from typing import Final

from msgspec.structs import replace

from spanproof.assertions.triggers.responses import RepeatedResponses
from spanproof.query_lang.check.constants import Bindings, Constant, MissingValue, to_decimal
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v

AGGREGATE_FUNCTIONS: Final[Mapping[str, Callable[[Sequence[Decimal]], Decimal]]] = {
    "min": min,
    "max": max,
    "avg": lambda values: sum(values, Decimal()) / len(values),
    "sum": lambda values: sum(values, Decimal()),
    "stddev": lambda values: statistics.stdev(values),
}


def substitute_aggregates(expectation: s.Expectation, bindings: Bindings) -> s.Expectation:
    """Return a claim with its aggregates of responses replaced by their values. Raises MissingValue."""

    def substitute(node: object) -> object:
        if not isinstance(node, s.Function) or node.name not in v.AGGREGATES or not node.arguments:
            return node
        last = node.arguments[-1]
        response = bindings.responses.get(last.step) if isinstance(last, s.Response) else None
        if not isinstance(last, s.Response) or not isinstance(response, RepeatedResponses):
            return node
        return _compute_aggregate(node, last, response)

    return replace(expectation, claim=s.rewrite(expectation.claim, substitute))


def _compute_aggregate(node: s.Function, part: s.Response, response: RepeatedResponses) -> s.Number:
    parts = (answer.read(part.part, part.keys) for answer in response.responses)
    values = [value for value in parts if value is not None and value.value is not None]
    if not values:
        raise MissingValue(f"no response has a value for `{node.name}`")
    if node.name == "distinct":
        return s.Number(Decimal(len({repr(value.value) for value in values})), "", node.at)
    return s.Number(_apply_function(node, sorted(to_decimal(value) for value in values)), _find_unit(values), node.at)


def _apply_function(node: s.Function, values: Sequence[Decimal]) -> Decimal:
    if node.name in AGGREGATE_FUNCTIONS:
        if node.name == "stddev" and len(values) < 2:
            raise MissingValue("the standard deviation of one value is undefined")
        return AGGREGATE_FUNCTIONS[node.name](values)
    first = node.arguments[0]
    percentage = first.value if isinstance(first, s.Number) else Decimal(v.read_quantile(node.name) or 0)
    return values[ceil(percentage * len(values) / 100) - 1]  # nearest rank, as for spans


def _find_unit(values: Sequence[Constant]) -> s.Unit:
    return "ns" if values[0].kind == "duration" else ""
