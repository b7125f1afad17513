"""A store as a deploy gate finds it: requests to 100 services, two versions of the one that answers them.

Latencies are log-normal; some requests fail, some calls are retried, and now and then a bank is out of order, so that
a circuit opens. The same every time. The store is filled by its own `append`, not over the network.
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
LASTS_NS: Final = 3_600_000_000_000
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
_NEW_SHARE = 0.5  # of the requests, answered by the new version
_BATCH = 12_000  # requests an append: a quarter of a million spans
_OPENS_AFTER, _OPEN_NS = 5, 35_000_000_000
_SERVER, _CLIENT = 2, 3


@dataclass(frozen=True, slots=True)
class Step:
    """One span of a request: whose, under which, and how long it takes without those under it."""

    service: int  # in SERVICES, or the first of those that share this place
    name: str
    kind: int
    parent: int | None
    callee: int | None = None
    own_us: int = 400
    services: int = 1  # how many share this place


def _chain() -> Iterator[Step]:
    """Five calls to services of which each request meets other ones: orders, and what it asked, ask further."""
    first, pool = SERVICES.index("service-00"), 19
    for link in range(5):
        callee, at = first + link * pool, 10 + 2 * link
        asking = (1, 1, 2) if link == 0 else (callee - pool, pool, at - 1)
        yield Step(asking[0], "GET /things", _CLIENT, asking[2], callee, services=asking[1])
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
    *_chain(),
    Step(1, "GET /stock", _CLIENT, 2, 2),  # the first try, where it was retried
    Step(2, "GET /stock", _SERVER, 20, own_us=3000),
    Step(3, "POST /transfers", _CLIENT, 7, 6, own_us=20_000),  # where the bank was out of order
)
# the order in which a span's children follow each other, where it is not that of the steps
_FIRST_TRY, _RETRIED, _PAYMENTS, _BANK, _BACKUP = 20, 3, 7, 8, 22
_IN_TURN: Final = {2: (_FIRST_TRY, _RETRIED, 6, 9, 10)}


def make_store(path: Path, spans: int) -> None:
    """Make a store of about so many spans at `path`, by way of another file, so that a store there is whole."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    requests = spans // 20
    with Store.open(unfinished) as store:
        for number, first in enumerate(range(0, requests, _BATCH)):
            store.append(_make_batch(store, number, first, min(requests, first + _BATCH), requests))
        store.compact()
    unfinished.rename(path)
    time.sleep(5.1)  # a trace of which something came just now may still be growing


def _make_batch(store: Store, number: int, first: int, last: int, requests: int) -> DecodedBatch:
    n = last - first
    dice = np.random.default_rng(number)
    own = np.exp(dice.normal(0, 0.6, (len(STEPS), n))) * np.array([[step.own_us] for step in STEPS]) * 1000
    there = np.ones((len(STEPS), n), bool)
    there[_FIRST_TRY] = there[_FIRST_TRY + 1] = dice.random(n) < 0.02
    there[_BACKUP] = False
    waits = there[_FIRST_TRY] * dice.integers(60_000_000, 90_000_000, n)
    begin = BEGIN_NS + (np.arange(first, last) * LASTS_NS // requests).astype(np.int64)
    is_new = dice.random(n) < _NEW_SHARE
    hosts = dice.integers(0, _HOSTS, (len(SERVICES), n))

    start, _ = _lay_out(own.astype(np.int64), there, waits, begin)
    broken = _break_bank(start[_BANK], hosts[3] == number % _HOSTS, is_new, there)
    start, end = _lay_out(own.astype(np.int64), there, waits, begin)

    wrong = np.zeros((len(STEPS), n), bool)
    wrong[_BANK] = broken
    wrong[_FIRST_TRY] = wrong[_FIRST_TRY + 1] = True
    wrong[0] = dice.random(n) < 0.004
    wrong[6] = wrong[_PAYMENTS] = ~there[_BACKUP] & (dice.random(n) < 0.003)

    services = np.array([[step.service] for step in STEPS]) + np.zeros((1, n), np.int64)
    callees = np.array([[-1 if step.callee is None else step.callee] for step in STEPS]) + np.zeros((1, n), np.int64)
    for at, step in enumerate(STEPS):
        if step.services > 1 and step.kind == _SERVER:
            services[at] += dice.integers(0, step.services, n)
            callees[at - 1] = services[at]
            if at + 1 < _FIRST_TRY:
                services[at + 1] = services[at]
    host = np.take_along_axis(hosts, services, 0)
    ids = dice.integers(1, 2**63, (len(STEPS), n), np.uint64)
    parents = np.array([[0 if step.parent is None else step.parent] for step in STEPS])
    place, trace = np.nonzero(there)
    order = np.argsort(end[place, trace], kind="stable")
    place, trace = place[order], trace[order]
    arrived = pa.table(
        {
            "step": place,
            "trace_id": _take_traces(dice.bytes(16 * n), trace),
            "span_id": ids[place, trace],
            "parent_id": ids[parents[place, 0], trace],
            "service": services[place, trace],
            "callee": callees[place, trace],
            "version": np.where(services[place, trace] == 0, is_new[trace], 0).astype(np.int64),
            "host": host[place, trace],
            "start_ns": start[place, trace],
            "end_ns": end[place, trace],
            "wrong": wrong[place, trace],
            "salt": dice.integers(0, 2**63, n)[trace],
        }
    )
    return _decode(store, arrived)


def _lay_out(own: Numbers, there: npt.NDArray[np.bool_], waits: Numbers, begin: Numbers) -> tuple[Numbers, Numbers]:
    """Say when each span starts and ends: a span's children follow each other after half of its own time."""
    lasts = own * there
    lasts[2] += waits
    for at in reversed(range(1, len(STEPS))):
        parent = STEPS[at].parent
        assert parent is not None  # noqa: S101 (only the first has none)
        lasts[parent] += lasts[at]
    start = np.zeros_like(own)
    start[0] = begin
    for parent in range(len(STEPS)):
        at = start[parent] + own[parent] // 2
        children = [child for child, step in enumerate(STEPS) if step.parent == parent]
        for child in _IN_TURN.get(parent, children):
            if child == _RETRIED:
                at = at + waits
            start[child] = at
            at = at + lasts[child]
    return start, start + lasts


def _break_bank(
    start: Numbers, here: npt.NDArray[np.bool_], is_new: npt.NDArray[np.bool_], there: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Let the bank fail for one instance of payments until its circuit opens; say which of the calls fail."""
    calls = np.nonzero(here & (start > start.min() + 5_000_000_000))[0]
    calls = calls[np.argsort(start[calls])]
    fifth = calls[np.nonzero(is_new[calls])[0][_OPENS_AFTER - 1]]
    broken = np.zeros(len(start), bool)
    broken[calls[start[calls] <= start[fifth]]] = True
    held = here & (start > start[fifth]) & (start <= start[fifth] + _OPEN_NS)
    there[_BANK] = ~held
    there[_BACKUP] = broken | held
    return broken


def _take_traces(drawn: bytes, trace: Numbers) -> pa.Array:
    ids = np.frombuffer(drawn, np.uint8).reshape(-1, 16)[trace]
    storage = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(trace), [None, pa.py_buffer(ids.tobytes())])
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


_ORIGIN = "service * 64 + version * 16 + host + 1"
_KEYS = {
    "server": "http.request.method http.route url.path url.scheme http.response.status_code request.id user.id",
    "client": "http.request.method url.full server.address server.port http.response.status_code request.id",
    "database": "db.system.name db.namespace db.query.text db.operation.name server.address server.port",
}
_TEXTS = {
    "server": "split_part(name, ' ', 1), split_part(name, ' ', 2), split_part(name, ' ', 2) || '/' || salt % 5000,"
    " 'http', status_code, to_hex(salt), 'user-' || salt % 20000",
    "client": "split_part(name, ' ', 1), 'http://' || asked || ':8080' || split_part(name, ' ', 2)"
    " || '/' || salt % 5000, asked, '8080', status_code, to_hex(salt)",
    "database": "'postgresql', 'shop', name || ' WHERE id = ?', split_part(name, ' ', 1), 'postgresql', '5432'",
}
_LETTERS = {"server": "ssssiss", "client": "sssiis", "database": "sssssi"}


def _by_kind(values: dict[str, str]) -> str:
    return (
        f"CASE WHEN asked = 'postgresql' THEN {values['database']} WHEN kind = {_SERVER} THEN {values['server']}"
        f" ELSE {values['client']} END"
    )


_SPANS = f"""
SELECT * EXCLUDE (span_key, arrived_ns) FROM (
    (FROM spans LIMIT 0)
    UNION ALL BY NAME
    SELECT
        NULL AS span_key, NULL AS arrived_ns,
        trace_id, span_id, CASE WHEN step > 0 THEN parent_id END AS parent_id, '' AS trace_state, 257 AS flags,
        $services[service + 1] AS service, name, kind, start_ns, end_ns, wrong::INTEGER * 2 AS status,
        '' AS status_message,
        {{'keys': {_by_kind({kind: str(keys.split()) for kind, keys in _KEYS.items()})},
          'texts': {_by_kind({kind: f"[{texts}]" for kind, texts in _TEXTS.items()})}}} AS attributes,
        {_by_kind({kind: f"'{letters}'" for kind, letters in _LETTERS.items()})} AS attribute_kinds,
        0 AS dropped_attributes_count, [] AS events, 0 AS dropped_events_count, [] AS links, 0 AS dropped_links_count,
        {_ORIGIN} AS resource_key, 1 AS scope_key
    FROM (
        SELECT
            *, $names[step + 1] AS name, $kinds[step + 1] AS kind, $services[callee + 1] AS asked,
            CASE WHEN NOT wrong THEN '200' WHEN step = 0 OR step = {_PAYMENTS} THEN '500' ELSE '503' END AS status_code
        FROM arrived
    )
)
"""  # noqa: S608 (fixed)
_RESOURCES = f"""
SELECT DISTINCT
    ({_ORIGIN})::UBIGINT AS resource_key, $services[service + 1] AS service,
    {{'keys': ['service.name', 'service.version', 'host.name', 'telemetry.sdk.language'],
      'texts': [$services[service + 1], $versions[version + 1], $services[service + 1] || '-' || host, 'python']}}
        AS attributes,
    'ssss' AS attribute_kinds, 0::UINTEGER AS dropped_attributes_count, '[]' AS entity_refs, '' AS schema_url
FROM arrived
"""  # noqa: S608 (fixed)
_SCOPES = """
SELECT
    1::UBIGINT AS scope_key, 'bench' AS name, '1.0' AS version,
    {'keys': []::VARCHAR[], 'texts': []::VARCHAR[]} AS attributes, '' AS attribute_kinds,
    0::UINTEGER AS dropped_attributes_count, '' AS schema_url
"""


def _decode(store: Store, arrived: pa.Table) -> DecodedBatch:
    """Write the spans as the columns of the store."""
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
