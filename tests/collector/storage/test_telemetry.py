from __future__ import annotations

import pytest

from spanproof.collector.storage.ingest_queue import IngestQueue
from spanproof.collector.user_errors import StoreError


def test_queue_gauges_count_waiting_requests(gated_store, make_request) -> None:
    read = gated_store.telemetry.registry.get_sample_value
    ingest = IngestQueue(gated_store)
    bodies = [make_request(count).SerializeToString() for count in (1, 2, 3)]
    answers = [ingest.submit(body) for body in bodies]
    assert read("spanproof_queue_requests") == 3
    assert read("spanproof_queue_bytes") == sum(len(body) for body in bodies)
    gated_store.gate.set()
    for answer in answers:
        answer.result(30)
    assert (read("spanproof_queue_requests"), read("spanproof_queue_bytes")) == (0, 0)
    assert ingest.drain_and_stop(30)


def test_rejected_batch_counts_as_received_not_accepted(gated_store, make_request) -> None:
    read = gated_store.telemetry.registry.get_sample_value
    gated_store.gate.set()
    ingest = IngestQueue(gated_store)
    poison = make_request(3)
    poison.resource_spans[0].scope_spans[0].spans[0].name = "poison"
    with pytest.raises(StoreError):
        ingest.submit(poison.SerializeToString()).result(30)
    assert ingest.submit(make_request(2).SerializeToString()).result(30)
    assert (read("spanproof_spans_received_total"), read("spanproof_spans_accepted_total")) == (5, 2)
    assert ingest.drain_and_stop(30)
