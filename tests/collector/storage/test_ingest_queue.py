from __future__ import annotations

import pytest

from spanproof.collector.otlp.decoder import ExportResult, UndecodableRequest
from spanproof.collector.storage.ingest_queue import Backpressure, IngestQueue
from spanproof.collector.storage.store import Store
from spanproof.collector.user_errors import StoreError


def name_span(request, name: str) -> bytes:
    request.resource_spans[0].scope_spans[0].spans[0].name = name
    return request.SerializeToString()


def count_spans(store: Store) -> int:
    with store.cursor() as cursor:
        ((count,),) = cursor.execute("SELECT count(*) FROM spans").fetchall()
    return count


def test_response_follows_commit_and_waiting_requests_share_one(gated_store, make_request) -> None:
    ingest = IngestQueue(gated_store)
    first = ingest.submit(make_request(1).SerializeToString())
    assert gated_store.arrived.wait(30)
    others = [ingest.submit(make_request(count).SerializeToString()) for count in (2, 3, 4)]
    assert not any(result.done() for result in (first, *others))
    gated_store.gate.set()
    assert [result.result(30) for result in (first, *others)] == [
        ExportResult(1),
        ExportResult(2),
        ExportResult(3),
        ExportResult(4),
    ]
    # one request was being committed, at most one was decoded, the others were queued
    assert (len(gated_store.batches) <= 3, sum(gated_store.batches)) == (True, 10)
    assert count_spans(gated_store) == 10
    assert ingest.drain_and_stop(30)


def test_full_queue_rejects_until_it_has_room(gated_store, make_request) -> None:
    body = make_request().SerializeToString()
    for limits in ({"max_queued_requests": 2}, {"max_queued_bytes": 2 * len(body)}):
        gated_store.gate.clear()
        ingest = IngestQueue(gated_store, **limits)
        results = [ingest.submit(body), ingest.submit(body)]
        with pytest.raises(Backpressure, match="the collector is busy: 2 requests are waiting"):
            ingest.submit(body)
        gated_store.gate.set()
        assert [result.result(30) for result in results] == [ExportResult(1)] * 2
        assert ingest.submit(body).result(30) == ExportResult(1)
        assert ingest.drain_and_stop(30)


def test_request_larger_than_queue_is_accepted_alone(gated_store, make_request) -> None:
    gated_store.gate.set()
    ingest = IngestQueue(gated_store, max_queued_bytes=1)
    assert ingest.submit(make_request().SerializeToString()).result(30) == ExportResult(1)
    assert ingest.drain_and_stop(30)


def test_undecodable_request_does_not_affect_others(gated_store, make_request) -> None:
    gated_store.gate.set()
    ingest = IngestQueue(gated_store)
    results = [ingest.submit(body) for body in (make_request().SerializeToString(), b"\xff")]
    assert results[0].result(30) == ExportResult(1)
    assert isinstance(results[1].exception(30), UndecodableRequest)
    assert ingest.drain_and_stop(30)


def test_request_rejected_by_store_does_not_affect_others(gated_store, make_request) -> None:
    ingest = IngestQueue(gated_store)
    ingest.submit(make_request().SerializeToString())
    assert gated_store.arrived.wait(30)
    results = [ingest.submit(name_span(make_request(), name)) for name in ("good", "poison", "fine")]
    gated_store.gate.set()
    assert results[0].result(30) == results[2].result(30) == ExportResult(1)
    assert str(results[1].exception(30)) == "poison"
    assert count_spans(gated_store) == 3
    assert ingest.drain_and_stop(30)


def test_bug_fails_only_its_batch(gated_store, make_request, caplog) -> None:
    gated_store.gate.set()
    ingest = IngestQueue(gated_store)
    error = ingest.submit(name_span(make_request(), "bug")).exception(30)
    assert isinstance(error, StoreError)
    assert str(error) == "the spans could not be stored: bug"
    assert caplog.messages == ["a batch of 1 requests could not be written"]
    assert ingest.submit(make_request().SerializeToString()).result(30) == ExportResult(1)
    assert ingest.drain_and_stop(30)


def test_stop_drains_queue_and_rejects_new_requests(gated_store, make_request) -> None:
    ingest = IngestQueue(gated_store)
    result = ingest.submit(make_request().SerializeToString())
    assert not ingest.drain_and_stop(0.01)
    with pytest.raises(Backpressure, match="the collector is shutting down"):
        ingest.submit(b"")
    gated_store.gate.set()
    assert ingest.drain_and_stop(30)
    assert result.result(0) == ExportResult(1)
