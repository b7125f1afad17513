"""Attempts: the columns of each pair of caller and callee."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.attempt_outcomes import AttemptOutcome, AttemptSide
from spanproof.collector.calls.peers import KnownPeers, find_answers, find_name_rows, name_callees
from spanproof.collector.calls.request_identity import PROTOCOLS
from spanproof.collector.calls.span_pairs import BARE, MESSAGE, PAIRED, SHAPES, SpanPairs
from spanproof.collector.storage.arrow_columns import MISSING_ROW, BoolArray, IntArray, to_bool_array, to_int_array
from spanproof.collector.topology.attempt_counters import find_counter_rows
from spanproof.collector.topology.nesting import Nesting
from spanproof.collector.topology.span_batch import SpanBatch
from spanproof.collector.topology.topology import CLIENT, PRODUCER, SERVER

_CLIENT, _PRODUCER, _SERVER = (pa.scalar(kind, pa.int32()) for kind in (CLIENT, PRODUCER, SERVER))


def build_attempts(
    spans: SpanBatch, nesting: Nesting, pairs: SpanPairs, known: KnownPeers, are_proxies: BoolArray
) -> tuple[pa.Table, dict[str, frozenset[str]]]:
    """Return the columns of ``attempts`` that need no logical call, and some more; and which services answered where.

    The answers are by `peers.make_address_key`. `known` is what the store has learned before.
    """
    topology = nesting.topology
    caller = AttemptSide(spans, topology, pairs.caller_rows)
    server = AttemptSide(spans, topology, pairs.callee_rows)
    exit_rows = pairs.exit_rows
    exit_ = AttemptSide(spans, topology, exit_rows)
    is_bare, is_message, is_paired = (pairs.shape_indices == SHAPES.index(shape) for shape in (BARE, MESSAGE, PAIRED))

    def is_any(column: str) -> BoolArray:
        return exit_.read_bool(column) | server.read_bool(column)

    protocol = np.select(
        [is_any("is_db"), is_any("is_messaging") | is_message, is_any("is_rpc"), is_any("is_http")],
        range(len(PROTOCOLS) - 1),
        len(PROTOCOLS) - 1,
    )
    # the result of a delivery is that of the consumer span; of a bare call, that of the callee's entry span
    judged_at_server = pa.array(is_bare | (is_message & (pairs.callee_rows != MISSING_ROW)))

    def read_outcome(column: str) -> pa.Array:
        return pc.if_else(judged_at_server, server.read(column), exit_.read(column))

    outcome = AttemptOutcome(exit_, server, judged_at_server)
    start_ns, end_ns = read_outcome("start_ns"), read_outcome("end_ns")
    name_rows = find_name_rows(spans, nesting, exit_rows)
    name_row_array = pa.array(name_rows, mask=name_rows == MISSING_ROW)
    addresses, caller_services = exit_.read("address"), caller.read("service")
    is_answered = server.keys.is_valid()
    answers = find_answers(
        *(column.filter(is_answered) for column in (caller_services, server.read("service"), addresses))
    )
    callee = name_callees(
        spans, pairs, protocol, server.read("service"), caller_services, name_row_array, known.with_answers(answers)
    )
    sole_rows = nesting.find_sole_wrappers(np.where(is_message, MISSING_ROW, exit_rows))
    sole_wrapper = AttemptSide(spans, topology, sole_rows)
    counting = AttemptSide(
        spans, topology, find_counter_rows(spans, nesting, exit_rows, pairs.callee_rows, is_message, are_proxies)
    )
    table = pa.table(
        {
            "trace_id": caller.read("trace_id"),
            "dirty": caller.read("dirty"),
            "attempt_key": _hash_span_pairs(caller, server),
            "shape": _make_dictionary_array(pairs.shape_indices, SHAPES),
            "caller": caller_services,
            "callee": callee,
            "names_callee": spans.column("peer_name").take(name_row_array).is_valid(),
            "operation": pc.coalesce(server.read("name"), spans.column("name").take(name_row_array)),
            "address": addresses,
            "protocol": _make_dictionary_array(protocol, PROTOCOLS),
            # a message without a consumer is asynchronous, too
            "async": pc.or_(pa.array(is_message), pc.equal(caller.read("kind"), _PRODUCER)),
            "caller_entry": caller.entry_keys,
            "callee_entry": server.entry_keys,
            "client_key": exit_.keys,
            "server_key": server.keys,
            "wrapper_key": spans.take_keys(_take_or_missing(nesting.wrappers, exit_rows)),
            "outer_wrapper_key": spans.take_keys(nesting.find_outer_wrappers(exit_rows)),
            "start_ns": start_ns,
            "end_ns": end_ns,
            "network_ns": _null_unless(is_paired, pc.subtract(exit_.durations, server.durations)),
            "lag_ns": _null_unless(is_message, pc.subtract(server.read("start_ns"), exit_.read("end_ns"))),
            "status": read_outcome("status"),
            "error": outcome.error,
            "failed": outcome.error | outcome.no_response,
            "responded": outcome.responded,
            "retryable": outcome.is_retryable,
            "http_outcome": outcome.http_outcome,
            "rpc_outcome": outcome.rpc_outcome,
            "is_request": pc.and_(pc.equal(exit_.read("kind"), _CLIENT), pc.equal(server.read("kind"), _SERVER)),
            "server_start_ns": server.read("start_ns"),
            "server_end_ns": server.read("end_ns"),
            "server_status": server.read("status"),
            "server_failed": server.errors,
            "server_retryable": server.is_retryable,
            "rpc_attempt": exit_.read_bool("rpc_attempt"),
            "attempts_before": counting.read("attempts_before"),
            "counts_redirects": counting.read("counts_redirects"),
            "message_key": _null_unless(is_message, server.read("message_key")),
            "has_sole_wrapper": sole_wrapper.keys.is_valid(),
            "wrapper_start_ns": sole_wrapper.read("start_ns"),
            "wrapper_end_ns": sole_wrapper.read("end_ns"),
            "wrapper_error": sole_wrapper.errors,
            "no_response": outcome.no_response,
            "over_ns": pc.min_element_wise(
                end_ns, _null_unless(to_bool_array(outcome.responded), server.read("end_ns"))
            ),
            "definite": caller.is_definite & server.is_definite,
        }
    )
    return table, answers


def _take_or_missing(values: IntArray, rows: IntArray) -> IntArray:
    return np.where(rows == MISSING_ROW, MISSING_ROW, values[rows])


def _make_dictionary_array(indices: IntArray, texts: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(texts, pa.string()))


def _null_unless(condition: BoolArray, values: pa.Array) -> pa.Array:
    return pc.if_else(pa.array(condition), values, pa.scalar(None, values.type))


def _hash_span_pairs(caller: AttemptSide, server: AttemptSide) -> IntArray:
    """Return a hash of each pair of spans: the finalizer of SplitMix64 (Steele et al., 2014), unsigned 63 bits."""
    first, second = (to_int_array(keys.fill_null(0)).astype(np.uint64) for keys in (caller.keys, server.keys))
    mixed = first * np.uint64(0x9E3779B97F4A7C15) + second
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    attempt_keys: IntArray = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
    return attempt_keys
