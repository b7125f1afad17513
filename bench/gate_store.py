"""A store for a deploy gate: requests to 100 services, answered by two versions of the first one.

Latencies are log-normal; some requests fail, some calls are retried, and a bank fails at times, so that a circuit
opens. The content is deterministic. The store is filled by its own `append`, not over the network.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spanproof.collector.otlp.decoder import DecodedBatch
from spanproof.collector.storage.store import Store

Numbers = npt.NDArray[np.int64]

BEGIN_NS: Final = 1_760_000_000_000_000_000
DURATION_NS: Final = 3_600_000_000_000
SERVICES: Final = (
    "gateway",
    "orders",
    "inventory",
    "payments",
    "postgresql",
    "bank",
    "bank-backup",
    *(f"service-{number:02}" for number in range(96)),
)
_HOSTS: Final = 8
_NEW_VERSION_SHARE = 0.5  # share of the requests that the new version answers
_BATCH = 12_000  # requests per append: a quarter of a million spans
_OPENS_AFTER, _OPEN_NS = 5, 35_000_000_000
_SERVER, _CLIENT = 2, 3


@dataclass(frozen=True, slots=True)
class Step:
    """One span of a request: its service, its parent, and its duration without its children."""

    service: int  # index in SERVICES, of the first one if several services share this step
    name: str
    kind: int
    parent: int | None
    callee: int | None = None
    own_us: int = 400
    services: int = 1  # number of services that share this step


def _make_chain() -> Iterator[Step]:
    """Yield a chain of five calls that starts at orders; each call goes to a random service of a pool."""
    first, pool = SERVICES.index("service-00"), 19
    for link in range(5):
        callee, at = first + link * pool, 10 + 2 * link
        caller, callers, parent = (1, 1, 2) if link == 0 else (callee - pool, pool, at - 1)
        yield Step(caller, "GET /things", _CLIENT, parent, callee, services=callers)
        yield Step(callee, "GET /things/{id}", _SERVER, at, own_us=4000, services=pool + (link == 4))


STEPS: Final = (
    Step(0, "POST /checkout", _SERVER, None, own_us=8000),
    Step(0, "POST /orders", _CLIENT, 0, 1),
    Step(1, "POST /orders", _SERVER, 1, own_us=5000),
    Step(1, "GET /stock", _CLIENT, 2, 2),
    Step(2, "GET /stock", _SERVER, 3, own_us=3000),
    Step(2, "SELECT stock", _CLIENT, 4, 4, own_us=1500),
    Step(1, "POST /charge", _CLIENT, 2, 3),
    Step(3, "POST /charge", _SERVER, 6, own_us=9000),
    Step(3, "POST /transfers", _CLIENT, 7, 5, own_us=20_000),
    Step(1, "INSERT orders", _CLIENT, 2, 4, own_us=2500),
    *_make_chain(),
    Step(1, "GET /stock", _CLIENT, 2, 2),  # the first attempt, if there is a retry
    Step(2, "GET /stock", _SERVER, 20, own_us=3000),
    Step(3, "POST /transfers", _CLIENT, 7, 6, own_us=20_000),  # if the bank fails
)
# the temporal order of a span's children, if it differs from that of the steps
_FIRST_ATTEMPT, _RETRY, _PAYMENTS, _BANK, _BACKUP = 20, 3, 7, 8, 22
_CHILD_ORDER: Final = {2: (_FIRST_ATTEMPT, _RETRY, 6, 9, 10)}


def make_store(path: Path, spans: int) -> None:
    """Make a store of about `spans` spans; it is written to another file first, so that one at `path` is complete."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    requests = spans // 20
    with Store.open(unfinished) as store:
        for number, first in enumerate(range(0, requests, _BATCH)):
            store.append(_make_batch(store, number, first, min(requests, first + _BATCH), requests))
        store.compact()
    unfinished.rename(path)
    time.sleep(5.1)  # a trace with spans of the last seconds is still incomplete


def _make_batch(store: Store, number: int, first: int, last: int, requests: int) -> DecodedBatch:
    n = last - first
    generator = np.random.default_rng(number)
    own_durations = (
        np.exp(generator.normal(0, 0.6, (len(STEPS), n))) * np.array([[step.own_us] for step in STEPS]) * 1000
    )
    exists = np.ones((len(STEPS), n), bool)
    exists[_FIRST_ATTEMPT] = exists[_FIRST_ATTEMPT + 1] = generator.random(n) < 0.02
    exists[_BACKUP] = False
    backoffs = exists[_FIRST_ATTEMPT] * generator.integers(60_000_000, 90_000_000, n)
    begin = BEGIN_NS + (np.arange(first, last) * DURATION_NS // requests).astype(np.int64)
    is_new = generator.random(n) < _NEW_VERSION_SHARE
    hosts = generator.integers(0, _HOSTS, (len(SERVICES), n))

    start, end = _lay_out(own_durations.astype(np.int64), exists, backoffs, begin)
    fails = _break_bank(start[_BANK], end[_BANK], hosts[3] == number % _HOSTS, is_new, exists)
    start, end = _lay_out(own_durations.astype(np.int64), exists, backoffs, begin)

    has_error = np.zeros((len(STEPS), n), bool)
    has_error[_BANK] = fails
    has_error[_FIRST_ATTEMPT] = has_error[_FIRST_ATTEMPT + 1] = True
    has_error[0] = generator.random(n) < 0.004
    has_error[6] = has_error[_PAYMENTS] = ~exists[_BACKUP] & (generator.random(n) < 0.003)

    services = np.array([[step.service] for step in STEPS]) + np.zeros((1, n), np.int64)
    callees = np.array([[-1 if step.callee is None else step.callee] for step in STEPS]) + np.zeros((1, n), np.int64)
    for at, step in enumerate(STEPS):
        if step.services > 1 and step.kind == _SERVER:
            services[at] += generator.integers(0, step.services, n)
            callees[at - 1] = services[at]
            if at + 1 < _FIRST_ATTEMPT:
                services[at + 1] = services[at]
    host = np.take_along_axis(hosts, services, 0)
    ids = generator.integers(1, 2**63, (len(STEPS), n), np.uint64)
    parents = np.array([[0 if step.parent is None else step.parent] for step in STEPS])
    step_index, trace = np.nonzero(exists)
    end_order = np.argsort(end[step_index, trace], kind="stable")
    step_index, trace = step_index[end_order], trace[end_order]
    arrived = pa.table(
        {
            "step": step_index,
            "trace_id": _take_trace_ids(generator.bytes(16 * n), trace),
            "span_id": ids[step_index, trace],
            "parent_id": ids[parents[step_index, 0], trace],
            "service": services[step_index, trace],
            "callee": callees[step_index, trace],
            "version": np.where(services[step_index, trace] == 0, is_new[trace], 0).astype(np.int64),
            "host": host[step_index, trace],
            "start_ns": start[step_index, trace],
            "end_ns": end[step_index, trace],
            "has_error": has_error[step_index, trace],
            "salt": generator.integers(0, 2**63, n)[trace],
        }
    )
    return _decode(store, arrived)


def _lay_out(
    own_durations: Numbers, exists: npt.NDArray[np.bool_], backoffs: Numbers, begin: Numbers
) -> tuple[Numbers, Numbers]:
    """Return the start and end of each span; its children run one after another after half of its own duration."""
    durations = own_durations * exists
    durations[2] += backoffs
    for at in reversed(range(1, len(STEPS))):
        parent = STEPS[at].parent
        assert parent is not None  # noqa: S101 (only the first step has none)
        durations[parent] += durations[at]
    start = np.zeros_like(own_durations)
    start[0] = begin
    for parent in range(len(STEPS)):
        at = start[parent] + own_durations[parent] // 2
        children = [child for child, step in enumerate(STEPS) if step.parent == parent]
        for child in _CHILD_ORDER.get(parent, children):
            if child == _RETRY:
                at = at + backoffs
            start[child] = at
            at = at + durations[child]
    return start, start + durations


def _break_bank(
    start: Numbers,
    end: Numbers,
    at_instance: npt.NDArray[np.bool_],
    is_new: npt.NDArray[np.bool_],
    exists: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Make the bank fail for one instance of payments until its circuit opens; return which calls fail.

    It breaks between two results. The circuit opens at the fifth; calls that are under way by then fail, too.
    """
    calls = np.nonzero(at_instance & (end > start.min() + 5_000_000_000))[0]
    calls = calls[np.argsort(end[calls])]
    opened_ns = end[calls[np.nonzero(is_new[calls])[0][_OPENS_AFTER - 1]]]
    fails = np.zeros(len(start), bool)
    fails[calls[start[calls] <= opened_ns]] = True
    rejected = at_instance & (start > opened_ns) & (start <= opened_ns + _OPEN_NS)
    exists[_BANK] = ~rejected
    exists[_BACKUP] = fails | rejected
    return fails


def _take_trace_ids(random_bytes: bytes, trace: Numbers) -> pa.Array:
    ids = np.frombuffer(random_bytes, np.uint8).reshape(-1, 16)[trace]
    storage = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(trace), [None, pa.py_buffer(ids.tobytes())])
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


_RESOURCE_KEY = "service * 64 + version * 16 + host + 1"
_KEYS = {
    "server": "http.request.method http.route url.path url.scheme http.response.status_code request.id user.id",
    "client": "http.request.method url.full server.address server.port http.response.status_code request.id",
    "database": "db.system.name db.namespace db.query.text db.operation.name server.address server.port",
}
_TEXTS = {
    "server": "split_part(name, ' ', 1), split_part(name, ' ', 2), split_part(name, ' ', 2) || '/' || salt % 5000,"
    " 'http', status_code, to_hex(salt), 'user-' || salt % 20000",
    "client": "split_part(name, ' ', 1), 'http://' || callee_name || ':8080' || split_part(name, ' ', 2)"
    " || '/' || salt % 5000, callee_name, '8080', status_code, to_hex(salt)",
    "database": "'postgresql', 'shop', name || ' WHERE id = ?', split_part(name, ' ', 1), 'postgresql', '5432'",
}
_LETTERS = {"server": "ssssiss", "client": "sssiis", "database": "sssssi"}


def _select_by_kind(values: dict[str, str]) -> str:
    return (
        f"CASE WHEN callee_name = 'postgresql' THEN {values['database']} WHEN kind = {_SERVER} THEN {values['server']}"
        f" ELSE {values['client']} END"
    )


_SPANS = f"""
SELECT * EXCLUDE (span_key, arrived_ns) FROM (
    (FROM spans LIMIT 0)
    UNION ALL BY NAME
    SELECT
        NULL AS span_key, NULL AS arrived_ns,
        trace_id, span_id, CASE WHEN step > 0 THEN parent_id END AS parent_id, '' AS trace_state, 257 AS flags,
        $services[service + 1] AS service, name, kind, start_ns, end_ns, has_error::INTEGER * 2 AS status,
        '' AS status_message,
        {{'keys': {_select_by_kind({kind: str(keys.split()) for kind, keys in _KEYS.items()})},
          'texts': {_select_by_kind({kind: f"[{texts}]" for kind, texts in _TEXTS.items()})}}} AS attributes,
        {_select_by_kind({kind: f"'{letters}'" for kind, letters in _LETTERS.items()})} AS attribute_kinds,
        0 AS dropped_attributes_count, [] AS events, 0 AS dropped_events_count, [] AS links, 0 AS dropped_links_count,
        {_RESOURCE_KEY} AS resource_key, 1 AS scope_key
    FROM (
        SELECT
            *, $names[step + 1] AS name, $kinds[step + 1] AS kind, $services[callee + 1] AS callee_name,
            CASE WHEN NOT has_error THEN '200' WHEN step IN (0, {_PAYMENTS}) THEN '500' ELSE '503' END AS status_code
        FROM arrived
    )
)
"""  # noqa: S608 (fixed texts)
_RESOURCES = f"""
SELECT DISTINCT
    ({_RESOURCE_KEY})::UBIGINT AS resource_key, $services[service + 1] AS service,
    {{'keys': ['service.name', 'service.version', 'host.name', 'telemetry.sdk.language'],
      'texts': [$services[service + 1], $versions[version + 1], $services[service + 1] || '-' || host, 'python']}}
        AS attributes,
    'ssss' AS attribute_kinds, 0::UINTEGER AS dropped_attributes_count, '[]' AS entity_refs, '' AS schema_url
FROM arrived
"""  # noqa: S608 (fixed texts)
_SCOPES = """
SELECT
    1::UBIGINT AS scope_key, 'bench' AS name, '1.0' AS version,
    {'keys': []::VARCHAR[], 'texts': []::VARCHAR[]} AS attributes, '' AS attribute_kinds,
    0::UINTEGER AS dropped_attributes_count, '' AS schema_url
"""


def _decode(store: Store, arrived: pa.Table) -> DecodedBatch:
    """Return the spans as the columns of the store."""
    parameters = {
        "services": list(SERVICES),
        "names": [step.name for step in STEPS],
        "kinds": [step.kind for step in STEPS],
    }
    with closing(store.cursor()) as connection:
        versions = {"services": list(SERVICES), "versions": ["1.4.1", "1.4.2"]}
        spans = connection.sql(_SPANS, params=parameters).to_arrow_table()
        resources = connection.sql(_RESOURCES, params=versions).to_arrow_table()
        scopes = connection.sql(_SCOPES).to_arrow_table()
    return DecodedBatch(spans, resources, scopes, (), {})
