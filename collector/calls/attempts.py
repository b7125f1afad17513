"""Attempts: the columns of each pair of caller and callee."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.peers import KnownPeers, find_answers, find_name_rows, name_peers
from spanproof.collector.calls.request_identity import identify_request
from spanproof.collector.calls.retryable_failures import find_retryable
from spanproof.collector.calls.span_pairs import BARE, MESSAGE, PAIRED, SHAPES, SpanPairs
from spanproof.collector.storage.arrow_columns import MISSING_ROW, BoolArray, IntArray, to_bool_array, to_int_array
from spanproof.collector.topology.nesting import Nesting
from spanproof.collector.topology.span_batch import SpanBatch
from spanproof.collector.topology.span_errors import HttpOutcome, RpcOutcome
from spanproof.collector.topology.topology import PRODUCER

_PROTOCOLS = ("db", "messaging", "rpc", "http", "other")
# typed scalars, as in span_errors.py
_PRODUCER, _NO_BOOL, _NO_TEXT = (
    pa.scalar(PRODUCER, pa.int32()),
    pa.scalar(None, pa.bool_()),
    pa.scalar(None, pa.string()),
)
_CLIENT_ERROR, _CANCELLED = (
    pa.scalar(outcome, pa.uint8()) for outcome in (HttpOutcome.CLIENT_ERROR, RpcOutcome.CANCELLED)
)
_SEPARATOR, _EMPTY_TEXT = (pa.scalar(text, pa.string()) for text in ("\x1f", ""))


def build_attempts(
    spans: SpanBatch, nesting: Nesting, pairs: SpanPairs, known: KnownPeers
) -> tuple[pa.Table, dict[str, frozenset[str]]]:
    """Return the columns of ``attempts`` that need no logical call, and some more; and which services answered where.

    The answers are by `peers.make_address_key`. `known` is what the store has learned before.
    """
    caller = _AttemptSide(spans, nesting, pairs.caller_rows)
    server = _AttemptSide(spans, nesting, pairs.callee_rows)
    exit_ = _AttemptSide(spans, nesting, pairs.exit_rows)
    bare, message, paired = (pa.array(pairs.shape_indices == SHAPES.index(shape)) for shape in (BARE, MESSAGE, PAIRED))
    is_bare, is_message = to_bool_array(bare), to_bool_array(message)

    def is_any(column: str) -> BoolArray:
        return to_bool_array(exit_.read(column)) | to_bool_array(server.read(column))

    protocol = np.select(
        [is_any("is_db"), is_any("is_messaging") | is_message, is_any("is_rpc"), is_any("is_http")],
        range(len(_PROTOCOLS) - 1),
        len(_PROTOCOLS) - 1,
    )
    # the consumer span tells how a delivery went, and the callee's entry span how a bare call did
    judged_at_server = pa.array(is_bare | (is_message & (pairs.callee_rows != MISSING_ROW)))

    def read_outcome(column: str) -> pa.Array:
        return pc.if_else(judged_at_server, server.read(column), exit_.read(column))

    outcome = _Outcome(exit_, server, judged_at_server)
    start_ns = pc.if_else(judged_at_server, server.read("start_ns"), exit_.read("start_ns"))
    end_ns = read_outcome("end_ns")
    name_rows = find_name_rows(spans, nesting, pairs.exit_rows)
    name_row_array = pa.array(name_rows, mask=name_rows == MISSING_ROW)
    addresses, caller_services = exit_.read("address"), caller.read("service")
    is_answered = server.keys.is_valid()
    answers = find_answers(
        *(column.filter(is_answered) for column in (caller_services, server.read("service"), addresses))
    )
    callee = _name_callees(
        spans, pairs, protocol, server.read("service"), caller_services, name_row_array, known.with_answers(answers)
    )
    wrapper_rows = _AttemptSide(spans, nesting, _take_or_missing(nesting.wrappers, pairs.exit_rows))
    sole_wrapper = _AttemptSide(spans, nesting, _find_sole_wrappers(nesting, pairs))
    outer = [_outermost(nesting, row) for row in pairs.exit_rows[_has_wrapper(nesting, pairs.exit_rows)].tolist()]
    outer_rows = np.full(len(pairs.exit_rows), MISSING_ROW)
    outer_rows[_has_wrapper(nesting, pairs.exit_rows)] = outer
    table = pa.table(
        {
            "trace_id": caller.read("trace_id"),
            "dirty": caller.read("dirty"),
            "attempt_key": _hash_span_pairs(caller, server),
            "shape": _make_dictionary_array(pairs.shape_indices, SHAPES),
            "caller": caller_services,
            "callee": callee,
            "operation": pc.coalesce(server.read("name"), spans.column("name").take(name_row_array)),
            "address": addresses,
            "protocol": _make_dictionary_array(protocol, _PROTOCOLS),
            # a message without a consumer is asynchronous, too
            "async": pc.or_(message, pc.equal(caller.read("kind"), _PRODUCER)),
            "caller_entry": caller.entries,
            "callee_entry": server.entries,
            "client_key": exit_.keys,
            "server_key": server.keys,
            "wrapper_key": wrapper_rows.keys,
            "outer_wrapper_key": _AttemptSide(spans, nesting, outer_rows).keys,
            "start_ns": start_ns,
            "end_ns": end_ns,
            "network_ns": _null_unless(paired, pc.subtract(exit_.durations, server.durations)),
            "lag_ns": _null_unless(message, pc.subtract(server.read("start_ns"), exit_.read("end_ns"))),
            "status": read_outcome("status"),
            "error": outcome.error,
            "failed": outcome.error | outcome.no_response,
            "responded": outcome.responded,
            "retryable": outcome.retryable,
            "http_outcome": outcome.http_outcome,
            "rpc_outcome": outcome.rpc_outcome,
            "server_start_ns": server.read("start_ns"),
            "server_end_ns": server.read("end_ns"),
            "server_status": server.read("status"),
            "server_failed": server.errors,
            "server_retryable": _find_server_retryable(server),
            "rpc_attempt": pc.fill_null(exit_.read("rpc_attempt"), False),
            "attempts_before": pc.coalesce(
                server_counter := _message_counter(server, message), exit_.read("attempts_before")
            ),
            "counts_redirects": pc.if_else(server_counter.is_valid(), pa.scalar(False), exit_.read("counts_redirects")),
            "message_key": _null_unless(message, _make_message_keys(server)),
            "call_start_ns": pc.coalesce(sole_wrapper.read("start_ns"), start_ns),
            "call_end_ns": pc.if_else(sole_wrapper.keys.is_valid(), sole_wrapper.read("end_ns"), end_ns),
            "call_error": np.where(to_bool_array(sole_wrapper.keys.is_valid()), sole_wrapper.errors, outcome.error),
            "no_response": outcome.no_response,
            "over_ns": pc.min_element_wise(end_ns, _null_unless(outcome.responded, server.read("end_ns"))),
            "definite": caller.definite & server.definite,
        }
    )
    return table, answers


class _AttemptSide:
    """The spans on one side of the attempts, as columns; null where there is no span."""

    def __init__(self, spans: SpanBatch, nesting: Nesting, rows: IntArray) -> None:
        topology = nesting.topology
        self._spans = spans
        self._rows = pa.array(rows, mask=rows == MISSING_ROW)
        self._columns: dict[str, pa.Array] = {}
        self.keys = self.read("span_key")
        self.errors = to_bool_array(self._take(pa.array(topology.errors)))
        self.definite = to_bool_array(self._take(pa.array(topology.is_definite)))
        self.entries = spans.take_keys(np.where(rows == MISSING_ROW, MISSING_ROW, topology.entries[rows]))

    def read(self, column: str) -> pa.Array:
        """Return a column."""
        if column not in self._columns:
            self._columns[column] = self._take(self._spans.column(column))
        return self._columns[column]

    @property
    def durations(self) -> pa.Array:
        """The durations of the spans, in nanoseconds."""
        return pc.subtract(self.read("end_ns"), self.read("start_ns"))

    @property
    def has_error_sign(self) -> BoolArray:
        """Whether the spans are in error, or name an error type or an exception."""
        signs: BoolArray = (
            self.errors | to_bool_array(self.read("has_error_type")) | to_bool_array(self.read("has_exception"))
        )
        return signs

    def _take(self, values: pa.Array) -> pa.Array:
        return values.take(self._rows)


class _Outcome:
    """How attempts ended, for their callers."""

    def __init__(self, exit_: _AttemptSide, server: _AttemptSide, judged_at_server: pa.Array) -> None:
        at_server = to_bool_array(judged_at_server)
        has_exit = to_bool_array(exit_.keys.is_valid())
        server_ended_first = to_bool_array(pc.less_equal(server.read("end_ns"), exit_.read("end_ns")))
        http, rpc = exit_.read("http_outcome"), exit_.read("rpc_outcome")
        has_status = to_bool_array(http.is_valid()) | to_bool_array(rpc.is_valid())
        # A response that the client did not record may be the one that the server sent. Where the client reports an
        # error, a success of the server does not explain it: the response was lost.
        server_failed = to_bool_array(pc.greater_equal(server.read("http_outcome"), _CLIENT_ERROR)) | to_bool_array(
            pc.greater(server.read("rpc_outcome"), pa.scalar(RpcOutcome.OK, pa.uint8()))
        )
        from_server = server_ended_first & ~has_status & (server_failed | ~exit_.has_error_sign)
        use_server = pa.array(at_server | from_server)
        self.http_outcome = pc.if_else(use_server, server.read("http_outcome"), http)
        self.rpc_outcome = pc.if_else(use_server, server.read("rpc_outcome"), rpc)
        is_http_client = to_bool_array(exit_.read("has_http_method")) & ~to_bool_array(exit_.read("is_rpc"))
        is_finished = to_bool_array(exit_.read("end_ns").is_valid())
        self.no_response: BoolArray = has_exit & ~at_server & is_http_client & is_finished & ~has_status & ~from_server
        # outside HTTP, whether a response was received is decided where a timeout is judged
        self.responded = pc.if_else(pa.array(is_http_client & is_finished & ~at_server), ~self.no_response, _NO_BOOL)
        self.error: BoolArray = np.where(at_server, server.errors, exit_.errors)
        signs = np.where(at_server, server.has_error_sign, exit_.has_error_sign)
        cancelled = to_bool_array(pc.equal(server.read("rpc_outcome"), _CANCELLED)) & (server_ended_first | at_server)
        self.retryable = find_retryable(self.rpc_outcome, self.http_outcome, signs | self.no_response, cancelled)


def _find_server_retryable(server: _AttemptSide) -> BoolArray:
    cancelled = to_bool_array(pc.equal(server.read("rpc_outcome"), _CANCELLED))
    return find_retryable(server.read("rpc_outcome"), server.read("http_outcome"), server.has_error_sign, cancelled)


def _message_counter(server: _AttemptSide, message: pa.Array) -> pa.Array:
    return _null_unless(message, server.read("attempts_before"))


def _make_message_keys(server: _AttemptSide) -> pa.Array:
    """Return a key of each message for each service that takes it up; null where the message has no id."""
    columns = [
        pc.coalesce(server.read(name), _EMPTY_TEXT)
        for name in ("service", "consumer_group", "messaging_system", "destination")
    ]
    offset = pc.binary_join_element_wise(
        server.read("message_partition"), server.read("message_offset"), pa.scalar("/", pa.string())
    )
    id_ = pc.coalesce(server.read("message_id"), offset)
    return pc.binary_join_element_wise(*columns, id_, _SEPARATOR)


def _name_callees(
    spans: SpanBatch,
    pairs: SpanPairs,
    protocol: IntArray,
    server_services: pa.Array,
    callers: pa.Array,
    name_rows: pa.Array,
    known: KnownPeers,
) -> pa.Array:
    """Return the callee of each attempt."""
    unanswered = np.flatnonzero(pairs.callee_rows == MISSING_ROW)
    if not len(unanswered):
        return server_services
    rows = pa.array(unanswered)
    same_target = _find_same_target_services(spans, pairs, protocol, server_services, known)
    names = name_peers(spans, name_rows.take(rows), callers.take(rows), same_target.take(rows), known)
    positions = np.full(len(server_services), MISSING_ROW)
    positions[unanswered] = np.arange(len(unanswered))
    return pc.coalesce(server_services, names.take(pa.array(positions, mask=positions == MISSING_ROW)))


def _find_same_target_services(
    spans: SpanBatch, pairs: SpanPairs, protocol: IntArray, server_services: pa.Array, known: KnownPeers
) -> pa.Array:
    """Return the service that answered the same caller at the same target in the same trace, or null.

    It is needed only where the address does not tell: without an address, or where several services answer there.
    """
    shared = {key.rpartition(" ")[2] for key, services in known.services_by_address.items() if len(services) > 1}
    exit_rows = pairs.exit_rows
    addresses = spans.column("address").take(pa.array(exit_rows, mask=exit_rows == MISSING_ROW))
    is_ambiguous = to_bool_array(
        pc.or_(addresses.is_null(), pc.is_in(addresses, pa.array(sorted(shared), pa.string())))
    )
    traces = spans.index.trace_indices[pairs.caller_rows]
    is_database, is_answered = protocol == _PROTOCOLS.index("db"), pairs.callee_rows != MISSING_ROW
    # most databases never send spans
    may_answer = ~is_database | np.isin(traces, np.unique(traces[is_database & is_answered]))
    is_open = is_ambiguous & ~is_answered & may_answer
    open_traces = np.unique(traces[is_open])
    involved = np.flatnonzero(
        (is_open | (is_answered & is_ambiguous)) & (exit_rows != MISSING_ROW) & np.isin(traces, open_traces)
    )
    if not is_open.any() or not len(involved):
        return pa.nulls(len(exit_rows), pa.string())
    identities = [
        identify_request(spans, exit_row, server_row, _PROTOCOLS[index])
        for exit_row, server_row, index in zip(
            exit_rows[involved].tolist(), pairs.callee_rows[involved].tolist(), protocol[involved].tolist(), strict=True
        )
    ]
    services: defaultdict[tuple[int, int, str, str], set[str]] = defaultdict(set)
    keys = []
    caller_numbers = spans.services[exit_rows[involved]].tolist()
    names = server_services.take(pa.array(involved)).to_pylist()
    for trace, number, identity, name in zip(traces[involved].tolist(), caller_numbers, identities, names, strict=True):
        keys.append((trace, number, identity.address, identity.target))
        if name is not None:
            services[keys[-1]].add(name)
    found: list[str | None] = [None] * len(exit_rows)
    for position, key in zip(involved.tolist(), keys, strict=True):
        found[position] = next(iter(services[key])) if len(services[key]) == 1 else None
    return pa.array(found, pa.string())


def _has_wrapper(nesting: Nesting, exit_rows: IntArray) -> BoolArray:
    has_wrapper: BoolArray = (exit_rows != MISSING_ROW) & (nesting.wrappers[exit_rows] != MISSING_ROW)
    return has_wrapper


def _outermost(nesting: Nesting, row: int) -> int:
    """Return the outermost wrapper span of an exit span, or `MISSING_ROW` if the nearest is the only one."""
    wrappers = nesting.list_wrappers(row)
    return wrappers[-1] if len(wrappers) > 1 else MISSING_ROW


def _find_sole_wrappers(nesting: Nesting, pairs: SpanPairs) -> IntArray:
    """Return the outermost wrapper span around exactly one attempt, for requests and responses."""
    found = np.full(len(pairs.exit_rows), MISSING_ROW)
    is_request = pairs.shape_indices != SHAPES.index(MESSAGE)
    for position in np.flatnonzero(_has_wrapper(nesting, pairs.exit_rows) & is_request).tolist():
        sole = [row for row in nesting.list_wrappers(int(pairs.exit_rows[position])) if nesting.inner_counts[row] == 1]
        if sole:
            found[position] = sole[-1]
    return found


def _take_or_missing(values: IntArray, rows: IntArray) -> IntArray:
    return np.where(rows == MISSING_ROW, MISSING_ROW, values[rows])


def _make_dictionary_array(indices: IntArray, texts: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(texts, pa.string()))


def _null_unless(condition: pa.Array, values: pa.Array) -> pa.Array:
    return pc.if_else(condition, values, pa.scalar(None, values.type))


def _hash_span_pairs(caller: _AttemptSide, server: _AttemptSide) -> IntArray:
    """Return a hash of each pair of spans: the finalizer of SplitMix64 (Steele et al., 2014), unsigned 63 bits."""
    first, second = (to_int_array(keys.fill_null(0)).astype(np.uint64) for keys in (caller.keys, server.keys))
    mixed = first * np.uint64(0x9E3779B97F4A7C15) + second
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    attempt_keys: IntArray = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
    return attempt_keys
